"""Pictures as people have them: deep, printed, animated, turned, cut off."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pillow

from dataset_formats.decode import decode_picture, picture_info, read_picture, upright_size
from edge.errors import CaptureError, PictureError

RAMP = np.dstack([np.tile(np.linspace(0, 255, 96), (64, 1)), np.full((64, 96, 2), 60)]).astype(np.uint8)
WHOLE = Pillow.fromarray(RAMP)


def encoded(picture: Pillow.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def frames(kind: str) -> bytes:
    return encoded(WHOLE, kind, save_all=True, append_images=[WHOLE.rotate(180), WHOLE.rotate(90)])


def deep(kind: str) -> bytes:
    return encoded(Pillow.fromarray(RAMP[..., 0].astype(np.uint16) * 257), kind)


def turned(kind: str) -> bytes:
    exif = Pillow.Exif()
    exif[274] = 6
    return encoded(WHOLE, kind, exif=exif)


@pytest.mark.parametrize(
    ("data", "oddities", "off"),
    [
        (encoded(WHOLE, "JPEG", quality=95), (), 2.0),
        (encoded(WHOLE.convert("CMYK"), "JPEG", quality=95), ("CMYK",), 2.0),
        (encoded(WHOLE.convert("CMYK"), "TIFF"), ("CMYK",), 1.0),
        (frames("WEBP"), ("animated",), 3.0),
        (frames("PNG"), ("animated",), 0.0),
        (frames("GIF"), ("animated",), 8.0),
        (frames("TIFF"), ("several pages",), 0.0),
        (encoded(WHOLE.convert("RGBA"), "PNG"), ("transparent",), 0.0),
        (encoded(WHOLE, "GIF"), (), 8.0),
        (encoded(WHOLE, "BMP"), (), 0.0),
    ],
)
def test_odd_picture_is_read_as_its_first_frame_in_rgb(tmp_path, data, oddities, off):
    path = tmp_path / "picture"
    path.write_bytes(data)
    image, facts = read_picture(path)
    assert (oddities, (64, 96, 3)) == (facts.oddities, image.shape)
    assert np.abs(image.astype(int) - RAMP).mean() <= off
    assert upright_size(path) == (96, 64)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_become_8(tmp_path, kind):
    path = tmp_path / "deep"
    path.write_bytes(deep(kind))
    image, facts = read_picture(path)
    assert facts.oddities == ("16 bit",)
    assert np.abs(image[..., 0].astype(int) - RAMP[..., 0]).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_size_is_that_of_the_upright_picture(tmp_path, kind):
    path = tmp_path / "turned"
    path.write_bytes(turned(kind))
    assert read_picture(path)[0].shape == (96, 64, 3)
    assert upright_size(path) == (64, 96)
    assert picture_info(path.read_bytes()).size_px == (64, 96)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_truncated_picture_is_rejected_by_name(tmp_path, kind, kept):
    noise = Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8))
    data = encoded(noise, kind)
    path = tmp_path / "cut.bin"
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(CaptureError, match=r"cut\.bin"):
        read_picture(path)


def test_missing_empty_and_wrong_files_are_named(tmp_path):
    for data in (None, b"", b"<html>not found</html>"):
        path = tmp_path / "a.jpg"
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(CaptureError, match=r"a\.jpg: "):
            read_picture(path)
        with pytest.raises(CaptureError, match=r"a\.jpg: "):
            upright_size(path)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate"])
def test_tiff_that_does_not_decompress_is_broken(compression):
    noise = Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8))
    data = encoded(noise, "TIFF", compression=compression)
    middle = len(data) // 2
    with pytest.raises(PictureError) as caught:
        decode_picture(data[:middle] + bytes(64) + data[middle + 64 :], "a.tif")
    assert caught.value.reason == "broken"


def test_jpeg_of_four_colours_with_an_end_marker_after_the_cut_is_named():
    data = encoded(WHOLE.convert("CMYK"), "JPEG", quality=95)
    with pytest.raises(PictureError, match=r"^a\.jpg: the jpeg is damaged"):
        decode_picture(data[: len(data) * 2 // 3] + b"\xff\xd9", "a.jpg")


@pytest.mark.parametrize("suffix", ["jp2", "jxl", "dng"])
def test_picture_to_convert_first_is_named(tmp_path, suffix):
    dng = b"II*\0\x08\0\0\0\x01\0" + bytes.fromhex("12c60100040000000104000000000000")
    starts = {"jp2": b"\0\0\0\x0cjP  \r\n\x87\n", "jxl": b"\0\0\0\x0cJXL \r\n\x87\n", "dng": dng}
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(starts[suffix] + bytes(100))
    for read in (read_picture, upright_size):
        with pytest.raises(PictureError, match=r"is not read; convert it to JPEG or PNG") as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_picture_whose_name_is_no_utf8_is_named_in_print(tmp_path):
    path = tmp_path / "caf\udce9.jpg"
    with pytest.raises(CaptureError) as caught:
        read_picture(path)
    assert b"caf\\udce9.jpg: cannot read" in str(caught.value).encode()
