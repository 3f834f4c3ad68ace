"""Uploads that no device sends: each is left out with a reason, and the rest goes on."""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import DataError
from tests.trainer.inbox.inbox_samples import jpeg, put, taught, unknown, zipped
from trainer.inbox.listing import InboxFile, list_inbox
from trainer.inbox.state import ReviewFolder
from trainer.inbox.submission import read_submission
from trainer.inbox.take import take_new

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
ITEM = {"schema": 1, "item_id": "taught-000000000001", "label": "x", "category": None, "taught_at": "", "looks": 1}
PNG_OF_A_GIGAPIXEL = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (40_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0" + b"\0" * 99
)


def bomb():
    """A zip file of 200 KB that becomes 200 MB."""
    return zipped(zipfile.ZIP_DEFLATED, **{"item.json": json.dumps(ITEM), "look-0.jpg": bytes(200 << 20)})


def lying_bomb():
    """A zip file whose directory says that a long entry is short."""
    data = bytearray(zipped(zipfile.ZIP_DEFLATED, **{"item.json": json.dumps(ITEM), "look-0.jpg": bytes(30 << 20)}))
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.rindex(mark)
        data[at + offset : at + offset + 4] = (1000).to_bytes(4, "little")
    return bytes(data)


def encrypted():
    data = bytearray(taught()[1])
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1
    return bytes(data)


def twice():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("item.json", json.dumps(ITEM))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("item.json", json.dumps(ITEM))
    return buffer.getvalue()


HOSTILE = {
    "bomb": (bomb, "bytes in the zip file once it is unpacked"),
    "lying bomb": (lying_bomb, "not a whole zip file"),
    "encrypted": (encrypted, "encrypted"),
    "entry twice": (twice, "twice"),
    "up": (lambda: zipped(**{"../item.json": "{}"}), "which no device writes"),
    "absolute": (lambda: zipped(**{"/etc/passwd": "x"}), "which no device writes"),
    "program": (lambda: zipped(**{"item.json": json.dumps(ITEM), "run.sh": "x"}), "which no device writes"),
    "many entries": (lambda: zipped(**{f"look-{n}.jpg": b"x" for n in range(40)}), "40 entries"),
    "empty": (lambda: b"", "not a whole zip file"),
    "no zip": (lambda: b"PK\x03\x04" + b"x" * 99, "not a whole zip file"),
    "cut off": (lambda: taught()[1][:-40], "not a whole zip file"),
    "no record": (lambda: zipped(**{"look-0.jpg": jpeg()}), "holds neither"),
    "no picture": (lambda: zipped(item_json=ITEM), "holds no picture"),
    "svg": (lambda: zipped(item_json=ITEM, **{"look-0.jpg": SVG}), "cannot be read here"),
    "html": (lambda: zipped(object_json=record(), **{"crop.jpg": b"<html><script>"}), "cannot be read here"),
    "huge picture": (lambda: zipped(object_json=record(), **{"crop.jpg": PNG_OF_A_GIGAPIXEL}), "pixels"),
    "half a picture": (lambda: zipped(object_json=record(), **{"crop.jpg": jpeg(size=400)[:-2000]}), "truncated"),
    "tiny picture": (lambda: zipped(object_json=record(), **{"crop.jpg": jpeg(size=4)}), "at least 16 each way"),
    "not JSON": (lambda: zipped(item_json="{", **{"look-0.jpg": jpeg()}), "wrong JSON"),
    "deep JSON": (lambda: zipped(item_json="[" * 10_000, **{"look-0.jpg": jpeg()}), "wrong JSON"),
    "NaN": (lambda: unknown(dwell_s=float("nan"))[1], "wrong JSON"),
    "other schema": (lambda: taught(schema=2)[1], "wrong JSON"),
    "path as id": (lambda: taught(item_id="../../x")[1], "wrong JSON: item_id"),
    "control characters": (lambda: taught(label="a\x1b[2J")[1], "label: found characters that cannot be printed"),
    "long label": (lambda: taught(label="x" * 5000)[1], "label: found 5000 characters"),
    "strange category": (lambda: unknown(category="a\nb")[1], "category"),
}


def record():
    with zipfile.ZipFile(io.BytesIO(unknown()[1])) as file:
        return json.loads(file.read("object.json"))


def test_each_is_left_out_and_the_others_are_taken(tmp_path):
    inbox, review = tmp_path / "inbox", ReviewFolder(tmp_path / "review")
    for number, (make, _) in enumerate(HOSTILE.values()):
        put(inbox, "bad", (f"{number:02d}.zip", make()))
    put(inbox, "good", taught())
    put(inbox, "good", unknown())
    taking = take_new(inbox, review)
    reasons = {name: taking.left_out[f"bad/{number:02d}.zip"] for number, name in enumerate(HOSTILE)}
    assert {name: why for name, why in reasons.items() if HOSTILE[name][1] not in why} == {}
    assert len(taking.left_out) == len(HOSTILE)
    assert (taking.taught, taking.unknown) == (1, 1)
    assert all("\n" not in why and len(why) < 600 for why in taking.left_out.values())
    assert {path.name for path in tmp_path.rglob("*") if path.suffix == ".sh"} == set()


def test_links_and_other_things_are_not_followed(tmp_path):
    inbox, outside = tmp_path / "inbox", tmp_path / "outside"
    put(outside, "dev", taught())
    (inbox / "dev").mkdir(parents=True)
    (inbox / "linked").symlink_to(outside / "dev")
    (inbox / "dev/a.zip").symlink_to(next((outside / "dev").iterdir()))
    os.mkfifo(inbox / "dev/b.zip")
    (inbox / "dev/c.html").write_text("<html>")
    (inbox / "dev/deep").mkdir()
    put(inbox, "dev", (".hidden.zip", b"x"))
    put(inbox, "dev", ("writing.zip.partial", b"x"))
    found, left_out = list_inbox(inbox)
    assert found == []
    assert left_out == {
        "linked": "not a regular file, such as a link",
        "dev/a.zip": "not a regular file, such as a link",
        "dev/b.zip": "not a regular file, such as a link",
        "dev/c.html": ".html: expected .zip or .jpg",
        "dev/deep": "a folder inside the folder of a device is not read",
    }


def test_file_that_becomes_a_link_meanwhile_is_not_followed(tmp_path):
    path = put(tmp_path, "dev", taught())
    (tmp_path / "link.zip").symlink_to(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_submission(InboxFile(tmp_path / "link.zip", "dev"))


def test_only_the_damaged_picture_of_a_taught_item_is_left_out(tmp_path):
    inbox = tmp_path / "inbox"
    item = ITEM | {"looks": 3, "category": "carton"}
    put(
        inbox,
        "dev",
        ("a.zip", zipped(item_json=item, **{"look-0.jpg": jpeg(), "look-1.jpg": SVG, "look-10.jpg": jpeg(2)})),
    )
    review = ReviewFolder(tmp_path / "review")
    taking = take_new(inbox, review)
    assert len(review.taken[0].pictures) == 2
    assert list(taking.left_out) == ["dev/a.zip: look-1.jpg"]


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 3000), flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8))
def test_any_damage_is_a_data_error_or_a_whole_upload(tmp_path_factory, cut, flips):
    data = bytearray(unknown()[1])
    for at, value in flips:
        data[at % len(data)] = value
    path = put(tmp_path_factory.mktemp("damage"), "dev", ("a.zip", bytes(data[: len(data) - cut % len(data)])))
    with contextlib.suppress(DataError):
        assert read_submission(InboxFile(path, "dev")).pictures
