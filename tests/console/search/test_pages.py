"""The search over HTTP: what people and programs send, hostile bytes too."""

from __future__ import annotations

import io
import struct
import zlib

import pytest

from edge.imaging import image
from edge.shipped.examples import shipped
from tests.console_samples import running_console

BUNDLE = shipped("demo") / "bundle"
SCENE = (BUNDLE / "probes" / "scene-00.jpg").read_bytes()
OBJECT = (BUNDLE / "probes" / "00.png").read_bytes()


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with running_console(tmp_path_factory.mktemp("console"), is_demo=True) as client:
        yield client


def png(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size that its few bytes do not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_pages_show_what_can_be_chosen(client):
    for path in ("/search", "/search/scene", "/search?choice=gone&framing=detect"):
        reply = client.get(path)
        assert reply.status == 200
        assert '<option value="demo" selected>Demo' in reply.text


def test_pages_work_without_any_bundle(tmp_path):
    with running_console(tmp_path) as client:
        for path in ("/search", "/search/scene"):
            assert "There is nothing to search with" in client.get(path).text
        reply = client.upload("/api/v1/search", {"a.png": OBJECT})
        assert (reply.status, reply.json["reason"]) == (503, "missing")
        assert "start with --device or --repo" in reply.json["error"]
        assert client.get("/api/v1/models").json["choices"] == []


def test_program_gets_the_item_of_a_picture(client):
    answer = client.upload("/api/v1/search", {"a.png": OBJECT}, framing="whole").json
    (found,) = answer["objects"]
    assert found["answer"]["item"] == "bottle-12"
    assert found["answer"]["page"] == "/gallery/bottle/items?item=bottle-12"
    assert found["top"][0]["similarity"] == found["answer"]["similarity"] > 0.9
    assert found["box"] == [0, 0, 44, 128]
    assert (answer["width"], answer["height"]) == (44, 128)
    assert answer["pair"]["bundle"] == "demo-1"
    assert {one["name"] for one in answer["stages"]} >= {"decode", "classify", "embed", "search"}
    thumbnail = client.get(found["answer"]["thumbnail"])
    assert thumbnail.headers["content-type"] == "image/jpeg"


def test_scene_gives_boxes_and_reasons(client):
    answer = client.upload("/api/v1/search", {"a.jpg": SCENE}, framing="detect").json
    assert len(answer["objects"]) == 4
    small = next(one for one in answer["objects"] if one["reason"] == "too_small")
    assert "too small" in small["reason_text"]
    assert small["answer"] is None


def test_preview_is_given_for_browsers_that_cannot_show_the_picture(client):
    answer = client.upload("/api/v1/search", {"a.png": OBJECT}, preview="true").json
    assert answer["preview"].startswith("/9j/")


@pytest.mark.parametrize(
    ("name", "data", "status", "reason"),
    [
        ("empty", b"", 400, "empty"),
        ("text", b"hello", 415, "not_a_picture"),
        ("html", b"<!doctype html><script>alert(1)</script>", 415, "not_a_picture"),
        ("svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", 415, "not_a_picture"),
        ("svg inside png", b"\x89PNG\r\n\x1a\n<svg/>", None, None),
        ("truncated", SCENE[:3000], 400, "truncated"),
        ("bomb", png(60000, 60000), 413, "too_large"),
        ("claims more", png(3000, 3000), None, None),
        ("one pixel", png(1, 1), None, None),
        ("zip", b"PK\x03\x04" + b"\0" * 500, 415, "not_a_picture"),
    ],
)
def test_what_is_no_picture_is_refused(client, name, data, status, reason):
    for path, files in (
        ("/api/v1/search", {"a.jpg": data}),
        ("/api/v1/search/teach", {"a.jpg": data}),
    ):
        box = {"x0": "0", "y0": "0", "x1": "9", "y1": "9"} if "teach" in path else {}
        reply = client.upload(path, files, **box)
        assert 400 <= reply.status < 500, (name, reply.text)
        assert reply.json["error"]
        if status is not None:
            assert (reply.status, reply.json["reason"]) == (status, reason)


def test_wrong_requests_are_refused(client):
    for files, fields, status in [
        ({}, {}, 422),
        ({"a": OBJECT, "b": OBJECT}, {}, 422),
        ({"a": OBJECT}, {"framing": "other"}, 422),
        ({"a": OBJECT}, {"choice": "nowhere"}, 404),
        ({"a": OBJECT}, {"choice": "x" * 999}, 422),
        ({"a": OBJECT}, {"more": "x"}, 422),
    ]:
        assert client.upload("/api/v1/search", files, **fields).status == status, fields
    for number in ("nan", "1e999", "x"):
        box = {"x0": number, "y0": "0", "x1": "9", "y1": "9"}
        assert client.upload("/api/v1/search/teach", {"a": OBJECT}, **box).status == 422
    outside = {"x0": "500", "y0": "500", "x1": "900", "y1": "900"}
    assert client.upload("/api/v1/search/teach", {"a": OBJECT}, **outside).status == 422
    assert client.upload("/api/v1/search/scene", {"a": OBJECT}).status == 422


def test_scene_is_searched_by_the_finder_or_by_similarity(client):
    for asked, way in [("", "finder"), ("finder", "finder"), ("similarity", "similarity")]:
        fields = {"way": asked} if asked else {}
        answer = client.upload("/api/v1/search/scene", {"a.png": OBJECT, "b.jpg": SCENE}, **fields).json
        assert (answer["way"], answer["has_finder"]) == (way, True)
        assert answer["picture"].startswith("/9j/")
    wrong = client.upload("/api/v1/search/scene", {"a.png": OBJECT, "b.jpg": b"x"})
    assert wrong.json["error"].startswith("the scene: ")


def test_nothing_is_stored_unless_it_is_taught(client):
    uploads = client.services.settings.uploads
    before = set(uploads.rglob("*"))
    assert client.upload("/api/v1/search", {"a.png": OBJECT}).status == 200
    assert set(uploads.rglob("*")) == before


def test_taught_object_waits_in_the_review(client):
    box = {"x0": "34", "y0": "0", "x1": "88.5", "y1": "114.6"}
    first = client.upload("/api/v1/search/teach", {"../../x.jpg": SCENE}, **box, category="jar").json
    assert first["go"] == f"/review/{first['set']}?crop={first['crop']}"
    again = client.upload("/api/v1/search/teach", {"y.jpg": SCENE}, **box).json
    assert (again["set"], again["crop"]) == (first["set"], first["crop"])
    other = client.upload("/api/v1/search/teach", {"y.jpg": SCENE}, x0="171", y0="0", x1="207", y1="61").json
    assert other["set"] == first["set"]
    assert other["crop"] != first["crop"]
    with client.services.database.read() as rows:
        name, kind = rows.execute("SELECT name, kind FROM sets WHERE id = ?", (first["set"],)).fetchone()
        crops = rows.execute("SELECT state, category, x1 FROM crops ORDER BY id").fetchall()
        audited = rows.execute("SELECT count(*) FROM audit WHERE action = 'search.teach'").fetchone()[0]
    assert (name, kind) == ("from search", "uploads")
    assert [tuple(one) for one in crops] == [("open", "jar", 88.5), ("open", None, 207.0)]
    assert audited == 2
    (file,) = (client.services.settings.uploads / "from-search").iterdir()
    assert image.read_image(file).shape == (192, 320, 3)
    assert client.get(f"/api/v1/crops/{first['crop']}/image?px=64").status == 200


def test_full_queue_asks_to_come_back(client):
    places = client.services.turns._places
    taken = 0
    while places.acquire(blocking=False):
        taken += 1
    try:
        reply = client.upload("/api/v1/search", {"a.png": OBJECT})
    finally:
        places.release(taken)
    assert (reply.status, reply.json["reason"]) == (503, "busy")
    assert int(reply.headers["retry-after"]) > 0
    assert client.upload("/api/v1/search", {"a.png": OBJECT}).status == 200


def test_rotated_and_exotic_formats_are_read(client):
    import numpy as np
    from PIL import Image as Pillow

    picture = Pillow.fromarray(np.ascontiguousarray(image.decode_image(OBJECT, "object")))
    for kind in ("TIFF", "BMP", "WEBP"):
        data = io.BytesIO()
        picture.save(data, kind)
        answer = client.upload("/api/v1/search", {"a": data.getvalue()}).json
        assert answer["objects"][0]["answer"]["item"] == "bottle-12", kind
