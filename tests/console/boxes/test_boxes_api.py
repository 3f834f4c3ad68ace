"""The pages and the API of boxes, over HTTP."""

from __future__ import annotations

import pytest

from tests.console_box_samples import boxes_in, made_set, propose, set_of
from tests.console_samples import running_console

NAMES = ("a.png", "b.png")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with running_console(tmp_path_factory.mktemp("console")) as client:
        yield client


def test_pages_show_what_waits(client, tmp_path):
    first, second = made_set(client.services, tmp_path, NAMES)
    cards = set_of(client.services, first)
    assert f'href="/boxes/{cards}"' in client.get("/boxes").text
    page = client.get(f"/boxes/{cards}").text
    assert f'data-picture="{first}"' in page
    assert "A round needs 5 confirmed pictures; 0 so far." in page
    assert f'data-picture="{second}"' in client.get(f"/boxes/{cards}?picture={second}").text
    other = made_set(client.services, tmp_path / "other", NAMES)[0]
    assert client.get(f"/boxes/{cards}?picture={other}").status == 404
    assert client.get("/boxes/99999").status == 404


def test_saving_says_what_comes_next(client, tmp_path):
    first, second = made_set(client.services, tmp_path, NAMES)
    propose(client.services, first, (10, 10, 50, 50), uncertainty=0.9)
    propose(client.services, second, uncertainty=0.1)
    picture = client.get(f"/api/v1/boxes/pictures/{first}").json
    assert (picture["next"], picture["waiting"], picture["boxes"][0]["source"]) == (second, 2, "cues")
    boxes = [{"id": picture["boxes"][0]["id"], "box_px": [10, 10, 50, 50], "category": "card"}]
    reply = client.send("PUT", f"/api/v1/boxes/pictures/{first}", {"version": picture["version"], "boxes": boxes})
    assert (reply.status, reply.json["next"], reply.json["waiting"]) == (200, second, 1)
    again = client.send("PUT", f"/api/v1/boxes/pictures/{first}", {"version": picture["version"], "boxes": []})
    assert (again.status, again.json["reason"]) == (409, "conflict")
    assert boxes_in(client.services, first) == [(10, 10, 50, 50)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"version": 1},
        {"version": 1, "boxes": [{"box_px": [1, 2, 3]}]},
        {"version": 1, "boxes": [{"box_px": [1, 2, 30, 1e300]}]},
        {"version": 1, "boxes": [{"box_px": [1, 2, 30, 40], "category": "a\0b"}]},
        {"version": 1, "boxes": [{"box_px": [1, 2, 30, 40], "category": "\ud800"}]},
        {"version": 1, "boxes": [{"box_px": [1, 2, 30, 40], "category": "x" * 201}]},
        {"version": 1, "boxes": [{"box_px": [1, 2, 30, 40], "id": 2**60}]},
        {"version": 1, "boxes": [{"box_px": [1, 2, 30, 40]}] * 2001},
        {"version": 1, "boxes": [], "more": 1},
    ],
)
def test_a_hostile_body_is_one_clear_error(client, tmp_path, body):
    first = made_set(client.services, tmp_path, NAMES)[0]
    reply = client.send("PUT", f"/api/v1/boxes/pictures/{first}", body)
    assert (reply.status, reply.json["reason"]) == (422, "invalid")


def test_cues_are_offered_only_where_training_is_installed(client, tmp_path, monkeypatch):
    cards = set_of(client.services, made_set(client.services, tmp_path, NAMES)[0])
    assert 'value="cues" checked' in client.get(f"/boxes/{cards}").text
    monkeypatch.setattr("console.pages.boxes.routes.missing_trainer", lambda: "pip install x")
    page = client.get(f"/boxes/{cards}").text
    assert 'value="cues" disabled' in page
    assert "pip install x" in page
    assert '<button class="primary" disabled>Propose' in page  # there is no bundle either


def test_proposing_says_what_is_missing(client, tmp_path):
    cards = set_of(client.services, made_set(client.services, tmp_path, NAMES)[0])
    reply = client.send("POST", f"/api/v1/boxes/{cards}/propose", {"by": "bundle"})
    assert (reply.status, reply.json["reason"]) == (503, "missing")
    reply = client.send("POST", f"/api/v1/boxes/{cards}/train", {})
    assert "0 pictures are confirmed; training needs at least 5" in reply.json["error"]
    assert client.send("POST", "/api/v1/boxes/99999/propose", {}).status == 404
