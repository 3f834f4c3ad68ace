"""Pictures that a decoder cannot vouch for are refused; whole ones of every kind are not."""

from __future__ import annotations

import logging
import re
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import PictureError
from edge.imaging import jpeg_damage
from edge.imaging.image import decode_image, decode_mask


def scene(width: int = 160, height: int = 120) -> np.ndarray:
    """Detail everywhere, as in a photo."""
    rng = np.random.default_rng(3)
    coarse = cv2.resize(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8), (width, height))
    return np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)


def jpeg(picture: np.ndarray | None = None, *options: int) -> bytes:
    return cv2.imencode(".jpg", scene() if picture is None else picture, list(options))[1].tobytes()


def png(picture: np.ndarray | None = None) -> bytes:
    return cv2.imencode(".png", scene() if picture is None else picture)[1].tobytes()


FLAT = np.full((600, 800, 3), 255, np.uint8)
BASELINE = jpeg()
OPTIMISED = jpeg(None, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
PROGRESSIVE = jpeg(None, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
RESTARTS = jpeg(None, cv2.IMWRITE_JPEG_RST_INTERVAL, 4)
JPEGS = {"baseline": BASELINE, "optimised": OPTIMISED, "progressive": PROGRESSIVE, "restarts": RESTARTS}
PNG = png()
END = b"\xff\xd9"
SCAN = b"\xff\xda"


def refusal(data: bytes) -> PictureError:
    with pytest.raises(PictureError) as caught:
        decode_image(data, "a.bin")
    assert str(caught.value).startswith("a.bin: ")
    return caught.value


def first_scan(data: bytes) -> int:
    """Return the offset of the coded picture."""
    at = data.index(SCAN)
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_jpeg_with_an_end_marker_after_the_cut_is_truncated(kind, kept):
    data, start = JPEGS[kind], first_scan(JPEGS[kind])
    cut = start + int((len(data) - start) * kept)
    assert refusal(data[:cut] + END).reason in {"truncated", "broken"}


@pytest.mark.parametrize("kind", JPEGS)
def test_jpeg_with_a_zeroed_part_is_broken(kind):
    data, start = JPEGS[kind], first_scan(JPEGS[kind])
    middle = (start + len(data)) // 2
    assert refusal(data[:middle] + bytes(512) + data[middle + 512 :]).reason in {"truncated", "broken"}


def test_progressive_jpeg_without_its_last_scans_is_truncated():
    last = PROGRESSIVE.rindex(SCAN)
    assert "lacks its last scans" in str(refusal(PROGRESSIVE[:last] + END))


def test_jpeg_of_many_scans_is_refused():
    last = PROGRESSIVE.rindex(SCAN)
    assert "scans" in str(refusal(PROGRESSIVE[:last] + PROGRESSIVE[last:-2] * 300 + END))


def test_jpeg_with_a_foreign_marker_in_its_picture_is_broken():
    middle = (first_scan(BASELINE) + len(BASELINE)) // 2
    assert refusal(BASELINE[:middle] + b"\xff\x41" + BASELINE[middle:]).reason == "broken"


def in_header(extra: bytes) -> bytes:
    at = BASELINE.index(b"\xff\xdb")
    return BASELINE[:at] + extra + BASELINE[at:]


ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\3"  # libjpeg warns of the last byte
SEGMENT = b"\xff\xe5\0\x06abcd"
WHOLE = {
    **JPEGS,
    "grey": jpeg(scene()[..., 0]),
    "flat, optimised": jpeg(FLAT, cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    "flat, progressive": jpeg(FLAT, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "best quality": jpeg(None, cv2.IMWRITE_JPEG_QUALITY, 100),
    "worst quality": jpeg(None, cv2.IMWRITE_JPEG_QUALITY, 1),
    "4:1:1": jpeg(None, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    "4:4:0": jpeg(None, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440),
    "one pixel": jpeg(scene(1, 1)),
    "a second picture after it": BASELINE + jpeg(FLAT),
    "a maker's trailer": BASELINE + b"SEFT" + bytes(3000),
    "zeros before the end marker": BASELINE[:-2] + bytes(500) + END,
    "fill bytes before the end marker": BASELINE[:-2] + b"\xff" * 300 + END,
    "odd bytes before the end marker": BASELINE[:-2] + b"abcd" + END,
    "bytes between segments": in_header(bytes(7)),
    "fill bytes between segments": in_header(b"\xff" * 9),
    "a thumbnail in a segment": in_header(b"\xff\xe1" + struct.pack(">H", len(BASELINE) + 2) + BASELINE),
    "an unknown colour transform": in_header(ADOBE),
    "padding after a last segment": PROGRESSIVE[:-2] + SEGMENT + bytes(3) + END,
    "padding before a last segment": PROGRESSIVE[:-2] + bytes(3) + SEGMENT + END,
    "a newer JFIF": BASELINE.replace(b"JFIF\0\1", b"JFIF\0\3", 1),
    "odd scan parameters": BASELINE.replace(b"\0\x3f\0", b"\1\x3e\0", 1),
    "png": PNG,
    "flat png": png(FLAT),
    "16 bit png": png(scene().astype(np.uint16) * 257),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_picture_is_not_refused(kind):
    assert decode_image(WHOLE[kind], "a.bin").ndim == 3


@pytest.mark.parametrize("oddity", ["bytes between segments", "a newer JFIF", "an unknown colour transform"])
def test_damage_behind_a_harmless_oddity_is_found(oddity):
    data = WHOLE[oddity]
    assert refusal(data[: len(data) * 2 // 3] + END).reason == "truncated"


def test_zeros_that_replace_the_end_of_a_jpeg_are_damage():
    cut = len(BASELINE) * 4 // 5
    assert refusal(BASELINE[:cut] + bytes(len(BASELINE) - cut) + END).reason in {"truncated", "broken"}


def test_zeros_that_replace_the_last_restart_intervals_are_damage():
    data = JPEGS["restarts"]
    markers = [found.start() for found in re.finditer(b"\xff[\xd0-\xd7]", data) if found.start() > first_scan(data)]
    for lost in (markers[-1], markers[-1] + 1, markers[-1] + 3, markers[len(markers) // 2]):
        zeroed = data[:lost] + bytes(len(data) - len(END) - lost) + END
        assert refusal(zeroed).reason in {"truncated", "broken"}


@settings(derandomize=True, max_examples=150, deadline=None)
@given(kind=st.sampled_from(sorted(JPEGS)), where=st.floats(0, 1), length=st.integers(64, 4096))
def test_cut_jpeg_is_refused_and_a_zeroed_one_too_or_the_same(kind, where, length):
    data, start = JPEGS[kind], first_scan(JPEGS[kind])
    at = start + int((len(data) - len(END) - 64 - start) * where)
    for cut in (data[:at], data[:at] + END):
        refusal(cut)
    if kind != "progressive":  # zeros in a scan that refines another may mean that nothing changes
        length = min(length, len(data) - len(END) - at)
        refused_or_same(data[:at] + bytes(length) + data[at + length :], data)


def refused_or_same(damaged: bytes, whole: bytes) -> None:
    try:
        found = decode_image(damaged, "a")
    except PictureError:
        return
    np.testing.assert_array_equal(found, decode_image(whole, "a"))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(at=st.integers(8, len(PNG) - 1), bit=st.integers(0, 7), cut=st.booleans())
def test_cut_or_flipped_png_is_refused_or_the_same(at, bit, cut):
    flipped = PNG[:at] + bytes([PNG[at] ^ 1 << bit]) + PNG[at + 1 :]
    refused_or_same(PNG[:at] if cut else flipped, PNG)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_of(coded: bytes, *others: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 160, 120, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(others) + chunk(b"IDAT", coded) + chunk(b"IEND", b"")


ROWS = b"".join(b"\0" + row.tobytes() for row in scene()[..., ::-1])
CODED = zlib.compress(ROWS)
ANIMATED = (chunk(b"acTL", struct.pack(">II", 2, 0)), chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 160, 120, *[0] * 6)))


@pytest.mark.parametrize("others", [(), ANIMATED], ids=["still", "animated"])
@pytest.mark.parametrize("coded", [CODED[: len(CODED) // 2], zlib.compress(ROWS[: len(ROWS) // 2])])
def test_png_whose_data_does_not_fill_the_picture_is_broken(coded, others):
    np.testing.assert_array_equal(decode_image(png_of(CODED, *others), "a"), scene()[..., ::-1])
    assert refusal(png_of(coded, *others)).reason == "broken"


def test_flipped_bit_in_an_animated_png_is_a_wrong_checksum():
    data = bytearray(png_of(CODED, *ANIMATED))
    data[data.index(b"IDAT") + 5000] ^= 1
    assert "checksum of IDAT" in str(refusal(bytes(data)))


def test_wrong_checksum_of_a_comment_does_not_matter():
    comment = bytearray(chunk(b"tEXt", b"Comment\0hello"))
    comment[-1] ^= 1
    assert decode_image(png_of(CODED, bytes(comment)), "a").shape == (120, 160, 3)


def test_png_chunk_longer_than_the_file_is_truncated():
    data = PNG[:33] + struct.pack(">I", 0x7FFFFFF0) + b"tEXtabcIEND"
    assert refusal(data).reason == "truncated"


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".tiff", ".ppm"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_cut_picture_of_other_formats_is_refused(suffix, kept):
    data = cv2.imencode(suffix, scene())[1].tobytes()
    assert refusal(data[: int(len(data) * kept)]).reason in {"truncated", "broken"}


def test_cut_webp_with_adjusted_lengths_is_refused():
    data = cv2.imencode(".webp", scene(), [cv2.IMWRITE_WEBP_QUALITY, 90])[1].tobytes()
    assert data[12:16] == b"VP8 "
    kept = len(data) // 4 * 2
    data = data[:4] + struct.pack("<I", kept - 8) + data[8:16] + struct.pack("<I", kept - 20) + data[20:kept]
    assert refusal(data).reason == "broken"


def test_deflated_tiff_with_a_damaged_part_is_broken():
    data = bytearray(cv2.imencode(".tiff", scene(), [cv2.IMWRITE_TIFF_COMPRESSION, 8])[1].tobytes())
    assert decode_image(bytes(data), "a").shape == (120, 160, 3)
    data[len(data) // 2] ^= 255
    assert refusal(bytes(data)).reason == "broken"


def test_damaged_mask_is_refused():
    mask = bytearray(png(np.full((50, 50), 255, np.uint8)))
    mask[60] ^= 1
    with pytest.raises(PictureError, match=r"a\.png: "):
        decode_mask(bytes(mask), "a.png")


def test_missingstrict_decoder_is_said_once_and_pictures_are_read(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    jpeg_damage.strict_decoder.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert decode_image(BASELINE, "a").shape == (120, 160, 3)
    finally:
        jpeg_damage.strict_decoder.cache_clear()
    assert [record.getMessage().count("pip install simplejpeg") for record in caplog.records] == [1]
