"""Uploaded files: pictures, what is none, and zip files."""

from __future__ import annotations

import io
import zipfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from console.sets import uploads
from console.sets.sets import find_set
from dataset_formats.zip_files import BAD_ZIP
from tests.console.sets.sets_samples import HTML, PNG_OF_900_MEGAPIXELS, SVG, encoded, pixels, zipped


def test_one_bad_file_spoils_no_other(room):
    set_id = room.make()
    taken = room.upload(set_id, {"a.jpg": encoded(1), "b.jpg": SVG, "c.jpg": encoded(3)})
    assert [one.outcome for one in taken] == ["added", "refused", "added"]
    assert "b.jpg" in taken[1].says
    assert [one.name for one in room.pictures(set_id)] == ["a.jpg", "c.jpg"]
    assert [(one["state"], one["x1"], one["y1"]) for one in room.crops(set_id)] == [("open", 48.0, 32.0)] * 2


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (SVG, "no picture"),
        (HTML, "no picture"),
        (encoded()[:400], "before its size"),
        (encoded(1, width=400, height=300)[:-300], "truncated"),
        (encoded(2, ".png")[:-20], "truncated"),
        (PNG_OF_900_MEGAPIXELS, "30,000 x 30,000 pixels"),
        (encoded(1, width=2, height=2), "shows nothing"),
        (b"\xff\xd8\xff" + b"\0" * 200, ""),
    ],
)
def test_what_is_no_picture_is_refused_with_its_reason(room, data, said):
    (taken,) = room.upload(room.make(), {"x.jpg": data})
    assert taken.outcome == "refused"
    assert said in taken.says
    assert room.files() == []


def test_file_of_100_mb_is_refused_by_its_size(room):
    path = room.folder / "large.jpg"
    with path.open("wb") as file:
        file.write(encoded())
        file.truncate(100 << 20)
    set_id = room.make()
    room.upload(set_id, {"a.jpg": encoded()})
    upload = uploads.Upload(_set(room, set_id), "mia", 1.0)
    (taken,) = uploads.take_upload(room.store, upload, "large.jpg", path)
    assert "100 MB" in taken.says


def test_same_picture_again_is_recognised(room):
    set_id = room.make()
    room.upload(set_id, {"a.jpg": encoded(1)})
    (taken,) = room.upload(set_id, {"other name.jpg": encoded(1)})
    assert (taken.outcome, taken.picture_id) == ("known", room.pictures(set_id)[0].id)
    assert len(room.files()) == 1


def test_same_name_with_another_picture_is_kept_beside(room):
    set_id = room.make()
    room.upload(set_id, {"IMG_1.jpg": encoded(1), "img_1.JPG": encoded(2)})
    names = [one.name for one in room.pictures(set_id)]
    assert len({name.casefold() for name in names}) == 2


def test_unusual_pictures_become_upright_rgb(room):
    set_id = room.make()
    rotated = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6  # turned
    exif[306] = "2026:05:04 11:12:13"
    Image.fromarray(pixels()).save(rotated, "JPEG", exif=exif)
    cmyk = io.BytesIO()
    Image.fromarray(pixels(2)).convert("CMYK").save(cmyk, "JPEG")
    gif = io.BytesIO()
    frames = [Image.fromarray(pixels(seed)) for seed in (3, 4)]
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    files = {"r.jpg": rotated.getvalue(), "c.jpg": cmyk.getvalue(), "g.jpg": gif.getvalue()}
    assert [one.outcome for one in room.upload(set_id, files)] == ["added"] * 3
    by_name = {one.name: one for one in room.pictures(set_id)}
    assert (by_name["r.jpg"].width, by_name["r.jpg"].height) == (32, 48)
    assert by_name["r.jpg"].source["taken"] == "2026-05-04 11:12:13"
    assert by_name["g.jpg.gif"].width == 48


def test_heic_is_taken(room):
    heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    buffer = io.BytesIO()
    heif.from_pillow(Image.fromarray(pixels(5, 64, 64))).save(buffer)
    (taken,) = room.upload(room.make(), {"IMG.HEIC": buffer.getvalue()})
    assert taken.outcome == "added"


def test_folders_name_the_expected_items(room):
    set_id = room.make()
    room.upload(set_id, {"shoe/left/1.jpg": encoded()}, folders_name_items=True)
    (crop,) = room.crops(set_id)
    assert (crop["state"], crop["category"], crop["item"]) == ("open", "shoe", "left")


def test_scenes_wait_for_boxes(room):
    set_id = room.make(shows="scenes")
    room.upload(set_id, {"a.jpg": encoded()})
    assert room.crops(set_id) == []
    assert room.pictures(set_id)[0].boxes == "none"


def test_zip_file_brings_its_pictures(room):
    set_id = room.make()
    packed = zipped({"shop/a.jpg": encoded(1), "shop/b.png": encoded(2, ".png"), "about.txt": b"x", "c.jpg": HTML})
    taken = room.upload(set_id, {"all.zip": packed})
    assert [one.outcome for one in taken] == ["added", "added", "refused"]
    assert [one.name for one in room.pictures(set_id)] == ["shop/a.jpg", "shop/b.png"]


def test_zip_file_names_lead_nowhere(room):
    set_id = room.make()
    packed = zipped({"../../evil.jpg": encoded(1), "/abs.jpg": encoded(2), "..\\..\\win.jpg": encoded(3)})
    taken = room.upload(set_id, {"x.zip": packed})
    assert [one.outcome for one in taken] == ["refused", "added", "refused"]
    assert all(path.is_relative_to(room.settings.uploads) for path in room.files())


def test_zip_bombs_and_links_are_refused(room, monkeypatch):
    set_id = room.make()
    monkeypatch.setattr(uploads, "MAX_PICTURE_BYTES", 1 << 20)
    bomb = zipped({"bomb.jpg": bytes(3 << 20), "inner.jpg": zipped({"a.jpg": encoded()})})
    assert [one.outcome for one in room.upload(set_id, {"x.zip": bomb})] == ["refused", "refused"]
    link = io.BytesIO()
    with zipfile.ZipFile(link, "w") as file:
        info = zipfile.ZipInfo("passwords.jpg")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    (taken,) = room.upload(set_id, {"x.zip": link.getvalue()})
    assert "link" in taken.says
    monkeypatch.setattr(uploads, "MAX_ZIP_ENTRIES", 3)
    (taken,) = room.upload(set_id, {"x.zip": zipped({f"{n}.jpg": b"x" for n in range(4)})})
    assert "more than 3 files" in taken.says


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 300), flip=st.integers(0, 600))
def test_damaged_zip_files_are_refused_or_read(cut, flip):
    data = bytearray(zipped({"a.jpg": encoded(1, width=8, height=8)}))
    data[flip % len(data)] ^= 0x55
    path = io.BytesIO(bytes(data[: len(data) - cut]))
    try:
        with zipfile.ZipFile(path) as packed:
            for info in uploads._listed(packed):
                uploads._entry_problem(info)
                with packed.open(info) as entry:
                    uploads._bounded(entry)
    except (*BAD_ZIP, uploads.PictureError):
        pass


def test_stored_bytes_are_the_sent_ones(room):
    set_id = room.make()
    data = encoded(7)
    room.upload(set_id, {"a.jpg": data})
    (picture,) = room.pictures(set_id)
    assert picture.path.read_bytes() == data
    assert np.array_equal(cv2.imread(str(picture.path)), cv2.imdecode(np.frombuffer(data, np.uint8), 1))


def _set(room, set_id):
    with room.database.read() as rows:
        return find_set(rows, set_id)
