"""Small files that claim much: they are refused before a decoder sees them, at once and in little memory."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import PictureError
from edge.imaging import image, jpeg_damage
from edge.imaging.damage import intact
from edge.imaging.image import decode_image

ROOT = Path(__file__).parents[3]
PNG_MARK = b"\x89PNG\r\n\x1a\n"
PICTURE = cv2.resize(np.random.default_rng(0).integers(0, 255, (9, 12, 3), dtype=np.uint8), (120, 90))
BASELINE = cv2.imencode(".jpg", PICTURE)[1].tobytes()
PROGRESSIVE = cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
ZEROS_50_MB = zlib.compress(bytes(50_000_000), 9)


def chunk(name: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return struct.pack(">I", length) + name + body + struct.pack(">I", zlib.crc32(name + body))


def header(width: int = 10, height: int = 10, depth: int = 8, colour: int = 2) -> bytes:
    return PNG_MARK + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


ROWS = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes(30) for _ in range(10))))
END = chunk(b"IEND")


def tiff(*more: tuple[int, int, int, int], size: int = 10, tail: bytes = b"", compression: int = 1) -> bytes:
    """A grey TIFF of one strip, with more entries: tag, type, count, value."""
    fields = [(256, 4, 1, size), (257, 4, 1, size), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)]
    fields += [(273, 4, 1, 8), (278, 4, 1, size), (279, 4, 1, 16)]
    entries = {entry[0]: entry for entry in [*fields, *more]}
    body = b"".join(struct.pack("<HHII", *entries[tag]) for tag in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + tail


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    last = PROGRESSIVE.rindex(b"\xff\xda")
    return PROGRESSIVE[:last] + PROGRESSIVE[last:-2] * count + b"\xff\xd9"


def arithmetic(share: float) -> bytes:
    """A JPEG with the frame marker of arithmetic coding."""
    return BASELINE.replace(b"\xff\xc0", b"\xff\xc9", 1)[: int(len(BASELINE) * share)] + b"\xff\xd9"


HOSTILE = {
    **{
        f"png, {name.decode()} of {length:#x} bytes": header() + chunk(name, b"xxxx", length) + END
        for name in (b"tEXt", b"iCCP", b"IDAT", b"PLTE", b"eXIf", b"acTL", b"zzZz")
        for length in (0x7FFFFFF0, 0xFFFFFFF0)
    },
    "png, 100000 x 100000": header(100_000, 100_000) + ROWS + END,
    "png, rows that go on": header() + chunk(b"IDAT", ZEROS_50_MB + bytes(30_000)) + END,
    "png, many empty chunks": header() + chunk(b"teXt") * 300_000 + ROWS + END,
    "png, many parts": header() + ROWS + chunk(b"IDAT") * 300_000 + END,
    "jpeg, 1000 scans": scans(1000),
    "jpeg, many segments": b"\xff\xd8" + b"\xff\xe1\0\2" * 500_000 + BASELINE[2:],
    "jpeg, many tables": b"\xff\xd8" + b"\xff\xdd\0\4\0\0" * 500_000 + BASELINE[2:],
    "jpeg, many segments between scans": PROGRESSIVE[:-2] + b"\xff\xfe\0\2" * 500_000 + b"\xff\xd9",
    "jpeg, arithmetic": arithmetic(1),
    "jpeg, half and arithmetic": arithmetic(0.5),
    "webp, longer than the file": b"RIFF\xf0\xff\xff\xffWEBPVP8 " + bytes(40),
    "webp, 16383 x 16383": b"RIFF\x38\0\0\0WEBPVP8L\x2c\0\0\0\x2f" + struct.pack("<I", 16382 | 16382 << 14) + bytes(40),
    "tiff, tags on top of each other": tiff(*[(65_000 + n, 7, 90_000, 8) for n in range(300)], tail=bytes(100_000)),
    "tiff, many strips": tiff((273, 1, 500_000, 8), (279, 1, 500_000, 8), tail=bytes(2_000_000)),
    "tiff, a profile of 2 GiB": tiff((34675, 7, 0x7FFFFFFF, 8), tail=bytes(200)),
    "tiff, pixels out of nothing": tiff(size=7000, compression=5, tail=bytes(100)),
    "tiff, packed pixels out of nothing": tiff(size=7000, compression=32773, tail=bytes(100)),
    "bigtiff, many entries": b"II+\0\x08\0\0\0\x10" + bytes(7) + struct.pack("<Q", 90_000) + bytes(1_900_000),
    "bigtiff, 2**60 entries": b"II+\0\x08\0\0\0\x10" + bytes(7) + struct.pack("<Q", 1 << 60) + bytes(100),
    "bmp, 2**31 rows": b"BM" + bytes(12) + struct.pack("<Iii", 40, 7000, -(2**31)) + bytes(100),
    "gif, 65535 x 65535": b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(100),
    "ppm, 99999 x 99999": b"P6\n99999 99999\n255\n",
    "ppm, a comment without end": b"P6\n" + b"#\n" * 500_000 + b"10 10\n255\n" + bytes(300),
    "one byte": b"\xff",
    "a marker and nothing": b"\xff\xd8" + b"\xff" * 500_000,
}


@pytest.fixture
def no_decoder(monkeypatch):
    """Decoders that may not be called: neither the one that decodes nor the one that finds damage."""

    def called(*_, **__):
        raise AssertionError("a decoder was called")

    monkeypatch.setattr(image.cv2, "imdecode", called)
    monkeypatch.setattr(jpeg_damage, "strict_decoder", lambda: called)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.usefixtures("no_decoder")
def test_hostile_picture_is_refused_before_a_decoder_sees_it(name):
    started_s = time.process_time()
    with pytest.raises(PictureError) as refused:
        decode_image(HOSTILE[name], "a.bin")
    assert time.process_time() - started_s < 0.5
    assert str(refused.value).startswith("a.bin: ")
    assert len(str(refused.value)) < 200


HARMLESS = {
    "text that inflates": (chunk(b"zTXt", b"k\0\0" + ZEROS_50_MB),),
    "profile that inflates": (chunk(b"iCCP", b"k\0\0" + ZEROS_50_MB),),
    "text in all languages": (chunk(b"iTXt", b"k\0\1\0\0\0" + ZEROS_50_MB),),
    "huge orientation": (chunk(b"eXIf", bytes(1_000_000)),),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_decoder_gets_only_what_it_needs_of_a_png(name):
    plain = header() + ROWS + END
    assert intact(header() + b"".join(HARMLESS[name]) + ROWS + END) == plain
    assert intact(plain) is plain


FILLED = {
    "before a zero": PROGRESSIVE[:-2] + b"\xff" * 300_000 + b"\0\xff\xd9",
    "in a baseline picture": BASELINE[:-2] + b"\xff" * 300_000 + b"\0\xff\xd9",
    "before a segment": b"\xff\xd8" + b"\xff" * 300_000 + BASELINE[2:],
    "in front": b"\xff\xd8\xff\xe0\0\2" + b"\1" * 5_000_000 + BASELINE[2:],
}


@pytest.mark.parametrize("name", FILLED)
def test_long_fill_costs_no_time(name):
    """A search with `\\xff+` took minutes for it."""
    started_s = time.process_time()
    assert decode_image(FILLED[name], "a.bin").shape == (90, 120, 3)
    assert time.process_time() - started_s < 0.5


@pytest.mark.parametrize("flags", [cv2.IMREAD_COLOR, cv2.IMREAD_UNCHANGED])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_without_its_texts_decodes_to_the_same(channels, dtype, flags):
    pixels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (40, 50, channels), dtype, endpoint=True)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    at = len(header())
    texts = chunk(b"tEXt", b"a\0b") + chunk(b"pHYs", bytes(9)) + chunk(b"gAMA", struct.pack(">I", 45_455))
    for extra in (texts, chunk(b"iCCP", b"k\0\0" + zlib.compress(b"no profile"))):
        found = cv2.imdecode(np.frombuffer(intact(data[:at] + extra + data[at:]), np.uint8), flags)
        np.testing.assert_array_equal(found, cv2.imdecode(np.frombuffer(data, np.uint8), flags))


def test_interlaced_png_with_long_rows_is_not_refused():
    """The limit of the image data leaves room for seven passes."""
    rng = np.random.default_rng(2)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    for width, height in ((300, 301), (1, 100_000), (100_000, 1)):
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        rows = [row for x, y, dx, dy in passes for row in pixels[y::dy, x::dx] if len(row)]
        coded = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        head = PNG_MARK + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1))
        np.testing.assert_array_equal(decode_image(head + chunk(b"IDAT", coded) + END, "a"), pixels)


CHILD = """
import re, sys
from pathlib import Path
from edge.errors import PictureError
from edge.imaging.image import decode_image
def peak_kib():  # ru_maxrss would be the parent's, which forked this child
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak_kib()
for path in sorted(Path(sys.argv[1]).iterdir()):
    data = path.read_bytes()
    try:
        decode_image(data, path.name)
    except PictureError:
        pass
print((peak_kib() - before) // 1024)
"""


def test_hostile_pictures_take_little_memory(tmp_path):
    """In a child, whose peak is its own; the largest file has 5 MB."""
    texts = [header() + b"".join(chunks) + ROWS + END for chunks in HARMLESS.values()]
    for number, data in enumerate([*HOSTILE.values(), *texts]):
        (tmp_path / f"{number:03d}").write_bytes(data)
    command = [sys.executable, "-c", CHILD, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600)
    assert int(done.stdout) < 60
