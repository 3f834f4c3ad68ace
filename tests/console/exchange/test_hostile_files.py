"""Files that want to do harm are refused with one clear error, and nothing is changed."""

from __future__ import annotations

import io
import json
import stat
import zipfile

import pytest

from console.exchange import archives, reading
from tests.console_box_samples import boxes_in, made_set, propose, set_of
from tests.console_samples import running_console

_XML = b"<annotation><filename>a.png</filename></annotation>"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with running_console(tmp_path_factory.mktemp("console")) as client:
        yield client


@pytest.fixture(scope="module")
def picture(client, tmp_path_factory):
    found = made_set(client.services, tmp_path_factory.mktemp("cards"), ("a.png",))[0]
    propose(client.services, found, (1, 1, 20, 20))
    return found


def zipped(*entries, method=zipfile.ZIP_DEFLATED):
    """Return an archive, always of the same date: the names of the tests hold its bytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for entry, text in entries:
            one = entry if isinstance(entry, zipfile.ZipInfo) else zipfile.ZipInfo(entry)
            archive.writestr(one, text, method)
    return data.getvalue()


def linked():
    one = zipfile.ZipInfo("a.xml")
    one.external_attr = (stat.S_IFLNK | 0o777) << 16
    return zipped((one, "/etc/passwd"))


def send(client, picture, data, name="boxes", **fields):
    path = f"/api/v1/exchange/{set_of(client.services, picture)}/imports"
    return client.upload(path, {name: data}, **fields)


_BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotations>&b;</annotations>'
)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (zipped(("../../a.xml", _XML)), "leads out of it"),
        (zipped(("/etc/a.xml", _XML)), "leads out of it"),
        (zipped(("C:\\a.xml", _XML)), "leads out of it"),
        (zipped(("..\\a.xml", _XML)), "leads out of it"),
        (linked(), "the link"),
        (zipped(("a.xml", _XML), method=zipfile.ZIP_LZMA), "packed in another way"),
        (zipped(("a.png", b"x")), "holds no annotations"),
        (zipped(("labels/a.txt", b"0 1 1 1 1"), ("data.yaml", b"names: [a]")), "YOLO is not read"),
        (zipped(("a.xml", _XML))[:60], "damaged"),
        (zipped((f"{'x' * 300}.xml", _XML)), "cannot be unpacked"),
        (_BOMB, "declares entities"),
        (_BOMB.replace(b"annotations", b"annotation"), "declares entities"),
        (b"<annotations>" + b"<a>" * 500, "not XML"),
        (b"[" * 100_000, "not JSON"),
        (b'{"images": 7}', "no list"),
        (b'{"images": [], "annotations": {}}', "no list"),
        (b"GIF89a", "not JSON"),
        (b"\xff\xfe\x00", "not"),
        (b"<html><script>alert(1)</script></html>", "expected"),
        (
            json.dumps([{"data": {"image": "b.png"}, "annotations": [{"result": []}]}]).encode(),
            "no picture of this set",
        ),
    ],
)
def test_a_hostile_file_is_one_clear_error(client, picture, data, says):
    reply = send(client, picture, data)
    assert reply.status in (413, 422), reply.text
    assert says in reply.json["error"]
    assert "/tmp" not in reply.json["error"]
    assert boxes_in(client.services, picture) == [(1, 1, 20, 20)]
    assert not list((client.services.settings.data / "imports").iterdir())


def test_a_zip_bomb_is_stopped_while_it_is_unpacked(client, picture, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1 << 20)
    data = zipped(("a.xml", b" " * (5 << 20)))
    assert len(data) < 10_000
    reply = send(client, picture, data)
    assert (reply.status, "unpacks to more than" in reply.json["error"]) == (422, True)


def test_a_large_file_is_refused(client, picture, monkeypatch):
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 1 << 20)
    reply = send(client, picture, b"[" + b" " * (1 << 20) + b"]", "big.json")
    assert reply.json["error"] == "big.json is larger than 1 MiB; split it"


def test_a_task_of_label_studio_without_picture_harms_no_other(client, picture):
    box = {"type": "rectanglelabels", "original_width": 200, "original_height": 120}
    box["value"] = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["can"]}
    tasks = [{"data": {"n": 1}, "predictions": [{"result": [box]}]}, 7, {"data": {"image": "a.png"}, "predictions": 5}]
    tasks.append({"id": 4, "data": {"image": "a.png"}, "predictions": [{"result": [box]}]})
    reply = send(client, picture, json.dumps(tasks).encode(), "tasks.json")
    assert reply.status == 200, reply.text
    cards = set_of(client.services, picture)
    counts = client.get(f"/api/v1/exchange/{cards}/imports?id={reply.json['id']}").json["counts"]
    assert (counts["pictures"], counts["confirmed"]) == (1, 0)


def test_too_many_files_are_refused(client, picture, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILES", 3)
    reply = send(client, picture, zipped(*((f"{n}.xml", _XML) for n in range(4))))
    assert "the archive has 4 files" in reply.json["error"]


@pytest.mark.parametrize("bbox", ["[NaN, 1, 2, 3]", "[1e308, 1, 1e308, 3]", "[-9, -9, 2, 2]", '["a", 1, 2, 3]'])
def test_a_box_that_is_none_is_left_out(client, picture, bbox):
    text = (
        '{"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "card"}], "annotations": [%s]}'
    )
    good = '{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 40, 40]}'
    bad = f'{{"id": 2, "image_id": 1, "category_id": 1, "bbox": {bbox}}}'
    reply = send(client, picture, (text % f"{good}, {bad}").encode())
    assert reply.status == 200, reply.text
    cards = set_of(client.services, picture)
    plan = client.get(f"/api/v1/exchange/{cards}/imports?id={reply.json['id']}").json
    assert (plan["counts"]["left_out"], plan["counts"]["added"] + plan["counts"]["moved"]) == (1, 1)


def test_an_import_is_looked_at_and_then_taken(client, tmp_path):
    picture = made_set(client.services, tmp_path, ("a.png",))[0]
    cards = set_of(client.services, picture)
    xml = b'<annotations><image id="0" name="a.png" width="200" height="120">BOX</image></annotations>'
    xml = xml.replace(b"BOX", b'<box label="can" source="manual" xtl="50" ytl="20" xbr="90" ybr="80"/>')
    reply = send(client, picture, xml, "boxes.xml")
    shown = client.get(reply.json["go"]).text
    assert "what would change" in shown
    assert boxes_in(client.services, picture) == []
    done = client.send("POST", f"/api/v1/exchange/{cards}/imports/take", {"id": reply.json["id"]})
    assert (done.status, done.json["says"]) == (200, "boxes.xml: took the boxes of 1 pictures")
    assert boxes_in(client.services, picture) == [(50, 20, 90, 80)]
    assert client.send("POST", f"/api/v1/exchange/{cards}/imports/take", {"id": reply.json["id"]}).status == 404


def test_an_import_of_another_set_is_not_taken(client, picture, tmp_path):
    other = made_set(client.services, tmp_path / "other", ("a.png",))[0]
    reply = send(client, picture, _XML.replace(b"</annotation>", b"") + (
        b"<object><name>can</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>50</xmax><ymax>60</ymax></bndbox></object>"
        b"</annotation>"
    ))  # fmt: skip
    path = f"/api/v1/exchange/{set_of(client.services, other)}/imports"
    assert client.send("POST", f"{path}/take", {"id": reply.json["id"]}).status == 404
    assert client.send("POST", f"{path}/forget", {"id": reply.json["id"]}).status == 404
    assert client.send("POST", f"{path}/take", {"id": "../../../etc/pass"}).status == 422


def test_every_format_is_downloaded(client, picture):
    cards = set_of(client.services, picture)
    for form in ("coco", "voc", "yolo", "cvat", "label-studio"):
        reply = client.get(f"/api/v1/exchange/{cards}/export?form={form}")
        assert (reply.status, "attachment" in reply.headers["content-disposition"]) == (200, True)
    assert client.get(f"/api/v1/exchange/{cards}/export?form=exe").status == 422
    go = client.send("POST", f"/api/v1/exchange/{cards}/exports", {"form": "voc"}).json["go"]
    assert client.get(go).body[:2] == b"PK"
    assert client.get(go.replace(f"/{cards}/", "/99999/")).status == 404
    assert "boxes in" not in client.get("/exchange/99999").text
