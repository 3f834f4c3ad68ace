"""Deliveries: what is made is what was meant, or one clear error with bounded memory and nothing left behind."""

from __future__ import annotations

import errno
import hashlib
import itertools
import struct
import tempfile
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import SyncError
from gallery_sync.formats.fields import ObjectRef
from gallery_sync.transport import compressed
from gallery_sync.transport.compressed import apply_delivery, make_residual, make_zstd
from gallery_sync.transport.errors import DeliveryError, StorageError, WrongBaseError
from tests.power_cut import IMAGES, PowerCut

RANDOM = np.random.default_rng(0)
BASE = RANDOM.integers(0, 256, 5000, np.uint8).tobytes()
TARGET = BASE[:2000] + bytes(10) + BASE[2010:]
HEADER = struct.Struct("<8s32sQQ9Q")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make(folder: Path, delivery: bytes, base: bytes | None, target: bytes) -> bytes:
    """Apply a delivery that should give a target."""
    (folder / "delivery").write_bytes(delivery)
    if base is not None:
        (folder / "base").write_bytes(base)
    out = folder / "out.onnx"
    before = set(folder.iterdir()) - {out}
    try:
        apply_delivery(
            folder / "delivery", folder / "base" if base is not None else None, out, len(target), sha256(target)
        )
    finally:
        assert set(folder.iterdir()) - {out} == before
    return out.read_bytes()


CONTENT = {
    "nothing": b"",
    "a byte": b"x",
    "text": b"finesight " * 1000,
    "noise": RANDOM.integers(0, 256, 300_000, np.uint8).tobytes(),
    "zeros": bytes(3_000_000),
}


@pytest.mark.parametrize("name", CONTENT)
def test_whole_file_is_what_it_was(tmp_path, name):
    assert make(tmp_path, make_zstd(CONTENT[name]), None, CONTENT[name]) == CONTENT[name]


@pytest.mark.parametrize("name", CONTENT)
@pytest.mark.parametrize("base", CONTENT)
def test_residual_of_any_two_files_is_the_target(tmp_path, name, base):
    assert make(tmp_path, make_residual(CONTENT[base], CONTENT[name]), CONTENT[base], CONTENT[name]) == CONTENT[name]


@settings(max_examples=60, deadline=None)
@given(base=st.binary(max_size=200), target=st.binary(max_size=200), same=st.booleans())
def test_residual_of_any_bytes_is_the_target(tmp_path_factory, base, target, same):
    target = (target + base)[: len(base)] if same else target
    assert make(tmp_path_factory.mktemp("any"), make_residual(base, target), base, target) == target


def test_existing_file_is_replaced_and_a_link_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (tmp_path / "out.onnx").symlink_to(tmp_path / "elsewhere")
    assert make(tmp_path, make_zstd(b"new"), None, b"new") == b"new"
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"
    assert not (tmp_path / "out.onnx").is_symlink()


def test_small_difference_is_small():
    weights = RANDOM.integers(-127, 128, 100_000, np.int8)
    moved = weights + (RANDOM.random(100_000) < 0.2).astype(np.int8)
    assert len(make_residual(weights.tobytes(), moved.tobytes())) < 0.2 * 100_000
    floats = RANDOM.normal(size=50_000).astype(np.float32)
    near = floats * np.float32(1.0005)
    assert len(make_residual(floats.tobytes(), near.tobytes())) < 0.55 * floats.nbytes


def header_of(delivery: bytes) -> list[int]:
    return list(HEADER.unpack_from(delivery))


def with_header(delivery: bytes, change: Callable[[list], None]) -> bytes:
    fields = header_of(delivery)
    change(fields)
    return HEADER.pack(*fields) + delivery[HEADER.size :]


def frame(data: bytes, *, size: bool = True, window_log: int = 12) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, write_content_size=size, window_log=window_log)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def without_size(data: bytes) -> bytes:
    maker = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return maker.compress(data) + maker.flush()


WHOLE = {
    "bomb": (frame(bytes(50_000_000)), "found a frame of 50000000 bytes when decompressed, expected 5000"),
    "bomb that lies": (
        frame(bytes(5000))[:-4] + b"\x02\xff\xff\x07" * 3 + b"\x03\xff\xff\x07\0",
        "damaged|cut off|after",
    ),
    "too short": (frame(b"x"), "found a frame of 1 bytes when decompressed, expected 5000"),
    "no size": (without_size(TARGET), "does not tell the size of its content"),
    "nothing": (b"", "found no zstd frame"),
    "no frame": (b"GIF89a" * 50, "found no zstd frame"),
    "head only": (make_zstd(TARGET)[:5], "header of a frame is damaged|cut off"),
    "truncated": (make_zstd(TARGET)[:-7], "a frame is cut off"),
    "truncated by a byte": (make_zstd(TARGET)[:-1], "a frame is cut off"),
    "trailing data": (make_zstd(TARGET) + b"more", "has 4 bytes after its end"),
    "second frame": (make_zstd(TARGET) + make_zstd(b"x"), "bytes after its end"),
    "another file": (make_zstd(BASE), "made 5000 bytes with SHA-256"),
    "residual": (make_residual(BASE, TARGET), "found no zstd frame"),
    "skippable": (b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + make_zstd(TARGET), "found no zstd frame"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_wrong_whole_file_is_one_clear_error(tmp_path, name):
    delivery, message = WHOLE[name]
    with pytest.raises(DeliveryError, match=message) as caught:
        make(tmp_path, delivery, None, TARGET)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.onnx").exists()


def test_large_window_is_refused(tmp_path):
    maker = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27, write_content_size=True)
    )
    data = bytes(9 << 20)
    with pytest.raises(DeliveryError, match=r"needs a window of .* bytes, expected at most 8388608"):
        make(tmp_path, maker.compress(data), None, data)


GOOD = make_residual(BASE, TARGET)


def operations(data: bytes, delivery: bytes = GOOD) -> bytes:
    """A residual with other operations."""
    fields = header_of(delivery)
    section = frame(data)
    rest = delivery[HEADER.size + fields[4] :]
    fields[4] = len(section)
    return HEADER.pack(*fields) + section + rest


RESIDUAL = {
    "truncated": (GOOD[:-1], "it is cut off or too long"),
    "trailing data": (GOOD + b"x", "it is cut off or too long"),
    "head only": (GOOD[:50], "cut off"),
    "nothing": (b"", "cut off"),
    "whole file": (make_zstd(TARGET) + bytes(200), "found no residual: it starts with"),
    "of another target": (make_residual(BASE, TARGET + b"x"), "it makes 5001 bytes, expected 5000"),
    "of another target of the size": (make_residual(BASE, BASE), "made 5000 bytes with SHA-256"),
    "sizes that overflow": (with_header(GOOD, lambda fields: fields.__setitem__(5, 2**64 - 1)), "cut off or too long"),
    "sections that are swapped": (
        with_header(GOOD, lambda fields: fields.__setitem__(slice(4, 6), fields[5:3:-1])),
        "cut off|after its end|no zstd frame|expected",
    ),
    "operation unknown": (operations(b"\x07\x01"), "found operation 7"),
    "operation without length": (operations(b"\x00\x00" + b"\x03\x88\x27\x00"), "an operation of 0 bytes"),
    "operation that is cut off": (operations(b"\x03\x88"), "a number is cut off"),
    "operation of a huge number": (operations(b"\x03" + b"\xff" * 9 + b"\x01\x00"), "cut off or too large"),
    "operation outside the base": (operations(b"\x03\x88\x27\x02"), "reads outside the base"),
    "operation before the base": (operations(b"\x03\x88\x27\x01"), "reads outside the base"),
    "operation of a broken width": (operations(b"\x04\x02\x00\x03\x86\x27\x00"), "of 2 bytes and width 4"),
    "operations that make too little": (operations(b"\x03\x01\x00"), "its operations make 1 bytes, expected 5000"),
    "operations that make too much": (
        operations(b"\x03\x88\x27\x00" * 1 + b"\x03\x88\x27\x8f\x4e"),
        "make 10000 bytes",
    ),
    "operations without end": (operations(b"\x03\x01\x00" * 400_000), "expected at most 1048576"),
    "a stream that is missing": (operations(b"\x00\x88\x27", make_residual(BASE, BASE)), "found no zstd frame"),
    "no operations": (operations(b""), "its operations make 0 bytes"),
}


@pytest.mark.parametrize("name", RESIDUAL)
def test_wrong_residual_is_one_clear_error(tmp_path, name):
    delivery, message = RESIDUAL[name]
    with pytest.raises(DeliveryError, match=message) as caught:
        make(tmp_path, delivery, BASE, TARGET)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, WrongBaseError)
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("base", [TARGET, BASE + b"x", b""])
def test_wrong_base_is_one_clear_error(tmp_path, base):
    with pytest.raises(WrongBaseError, match="base is not the file of 5000 bytes that it was made for"):
        make(tmp_path, GOOD, base, TARGET)


def test_missing_base_is_one_clear_error(tmp_path):
    (tmp_path / "delivery").write_bytes(GOOD)
    with pytest.raises(WrongBaseError, match="cannot read"):
        apply_delivery(tmp_path / "delivery", tmp_path / "base", tmp_path / "out", 5000, sha256(TARGET))


def test_stored_object_is_verified_before_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "delivery").write_bytes(make_zstd(TARGET))
    stored = ObjectRef(sha256="0" * 64, size=len(make_zstd(TARGET)))
    monkeypatch.setattr(compressed.zstandard, "ZstdDecompressor", None)
    with pytest.raises(DeliveryError, match=r"found SHA-256 .*; fetch it again"):
        apply_delivery(tmp_path / "delivery", None, tmp_path / "out", 5000, sha256(TARGET), stored=stored)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), residual=st.booleans())
def test_any_change_of_a_delivery_is_our_error(tmp_path_factory, data, residual):
    good = bytearray(GOOD if residual else make_zstd(TARGET))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    del good[data.draw(st.integers(0, len(good))) or len(good) :]
    folder = tmp_path_factory.mktemp("changed")
    try:
        assert make(folder, bytes(good), BASE if residual else None, TARGET) == TARGET
    except DeliveryError as error:
        assert str(error).isprintable()  # noqa: PT017


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), size=st.integers(0, 2**40), residual=st.booleans())
def test_any_bytes_are_our_error(tmp_path_factory, data, size, residual):
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "delivery").write_bytes(data)
    (folder / "base").write_bytes(BASE)
    with pytest.raises(SyncError):
        apply_delivery(folder / "delivery", folder / "base" if residual else None, folder / "out", size, "0" * 64)


def test_memory_is_bounded(tmp_path):
    size = 24 << 20
    base = np.zeros(size, np.uint8)
    base[::1001] = 7
    target = base.copy()
    target[::997] += 1
    deliveries = {"zstd": make_zstd(target.tobytes()), "residual": make_residual(base.tobytes(), target.tobytes())}
    expected = sha256(target.tobytes())
    (tmp_path / "base").write_bytes(base.tobytes())
    del base, target
    for name, delivery in deliveries.items():
        (tmp_path / name).write_bytes(delivery)
        tracemalloc.start()
        apply_delivery(
            tmp_path / name, tmp_path / "base" if name == "residual" else None, tmp_path / "out", size, expected
        )
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20  # beside the windows of zstd


def test_s1_full_disk_is_one_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full(path: Path):
        path.write_bytes(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compressed, "create_new", full)
    with pytest.raises(StorageError, match=r"out\.onnx: cannot store 5000 bytes: No space left on device"):
        make(tmp_path, GOOD, BASE, TARGET)
    assert not (tmp_path / "out.onnx").exists()


def test_s7_nothing_is_written_to_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    for name in ("mkstemp", "mkdtemp", "TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile"):
        monkeypatch.setattr(tempfile, name, None)
    assert make(tmp_path, GOOD, BASE, TARGET) == TARGET


@pytest.mark.parametrize("image", IMAGES)
def test_power_cut_at_any_change_leaves_the_old_file_or_the_new_one(tmp_path, image):
    (tmp_path / "delivery").write_bytes(GOOD)
    (tmp_path / "base").write_bytes(BASE)
    out = tmp_path / "out.onnx"
    for number in itertools.count(1):
        out.write_bytes(b"old")
        with PowerCut(number, image) as power, suppress(StorageError):
            apply_delivery(tmp_path / "delivery", tmp_path / "base", out, 5000, sha256(TARGET))
        assert out.read_bytes() in (b"old", TARGET)
        apply_delivery(tmp_path / "delivery", tmp_path / "base", out, 5000, sha256(TARGET))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "delivery", "out.onnx"]
        if not power.happened:
            break
    assert number > 3


def test_interrupted_application_is_done_again(tmp_path):
    (tmp_path / "out.onnx.making").mkdir()
    (tmp_path / "delivery").write_bytes(GOOD)
    (tmp_path / "base").write_bytes(BASE)
    apply_delivery(tmp_path / "delivery", tmp_path / "base", tmp_path / "out.onnx", 5000, sha256(TARGET))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "delivery", "out.onnx"]
