"""HEIC and AVIF of phones: upright once, 8 bits, named if they cannot be read."""

from __future__ import annotations

import contextlib
import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from dataset_formats import heif
from dataset_formats.decode import PICTURE_SUFFIXES, decode_picture, read_image, upright_size
from edge.errors import CaptureError, PictureError
from tests.trainer.damaged import damaged_bytes, few_examples

pillow_heif = pytest.importorskip("pillow_heif")

WIDTH, HEIGHT = 96, 64
PICTURE = np.full((HEIGHT, WIDTH, 3), (30, 60, 200), np.uint8)
PICTURE[:, : WIDTH // 2] = (220, 40, 30)  # the left half is red


def heic(picture: np.ndarray = PICTURE, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    pillow_heif.from_bytes(mode, picture.shape[1::-1], picture.tobytes()).save(file, quality=95)
    return file.getvalue()


def avif(orientation: int = 1, **options) -> bytes:
    exif = Pillow.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    Pillow.fromarray(PICTURE).save(file, "AVIF", quality=95, exif=exif, **options)
    return file.getvalue()


def turned_heic(angle: int) -> bytes:
    """A HEIC with the property `irot`, as phones write it: counter-clockwise, in units of 90 degrees."""
    data = heic()
    prop = struct.pack(">I4sB", 9, b"irot", angle)
    end = data.index(b"ipco") - 4 + int.from_bytes(data[data.index(b"ipco") - 4 :][:4], "big")
    count = sum(1 for _ in boxes(data, data.index(b"ipco") + 4, end))
    ipma = data.index(b"ipma")
    entries = ipma + 4 + 4 + 4 + 2  # version and flags, number of items, item
    with_prop = bytearray(data)
    with_prop[entries] += 1
    with_prop.insert(entries + 1 + with_prop[entries] - 1, count + 1)
    with_prop[end:end] = prop
    grown = len(prop) + 1
    for name, by in ((b"meta", grown), (b"iprp", grown), (b"ipco", len(prop)), (b"ipma", 1)):
        at = with_prop.index(name) - 4
        with_prop[at : at + 4] = struct.pack(">I", int.from_bytes(with_prop[at : at + 4], "big") + by)
    return move_media(bytes(with_prop), data.index(b"mdat") + 4, grown)


def boxes(data: bytes, at: int, end: int):
    while at < end:
        yield data[at + 4 : at + 8]
        at += int.from_bytes(data[at : at + 4], "big")


def move_media(data: bytes, old: int, by: int) -> bytes:
    """Return the file with the offset of its coded picture moved, in the box `iloc`."""
    iloc = data.index(b"iloc")
    end = iloc - 4 + int.from_bytes(data[iloc - 4 : iloc], "big")
    at = data.index(struct.pack(">I", old), iloc, end)
    return data[:at] + struct.pack(">I", old + by) + data[at + 4 :]


def is_near(found: np.ndarray, wanted: np.ndarray) -> bool:
    return found.shape == wanted.shape and np.abs(found.astype(int) - wanted).mean() < 6


@pytest.mark.parametrize(
    ("data", "wanted", "oddities"),
    [
        (heic(), PICTURE, ()),
        (heic(np.dstack([PICTURE, np.full((HEIGHT, WIDTH), 90, np.uint8)]), "RGBA"), PICTURE, ("transparent",)),
        (heic(PICTURE.astype(np.uint16) * 257, "RGB;16"), PICTURE, ("10 bit",)),
        (heic(PICTURE[..., 0].copy(), "L"), PICTURE[..., :1].repeat(3, 2), ()),
        (turned_heic(3), np.rot90(PICTURE, 3), ()),
        (avif(), PICTURE, ()),
        (avif(6), np.rot90(PICTURE, 3), ()),
        (avif(save_all=True, append_images=[Pillow.new("RGB", (WIDTH, HEIGHT))]), PICTURE, ("animated",)),
    ],
    ids=["heic", "transparent", "10 bit", "grey", "irot", "avif", "avif irot", "animated"],
)
def test_picture_is_read_upright_in_8_bits(tmp_path, data, wanted, oddities):
    path = tmp_path / "a.heic"
    path.write_bytes(data)
    image, facts = decode_picture(data, "a")
    assert is_near(image, wanted)
    assert image.dtype == np.uint8
    assert facts.oddities == oddities
    assert facts.size_px == upright_size(path) == wanted.shape[1::-1]
    assert (read_image(path) == image).all()


@pytest.mark.parametrize("data", [heic(), avif()], ids=["heic", "avif"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_cut_picture_is_named(data, kept):
    with pytest.raises(PictureError, match=r"^a\.heic: the (HEIC|AVIF) cannot be decoded"):
        decode_picture(data[: int(len(data) * kept)], "a.heic")


def test_picture_whose_end_was_never_copied_is_truncated():
    rng = np.random.default_rng(0)
    data = heic(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    with pytest.raises(PictureError, match="ends in zeros"):
        decode_picture(data[:-500] + bytes(500), "a.heic")


@pytest.mark.parametrize("data", [heic(), avif()], ids=["heic", "avif"])
def test_size_is_checked_before_decoding(monkeypatch, data):
    monkeypatch.setattr(heif, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    monkeypatch.setattr(heif, "_turned", lambda _: pytest.fail("decoded"))
    with pytest.raises(PictureError, match="found 96x64 pixels, expected at most 6143"):
        decode_picture(data, "a")


def test_missing_package_is_named_with_its_command(monkeypatch):
    def without(name: str):
        raise ImportError(name)

    monkeypatch.setattr(heif.importlib, "import_module", without)
    for data, extra in ((heic(), "heic"), (avif(), "trainer")):
        with pytest.raises(CaptureError, match=rf'pip install "finesight\[{extra}\]"; or convert it to JPEG'):
            decode_picture(data, "a")


def test_suffixes_are_those_of_installed_packages(monkeypatch):
    assert {".heic", ".heif", ".avif", ".jpg"} <= set(PICTURE_SUFFIXES)
    monkeypatch.setattr(heif.importlib.util, "find_spec", lambda _: None)
    assert heif.readable_suffixes() == ()


@few_examples
@given(data=st.data(), whole=st.sampled_from([heic(), avif()]))
def test_any_bytes_are_read_or_refused(data, whole):
    damaged = data.draw(damaged_bytes(whole))
    with contextlib.suppress(CaptureError):
        decode_picture(damaged, "a")
