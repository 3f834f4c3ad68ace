"""Pages of the gallery: from an index that follows the repository."""

from __future__ import annotations

import pytest

from console.galleries.browse import PAGE, Query, items, letters
from console.galleries.items import store_of
from tests.console_galleries import curating, draft, make_repository, publish_all
from tests.console_samples import running_console
from tests.fleet_bundles import CATEGORY

COUNT = 150


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A console with 150 made-up items in place of the four."""
    with curating(tmp_path_factory.mktemp("many")) as client:
        with client.services.database.write() as connection:
            connection.execute("DELETE FROM gallery_items")
            connection.execute("DELETE FROM gallery_text")
            connection.execute("DELETE FROM gallery_letters")
            first = store_of(connection, CATEGORY)["first_id"]
            for number in range(COUNT):
                label = f"{'abc'[number * 3 // COUNT]} label {number:03d}"
                values = (first + number, f'id-{number}%_"', label, number % 5 + 1, number % 7 == 0, number % 2,
                          number % 4, 0, 0)  # fmt: skip
                store_id = store_of(connection, CATEGORY)["id"]
                connection.execute(
                    "INSERT INTO gallery_items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (values[0], store_id, *values[1:]),
                )
                connection.execute("INSERT INTO gallery_text(rowid, item, label) VALUES (?, ?, ?)", values[:3])
            connection.execute("UPDATE gallery_stores SET items = ?", (COUNT,))
        yield client


def walk(client, query):
    """Return the places of all items, page after page."""
    found, after = [], None
    with client.services.database.read() as rows:
        store = store_of(rows, CATEGORY)
        while True:
            page = items(rows, store, Query(query.text, query.sort, query.only, after))
            assert len(page.items) <= PAGE
            found += [one.id - store["first_id"] for one in page.items]
            if page.next is None:
                return found
            after = page.next


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(), list(range(COUNT))),
        (Query(sort="vectors"), sorted(range(COUNT), key=lambda n: (n % 5, n))),
        (Query(sort="change"), sorted(range(COUNT), key=lambda n: (-(n % 4), n))),
        (Query(only="few"), [n for n in range(COUNT) if n % 5 < 2]),
        (Query(only="faceless", sort="change"), sorted(range(0, COUNT, 2), key=lambda n: (-(n % 4), n))),
        (Query(only="negative"), list(range(0, COUNT, 7))),
        (Query("label"), list(range(COUNT))),
        (Query("LABEL 01"), list(range(10, 20))),
        (Query("b"), list(range(50, 100))),
        (Query("id-7"), [7, *range(70, 80)]),
        (Query('%_"'), list(range(COUNT))),
        (Query("%"), []),
        (Query('" OR item:'), []),
    ],
)
def test_every_page_follows_the_one_before(many, query, expected):
    assert walk(many, query) == expected


def test_pages_answer_whatever_is_asked(many):
    for query in ("q=%00", "q=" + "x" * 300, "sort=none", "id=-1", "id=99999999999999999999", "value=1"):
        assert many.get(f"/gallery/{CATEGORY}?{query}").status in (200, 422)
    for path in (f"{CATEGORY}%2Fx", "-", "none", "%00"):
        assert many.get(f"/gallery/{path}").status in (404, 422)


def test_first_letters_lead_to_their_items(tmp_path):
    with curating(tmp_path) as client:
        with client.services.database.read() as rows:
            store = store_of(rows, CATEGORY)
            assert letters(rows, store) == [("I", store["first_id"])]
        page = client.get(f"/gallery/{CATEGORY}?at={store['first_id'] + 2}").text
        assert "Item 1" not in page
        assert "Item 2" in page


def test_categories_tell_what_is_missing(tmp_path):
    with curating(tmp_path) as client:
        (one,) = client.get("/api/v1/gallery/categories").json["categories"]
        assert one == {
            "category": CATEGORY, "items": 4, "vectors": 12, "few": 0, "without_thumbnail": 1, "negative": 0,
            "searched": True,
        }  # fmt: skip
        assert "1 without picture" in client.get("/gallery").text
        assert "1 item" in client.get("/gallery/-/warnings").text


def test_index_follows_what_others_publish(tmp_path):
    from gallery_sync.cli import main

    with curating(tmp_path) as client:
        arguments = ["rename", str(tmp_path / "repo"), CATEGORY, "item-1", "By another"]
        assert main(["gallery", *arguments]) == 0
        client.get("/gallery")
        client.services.tasks.wait("gallery/index", 60.0)
        assert "By another" in client.get(f"/gallery/{CATEGORY}").text
        page = client.get(f"/gallery/{CATEGORY}/items?item=item-1").text
        assert "not made with this console" in page
        restored = client.send(
            "POST", "/api/v1/gallery/drafts/restore", {"category": CATEGORY, "item": "item-1", "gallery": 2}
        )
        assert "'Item 1' with 3 vectors" in restored.json["does"]


def test_store_that_did_not_change_is_not_read_again(tmp_path):
    with curating(tmp_path) as client:
        with client.services.database.read() as rows:
            before = store_of(rows, CATEGORY)["id"]
        client.send("POST", "/api/v1/gallery/refresh")
        client.services.tasks.wait("gallery/index", 60.0)
        draft(client, "rename", "item-1", label="x")
        with client.services.database.read() as rows:
            assert store_of(rows, CATEGORY)["id"] == before
        publish_all(client)
        with client.services.database.read() as rows:
            assert store_of(rows, CATEGORY)["id"] != before
            assert rows.execute("SELECT count(*) FROM gallery_items").fetchone()[0] == 4
        assert len(list((tmp_path / "data/gallery/stores").glob("*.sqlite"))) == 1


def test_without_a_repository_the_page_says_how_to_give_one(tmp_path):
    with running_console(tmp_path) as client:
        page = client.get("/gallery").text
        assert "edge-console serve --repo REPO" in page
        assert client.get(f"/gallery/{CATEGORY}").status == 503
        assert client.get("/api/v1/gallery/categories").status == 503
        body = {"category": "c", "item": "i", "label": "l"}
        assert client.send("POST", "/api/v1/gallery/drafts/rename", body).status == 503


def test_damaged_repository_is_said_and_breaks_nothing(tmp_path):
    repo = make_repository(tmp_path)
    (repo / "metadata/timestamp.json").write_bytes(b"{}")
    with running_console(tmp_path / "data", repository=repo) as client:
        reply = client.get("/gallery")
        assert reply.status == 200
        assert "no gallery that can be shown" in reply.text
