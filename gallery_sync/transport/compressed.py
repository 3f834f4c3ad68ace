"""Smaller objects from which a device makes one file of a bundle: the file in zstd, or its difference to another file.

`zstd` is one frame of Zstandard that tells its content size. `residual` is

    8 bytes    "FSRESID1"
    32 bytes   SHA-256 of the base
    8 bytes    size of the base           all numbers are unsigned and little-endian
    8 bytes    size of the target
    72 bytes   lengths of the 9 sections below; 0: the section is absent
    section 0  the operations, in zstd    see gallery_sync.transport.residual
    sections 1..8  its 8 streams, in zstd

Rules this module keeps:
1. The signed size caps everything. Every frame tells its content size; it is compared with what is expected before
   anything is decompressed, and no more than that is ever read from it.
2. A frame is walked block by block first: it ends exactly where its section or object ends.
3. Memory is bounded: windows of at most 8 MiB for a whole file or literals, 1 MiB for the others, blocks of 256 KiB.
4. The result is written next to its final name, and gets it, flushed, only after its SHA-256 is verified. The hash of
   the stored object is verified before this, by the `Fetcher` and again here when the caller gives it.
5. This is the only module that imports `zstandard`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import zstandard

from edge.durable import file_mismatch, replace_file
from gallery_sync.formats.fields import ObjectRef
from gallery_sync.fresh_files import create_new, remove
from gallery_sync.transport.errors import DeliveryError, StorageError, WrongBaseError
from gallery_sync.transport.residual import (
    STREAM_COUNT,
    Operation,
    apply,
    decode_operations,
    difference,
    encode_operations,
    stream_sizes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MAGIC = b"FSRESID1"
_HEADER = struct.Struct(f"<8s32sQQ{1 + STREAM_COUNT}Q")
_LEVEL, _ESTIMATE_LEVEL = 19, 3
_WINDOW_LOG, _PLANE_WINDOW_LOG = 23, 20
_MOST_OPERATION_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 18
_READ_BYTES = 1 << 16
_FRAME_MAGIC = b"\x28\xb5\x2f\xfd"
_LONGEST_FRAME_HEADER = 18
_BLOCK_HEADER_BYTES, _RLE_BLOCK, _RESERVED_BLOCK, _CHECKSUM_BYTES = 3, 1, 3, 4


def make_zstd(data: bytes) -> bytes:
    """Return a file as a delivery of the method `zstd`."""
    return _compress(data, _WINDOW_LOG)


def make_residual(base: bytes, target: bytes) -> bytes:
    """Return the difference between two files as a delivery of the method `residual`.

    Models of the same architecture give the best result; any two files are allowed.
    """
    operations, streams = difference(base, target, _estimate)
    sections = [_compress(encode_operations(operations), _PLANE_WINDOW_LOG)]
    sections += [_compress(data, _WINDOW_LOG if not number else _PLANE_WINDOW_LOG) if data else b""
                 for number, data in enumerate(streams)]  # fmt: skip
    lengths = [len(section) for section in sections]
    header = _HEADER.pack(_MAGIC, hashlib.sha256(base).digest(), len(base), len(target), *lengths)
    return header + b"".join(sections)


def apply_delivery(
    delivery: Path, base: Path | None, out: Path, size: int, sha256: str, *, stored: ObjectRef | None = None
) -> None:
    """Make a file from a delivery, with bounded memory.

    Args:
        delivery: the stored object.
        base: the file that a residual was made for; None: the delivery is the whole file in zstd.
        out: the file to make; one that exists is replaced.
        size: of the file, from the signed manifest.
        sha256: of the file, from the signed manifest.
        stored: size and hash of the stored object; None: they were verified when it was fetched, just now.

    Raises:
        WrongBaseError: the base is another file, or cannot be read.
        DeliveryError: the delivery is damaged, or does not make this file.
        StorageError: the file cannot be stored.
    """
    if stored is not None and (wrong := file_mismatch(delivery, stored.size, stored.sha256)):
        raise DeliveryError(f"{wrong}; fetch it again")
    making = out.with_name(f"{out.name}.making")
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(_open(delivery, DeliveryError))
        blocks = _whole(source, size) if base is None else _residual(source, _open_base(base, stack), size)
        try:
            remove(making)
            _store(blocks, making, size, sha256)
            replace_file(making, out)
        except DeliveryError as error:
            raise type(error)(f"delivery {delivery.name[:12]} of {out.name}: {error}") from error
        except OSError as error:
            raise StorageError(f"{out.name}: cannot store {size} bytes: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                remove(making)  # a useless part must not keep a full disk full


@dataclass(frozen=True, slots=True)
class _OpenBase:
    path: Path
    file: BinaryIO


def _open(path: Path, kind: type[DeliveryError]) -> BinaryIO:
    try:
        return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError as error:
        raise kind(f"{path}: cannot read: {error.strerror}") from error


def _open_base(base: Path, stack: contextlib.ExitStack) -> _OpenBase:
    return _OpenBase(base, stack.enter_context(_open(base, WrongBaseError)))


def _store(blocks: Iterator[bytes], making: Path, size: int, sha256: str) -> None:
    digest = hashlib.sha256()
    total = 0
    with create_new(making) as file:
        for block in blocks:
            total += len(block)
            digest.update(block)
            file.write(block)
    if total != size or digest.hexdigest() != sha256:
        raise DeliveryError(f"made {total} bytes with SHA-256 {digest.hexdigest()}, expected {size} with {sha256}")


def _whole(source: BinaryIO, size: int) -> Iterator[bytes]:
    """Return the blocks of a whole file in zstd."""
    frame = _Frame(source, 0, _size_of(source), size, _WINDOW_LOG)
    for done in range(0, size, _CHUNK_BYTES):
        yield frame.read(min(_CHUNK_BYTES, size - done))


def _residual(source: BinaryIO, base: _OpenBase, size: int) -> Iterator[bytes]:
    """Return the blocks of a target, made from its base."""
    operations, streams = _read_residual(source, base, size)

    def read_base(offset: int, length: int) -> bytes:
        return _read_exactly(base.file, offset, length, WrongBaseError)

    yield from apply(operations, read_base, streams)


def _read_residual(
    source: BinaryIO, base: _OpenBase, size: int
) -> tuple[list[Operation], Sequence[Callable[[int], bytes]]]:
    header = _read_exactly(source, 0, _HEADER.size, DeliveryError)
    magic, base_sha256, base_size, target_size, *lengths = _HEADER.unpack(header)
    if magic != _MAGIC:
        raise DeliveryError(f"found no residual: it starts with {magic!r}, expected {_MAGIC!r}")
    if target_size != size:
        raise DeliveryError(f"it makes {target_size} bytes, expected {size}")
    if _HEADER.size + sum(lengths) != (found := _size_of(source)):
        raise DeliveryError(f"found {found} bytes, expected {_HEADER.size + sum(lengths)}: it is cut off or too long")
    if _size_of(base.file) != base_size or _hash_of(base) != base_sha256.hex():
        raise WrongBaseError(f"{base.path.name} is not the file of {base_size} bytes that it was made for")
    starts = [_HEADER.size + sum(lengths[:number]) for number in range(len(lengths))]
    try:
        operations = decode_operations(_read_operations(source, starts[0], lengths[0]), base_size, size)
    except ValueError as error:
        raise DeliveryError(str(error)) from error
    frames = [
        _Frame(source, start, length, expected, _PLANE_WINDOW_LOG if number else _WINDOW_LOG).read
        for number, (start, length, expected) in enumerate(
            zip(starts[1:], lengths[1:], stream_sizes(operations), strict=True)
        )
    ]
    return operations, frames


def _read_operations(source: BinaryIO, start: int, length: int) -> bytes:
    size = _content_size(source, start, length)
    if size > _MOST_OPERATION_BYTES:
        raise DeliveryError(f"found operations of {size} bytes, expected at most {_MOST_OPERATION_BYTES}")
    return _Frame(source, start, length, size, _PLANE_WINDOW_LOG).read(size)


class _Frame:
    """Reads one frame of zstd that is a section of a file. An empty section is one of no bytes."""

    def __init__(self, source: BinaryIO, start: int, length: int, expected: int, window_log: int) -> None:
        """Check the frame, without decompressing it.

        Args:
            source: the file.
            start: offset of the section.
            length: of the section.
            expected: bytes of its content.
            window_log: the largest allowed window.

        Raises:
            DeliveryError: it is no frame, has another size or window, or ends before or after the section.
        """
        self._reader: zstandard.ZstdDecompressionReader | None = None
        if not length and not expected:
            return
        if (size := _content_size(source, start, length)) != expected:
            raise DeliveryError(f"found a frame of {size} bytes when decompressed, expected {expected}")
        _check_frame(source, start, length, window_log)
        section = _Section(source, start, length)
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << window_log)
        self._reader = decompressor.stream_reader(section, read_size=_READ_BYTES)  # type: ignore[arg-type]

    def read(self, count: int) -> bytes:
        """Return exactly this many of the next bytes.

        Raises:
            DeliveryError: there are not as many, or the frame is damaged.
        """
        data = bytearray()
        try:
            while self._reader is not None and len(data) < count and (some := self._reader.read(count - len(data))):
                data += some
        except zstandard.ZstdError as error:
            raise DeliveryError(f"a frame is damaged: {error}") from error
        if len(data) != count:
            raise DeliveryError(f"a frame ends {count - len(data)} bytes early")
        return bytes(data)


@dataclass(slots=True)
class _Section:
    """A range of a file that `zstandard` reads as a file of its own."""

    file: BinaryIO
    at: int
    left: int

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes; empty: the section ends."""
        wanted = self.left if count < 0 else min(count, self.left)
        data = os.pread(self.file.fileno(), wanted, self.at)
        self.at += len(data)
        self.left -= len(data)
        return data


def _parameters(source: BinaryIO, start: int, length: int) -> tuple[zstandard.FrameParameters, int]:
    """Return the parameters of a frame and the length of its header."""
    head = os.pread(source.fileno(), min(_LONGEST_FRAME_HEADER, length), start)
    if not head.startswith(_FRAME_MAGIC):
        raise DeliveryError(f"found no zstd frame: it starts with {head[:4]!r}")
    try:
        return zstandard.get_frame_parameters(head), zstandard.frame_header_size(head)
    except zstandard.ZstdError as error:
        raise DeliveryError(f"the header of a frame is damaged: {error}") from error


def _content_size(source: BinaryIO, start: int, length: int) -> int:
    size = int(_parameters(source, start, length)[0].content_size)
    if size == zstandard.CONTENTSIZE_UNKNOWN:
        raise DeliveryError("a frame does not tell the size of its content")
    return size


def _check_frame(source: BinaryIO, start: int, length: int, window_log: int) -> None:
    """Walk the blocks of a frame. RFC 8878 §3.1.1."""
    found, header_bytes = _parameters(source, start, length)
    if found.window_size > 1 << window_log or found.dict_id:
        raise DeliveryError(f"a frame needs a window of {found.window_size} bytes, expected at most {1 << window_log}")
    at, end, last = start + header_bytes, start + length, False
    while not last:
        if at + _BLOCK_HEADER_BYTES > end:
            raise DeliveryError("a frame is cut off")
        block = int.from_bytes(_read_exactly(source, at, _BLOCK_HEADER_BYTES, DeliveryError), "little")
        last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        if kind == _RESERVED_BLOCK:
            raise DeliveryError("a block of a frame is damaged")
        at += _BLOCK_HEADER_BYTES + (1 if kind == _RLE_BLOCK else size)
    at += _CHECKSUM_BYTES if found.has_checksum else 0
    if at != end:
        raise DeliveryError(f"a frame has {end - at} bytes after its end" if at < end else "a frame is cut off")


def _read_exactly(file: BinaryIO, offset: int, length: int, kind: type[DeliveryError]) -> bytes:
    data = os.pread(file.fileno(), length, offset)
    if len(data) != length:
        raise kind(f"found {len(data)} bytes at {offset}, expected {length}: it is cut off")
    return data


def _hash_of(base: _OpenBase) -> str:
    digest = hashlib.sha256()
    base.file.seek(0)
    while chunk := base.file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _size_of(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _compress(data: bytes, most_window_log: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, source_size=len(data), window_log=min(most_window_log, max(10, len(data).bit_length())),
        write_content_size=True, write_checksum=False,
    )  # fmt: skip
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def _estimate(data: bytes) -> int:
    return len(zstandard.ZstdCompressor(level=_ESTIMATE_LEVEL).compress(data))
