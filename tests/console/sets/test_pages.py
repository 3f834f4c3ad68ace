"""The pages and the API of sets, over HTTP."""

from __future__ import annotations

import hashlib

import pytest

from console.sets.keeping import look_key
from edge.kiosk.taught_store import TaughtStore
from tests.console.sets.sets_samples import HTML, SVG, encoded, zipped
from tests.console_samples import running_console


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("console")
    shop = folder / "open" / "shop" / "shoe" / "left"
    shop.mkdir(parents=True)
    (shop / "a.jpg").write_bytes(encoded(1))
    (shop / "<script>.jpg").write_bytes(encoded(2))
    TaughtStore(folder / "device" / "overlay", 9).save("Grandma's cup", "cup", [encoded(1)], "2026-01-01T00:00:00Z")
    with running_console(folder / "data", folders=(folder / "open",), device=folder / "device") as opened:
        yield opened


@pytest.fixture
def set_id(client, request):
    body = {"name": request.node.name[:100], "shows": "objects"}
    reply = client.send("POST", "/api/v1/sets", body)
    assert reply.status == 201
    assert reply.json["go"] == f"/sets/{reply.json['id']}"
    return reply.json["id"]


def test_upload_tells_what_became_of_each_file(client, set_id):
    reply = client.upload(f"/api/v1/sets/{set_id}/pictures", {"a.jpg": encoded(3), "b.jpg": SVG})
    assert reply.status == 200
    assert [one["outcome"] for one in reply.json["files"]] == ["added", "refused"]
    again = client.upload(f"/api/v1/sets/{set_id}/pictures", {"a.jpg": encoded(3)})
    assert again.json["files"][0]["outcome"] == "known"
    sha256 = hashlib.sha256(encoded(3)).hexdigest()
    known = client.send("POST", f"/api/v1/sets/{set_id}/known", {"sha256": [sha256, "0" * 64]})
    assert known.json["sha256"] == [sha256]


def test_disguised_page_is_never_served(client, set_id):
    client.upload(
        f"/api/v1/sets/{set_id}/pictures", {"a.jpg": HTML, "b.html": encoded(4), "c.zip": zipped({"d.jpg": SVG})}
    )
    (picture,) = client.get(f"/api/v1/sets/{set_id}/pictures").json["pictures"]
    shown = client.get(f"/api/v1/pictures/{picture['id']}/image?px=256")
    assert shown.headers["content-type"] == "image/jpeg"
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert shown.body[:3] == b"\xff\xd8\xff"


def test_pages_show_names_as_text(client):
    made = client.send(
        "POST", "/api/v1/sets", {"name": "<b>shop</b>", "kind": "folder", "folder": "shop", "shows": "objects"}
    ).json["id"]
    client.services.tasks.wait(look_key(made), 60.0)
    page = client.get(f"/sets/{made}")
    assert page.status == 200
    assert "&lt;script&gt;.jpg" in page.text
    assert "<script>.jpg" not in page.text
    assert "<b>shop</b>" not in page.text
    (_, second) = client.get(f"/api/v1/sets/{made}/pictures").json["pictures"]
    assert client.get(f"/sets/{made}/pictures/{second['id']}").status == 200


def test_vanished_picture_is_said_on_all_pages(client, set_id):
    client.upload(f"/api/v1/sets/{set_id}/pictures", {"gone.jpg": encoded(5)})
    (picture,) = client.get(f"/api/v1/sets/{set_id}/pictures").json["pictures"]
    next(client.services.settings.uploads.rglob("gone.jpg")).unlink()
    reply = client.get(f"/api/v1/pictures/{picture['id']}/image")
    assert reply.status == 400
    assert "the file is gone" in reply.json["error"]
    assert "the file is gone" in client.get(f"/sets/{set_id}/pictures/{picture['id']}").text
    assert "gone.jpg" in client.get(f"/sets/{set_id}?which=problems").text
    assert client.get(f"/sets/{set_id}").status == 200
    assert client.send("DELETE", f"/api/v1/pictures/{picture['id']}").status == 200


def test_taught_picture_says_where_else_it_is(client):
    made = client.send("POST", "/api/v1/sets", {"name": "taught here", "kind": "taught"}).json["id"]
    client.services.tasks.wait(look_key(made), 60.0)
    (picture,) = client.get(f"/api/v1/sets/{made}/pictures").json["pictures"]
    page = client.get(f"/sets/{made}/pictures/{picture['id']}").text
    assert "The device still has it" in page
    assert client.send("DELETE", f"/api/v1/pictures/{picture['id']}").status == 200
    assert next((client.services.settings.device / "overlay").rglob("look-0.jpg")).exists()
    assert client.get(f"/sets/{made}?which=problems").status == 200


def test_set_is_renamed_and_deleted(client, set_id):
    client.upload(f"/api/v1/sets/{set_id}/pictures", {"a.jpg": encoded(6)})
    change = {"version": 1, "name": f"renamed {set_id}", "category": "shoe"}
    assert client.send("PATCH", f"/api/v1/sets/{set_id}", change).json["version"] == 2
    reply = client.send("PATCH", f"/api/v1/sets/{set_id}", change)
    assert (reply.status, reply.json["reason"]) == (409, "conflict")
    assert client.get(f"/api/v1/sets/{set_id}").json["category"] == "shoe"
    assert client.send("DELETE", f"/api/v1/sets/{set_id}").json["go"] == "/sets"
    assert client.get(f"/sets/{set_id}").status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/sets", "/sets?x=1", "/api/v1/sets", "/api/v1/folders", "/api/v1/folders?path=shop",
    ],
)  # fmt: skip
def test_page_is_there(client, path):
    assert client.get(path).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/v1/sets", {"name": "x", "kind": "evaluation"}, 422),
        ("POST", "/api/v1/sets", {"name": "x", "kind": "folder", "folder": "../.."}, 403),
        ("POST", "/api/v1/sets", {"name": "x", "kind": "inbox"}, 503),
        ("POST", "/api/v1/sets", {"name": "x", "more": 1}, 422),
        ("PATCH", "/api/v1/sets/9999999", {"version": 1, "name": "x"}, 404),
        ("DELETE", "/api/v1/sets/9999999", None, 404),
        ("DELETE", "/api/v1/pictures/9999999", None, 404),
        ("GET", "/api/v1/pictures/9999999/image", None, 404),
        ("GET", "/api/v1/crops/9999999/image", None, 404),
        ("GET", "/sets/9999999/pictures/1", None, 404),
        ("GET", "/api/v1/folders?path=/etc", None, 403),
        ("GET", "/api/v1/pictures/1/image?px=99999", None, 422),
    ],
)
def test_wrong_request_is_refused(client, method, path, body, status):
    reply = client.send(method, path, body) if method != "GET" else client.get(path)
    assert reply.status == status


def test_only_sets_of_uploads_take_uploads(client):
    body = {"name": "a folder", "kind": "folder", "folder": "shop"}
    made = client.send("POST", "/api/v1/sets", body).json["id"]
    reply = client.upload(f"/api/v1/sets/{made}/pictures", {"a.jpg": encoded(9)})
    assert reply.status == 422
