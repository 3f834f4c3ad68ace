"""The start page: what waits, what runs, and a first time that says what to do."""

from __future__ import annotations

import threading

from tests.console.fleet.fleet_samples import TOKEN, fake_server
from tests.console_samples import running_console
from tests.waiting import DEADLINE_S, until


def add_set(services, name: str, *states: str, boxes: str = "whole") -> int:
    """Add a set with a picture for each state of a crop."""
    with services.database.write() as rows:
        number = rows.execute(
            "INSERT INTO sets(name, kind, folder, created_at, created_by) VALUES (?, 'folder', '/x', 1, 'ann')", (name,)
        ).lastrowid
        for at, state in enumerate(states):
            picture = rows.execute(
                "INSERT INTO pictures(set_id, name, sha256, size, width, height, boxes, added_at) "
                "VALUES (?, ?, '', 1, 9, 9, ?, 1)",
                (number, f"{at}.jpg", boxes),
            ).lastrowid
            rows.execute(
                "INSERT INTO crops(set_id, picture_id, x0, y0, x1, y1, box_source, state) "
                "VALUES (?, ?, 0, 0, 9, 9, 'x', ?)",
                (number, picture, state),
            )
    return number


def add_draft(services, state: str) -> None:
    with services.database.write() as rows:
        rows.execute(
            "INSERT INTO gallery_drafts(at, by, kind, category, item, arguments, state) "
            "VALUES (1, 'ann', 'rename', 'bottle', 'b1', '{}', ?)",
            (state,),
        )


def test_first_time_says_three_steps(tmp_path):
    with running_console(tmp_path) as client:
        page = client.get("/").text
        for text in ("1. Make a set", "2. Name", "3. Train, or publish", 'href="/sets"', 'href="/gallery"'):
            assert text in page
        add_set(client.services, "shelf", "open", "open")
        page = client.get("/").text
        assert "Name 2 objects" in page
        assert "1. Make a set" in page  # until something has a name


def test_what_waits_is_counted_and_linked(tmp_path):
    with running_console(tmp_path) as client:
        shelf = add_set(client.services, "shelf <b>", "open", "open", "item")
        street = add_set(client.services, "street", "item", boxes="proposed")
        add_draft(client.services, "open")
        add_draft(client.services, "waiting")
        add_draft(client.services, "published")
        page = client.get("/").text
    assert "1. Make a set" not in page
    assert f'href="/review/{shelf}"' in page
    assert "shelf &lt;b&gt;" in page
    assert f'href="/review/{street}"' not in page  # everything there has a name
    assert f'href="/boxes/{street}"' in page
    assert ">1</strong> change<" in " ".join(page.split())
    assert "1 change</a> wait" in page


def test_what_runs_shows_its_progress(tmp_path):
    with running_console(tmp_path) as client:
        may_end = threading.Event()

        def work(progress):
            progress(3, 7)
            may_end.wait(DEADLINE_S)
            return "done"

        client.services.tasks.start("propose/1", "Naming 7 crops", work)
        until(lambda: "3 of 7" in client.get("/parts/running").text, "the page says 3 of 7")
        may_end.set()
        client.services.tasks.wait("propose/1", DEADLINE_S)
        assert "Naming" not in client.get("/parts/running").text


def test_section_that_fails_leaves_the_others(tmp_path):
    with running_console(tmp_path) as client:
        add_set(client.services, "shelf", "open")
        add_draft(client.services, "open")
        with client.services.database.write() as rows:
            rows.execute("DROP TABLE gallery_drafts")
        assert "shelf" in client.get("/").text
        with client.services.database.write() as rows:
            rows.execute("ALTER TABLE sets RENAME TO gone")
        reply = client.get("/")
        assert reply.status == 200
        assert "cannot be read" in reply.text


def test_fleet_is_a_section_of_its_own(tmp_path):
    counts = {"devices": 9, "silent": 2, "failed": 1}
    with fake_server({"*": counts}) as url, running_console(tmp_path, fleet=url, fleet_token=TOKEN) as client:
        assert "/parts/overview/fleet" in client.get("/").text
        part = client.get("/parts/overview/fleet").text
    assert "9 devices" in part
    assert 'href="/fleet?failed=1"' in part
    assert "2 silent" in part
