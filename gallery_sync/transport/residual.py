"""The difference between two files, as operations and streams of bytes. `gallery_sync.transport.compressed` stores it.

A target file is made in order by operations:

    literal   bytes of the target, from stream 0
    copy      bytes of the base
    delta     numbers of 1, 2 or 4 bytes: each is that of the base plus a difference

A difference wraps around, little-endian, and is stored in zigzag (0, -1, 1, -2 become 0, 1, 2, 3), so that small
differences have small numbers. Byte k of every difference of a width goes to one stream of its own: what is nearly
always zero and what is nearly random are then compressed apart. Streams 1; 2, 3; 4, 5, 6, 7 hold the bytes of widths
1; 2; 4.

An operation is stored as its code (0 literal, 1, 2 or 4 delta of this width, 3 copy), its length in bytes and, but for
a literal, the distance from the end of the last range of the base that was used to the start of its own. Numbers are
LEB128; the distance is in zigzag.

Rules this module keeps:
1. It compresses nothing and opens nothing.
2. A plan read from outside is checked whole before the first byte is made: its ranges are in the base, its lengths are
   positive, and their sum is the size of the target.
3. Applying a plan needs memory for one block of each stream, whatever the sizes of the files are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gallery_sync.transport.onnx_tensors import Piece, pieces_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LITERAL, COPY = 0, 3
WIDTHS = (1, 2, 4)  # of a delta; each is its own code
STREAM_COUNT = 1 + sum(WIDTHS)
_FIRST_STREAM = {1: 1, 2: 2, 4: 4}
_BLOCK_BYTES = 1 << 18  # a multiple of every width
_WORTH_SEARCHING = 8  # bytes of a piece that is searched for in the base
_LONGEST_VARINT = 10
_LARGEST = 1 << 62


@dataclass(frozen=True, slots=True)
class Operation:
    """Makes the next bytes of the target."""

    code: int
    length: int  # bytes of the target
    base: int = 0  # offset in the base; 0 for a literal

    @property
    def streams(self) -> range:
        """The streams it reads, each `length` / number of streams bytes."""
        if self.code == COPY:
            return range(0)
        return range(1) if self.code == LITERAL else range(_FIRST_STREAM[self.code], _FIRST_STREAM[self.code] * 2)


Base = Callable[[int, int], bytes]  # returns exactly the bytes of the base at an offset, of a length, or raises
Stream = Callable[[int], bytes]  # returns exactly this many of the next bytes, or raises


def difference(base: bytes, target: bytes, cost: Callable[[bytes], int]) -> tuple[list[Operation], tuple[bytes, ...]]:
    """Find operations that make a target from a base.

    Tensors of two ONNX files are compared by name, so that their layout may differ. Any other two files are compared
    byte by byte where they have the same size; else the target is one literal.

    Args:
        base: the file that a device has.
        target: the file to make.
        cost: estimates the stored size of some bytes; the cheapest code of every piece is taken.

    Returns:
        The operations, and `STREAM_COUNT` streams.
    """
    streams = [bytearray() for _ in range(STREAM_COUNT)]
    operations: list[Operation] = []
    for start, stop, at in _aligned(base, target):
        wanted = target[start:stop]
        operation, parts = _cheapest(base[at : at + len(wanted)], wanted, at, cost) if at is not None else (None, [])
        operation = operation or Operation(LITERAL, len(wanted))
        for stream, part in zip(operation.streams, parts or [wanted], strict=False):
            streams[stream] += part
        _append(operations, operation)
    return operations, tuple(bytes(stream) for stream in streams)


def apply(operations: Sequence[Operation], base: Base, streams: Sequence[Stream]) -> Iterator[bytes]:
    """Make the target, block by block.

    Args:
        operations: from `difference` or `decode_operations`.
        base: reads the base.
        streams: the `STREAM_COUNT` streams.
    """
    for operation in operations:
        for done in range(0, operation.length, _BLOCK_BYTES):
            count = min(_BLOCK_BYTES, operation.length - done)
            if operation.code == LITERAL:
                yield streams[0](count)
            elif operation.code == COPY:
                yield base(operation.base + done, count)
            else:
                planes = [streams[number](count // operation.code) for number in operation.streams]
                yield _add(base(operation.base + done, count), planes)


def encode_operations(operations: Sequence[Operation]) -> bytes:
    """Return operations as bytes."""
    data = bytearray()
    end = 0
    for operation in operations:
        data.append(operation.code)
        data += _leb128(operation.length)
        if operation.code != LITERAL:
            distance = operation.base - end
            data += _leb128(distance << 1 if distance >= 0 else (-distance << 1) - 1)
            end = operation.base + operation.length
    return bytes(data)


def decode_operations(data: bytes, base_size: int, target_size: int) -> list[Operation]:
    """Read operations and check them.

    Raises:
        ValueError: they are damaged, leave the base, or do not make a file of this size.
    """
    operations: list[Operation] = []
    at = end = made = 0
    while at < len(data):
        code = data[at]
        if code not in (LITERAL, COPY, *WIDTHS):
            raise ValueError(f"found operation {code}, expected 0 to 4")
        length, at = _read_leb128(data, at + 1)
        start = 0
        if code != LITERAL:
            zigzag, at = _read_leb128(data, at)
            start = end + ((zigzag >> 1) ^ -(zigzag & 1))
            end = start + length
            if start < 0 or end > base_size:
                raise ValueError("an operation reads outside the base")
        if not length or (code in WIDTHS and length % code):
            raise ValueError(f"found an operation of {length} bytes and width {code}")
        made += length
        operations.append(Operation(code, length, start))
    if made != target_size:
        raise ValueError(f"its operations make {made} bytes, expected {target_size}")
    return operations


def stream_sizes(operations: Sequence[Operation]) -> list[int]:
    """Return how many bytes operations read from each stream."""
    sizes = [0] * STREAM_COUNT
    for operation in operations:
        for stream in operation.streams:
            sizes[stream] += operation.length // len(operation.streams)
    return sizes


def _aligned(base: bytes, target: bytes) -> Iterator[tuple[int, int, int | None]]:
    """Return ranges of the target, each with the offset of what is like it in the base, if anything is."""
    wanted, had = pieces_of(target), pieces_of(base)
    if not wanted or not had:
        if target:
            yield 0, len(target), 0 if len(base) == len(target) else None
        return
    tensors = {(piece.tensor, piece.stop - piece.start): piece.start for piece in had if piece.tensor is not None}
    others = {base[piece.start : piece.stop]: piece.start for piece in reversed(had) if _is_searched(piece)}
    end = 0  # of the last range of the base: what goes on there needs no operation of its own
    for piece in wanted:
        length, content = piece.stop - piece.start, target[piece.start : piece.stop]
        at = tensors.get((piece.tensor, length)) if piece.tensor is not None else others.get(content)
        if piece.tensor is None and base[end : end + length] == content:
            at = end
        if at is not None:
            end = at + length
        yield piece.start, piece.stop, at


def _is_searched(piece: Piece) -> bool:
    return piece.tensor is None and piece.stop - piece.start >= _WORTH_SEARCHING


def _cheapest(base: bytes, target: bytes, at: int, cost: Callable[[bytes], int]) -> tuple[Operation, list[bytes]]:
    if base == target:
        return Operation(COPY, len(target), at), []
    choices = [(Operation(LITERAL, len(target)), [target])]
    choices += [
        (Operation(width, len(target), at), _subtract(base, target, width))
        for width in WIDTHS
        if len(target) % width == 0
    ]
    return min(choices, key=lambda choice: sum(cost(part) for part in choice[1]))


def _append(operations: list[Operation], operation: Operation) -> None:
    """Append an operation, as part of the last one if it goes on where that ends."""
    if operations:
        last = operations[-1]
        goes_on = operation.code == LITERAL or last.base + last.length == operation.base
        if last.code == operation.code and goes_on:
            operations[-1] = Operation(last.code, last.length + operation.length, last.base)
            return
    operations.append(operation)


def _subtract(base: bytes, target: bytes, width: int) -> list[bytes]:
    import numpy as np

    kind = np.dtype(f"<i{width}")
    delta: NDArray[np.signedinteger] = np.frombuffer(target, kind) - np.frombuffer(base, kind)
    zigzag = (delta << 1) ^ (delta >> (8 * width - 1))
    planes = zigzag.astype(kind).view(np.uint8).reshape(-1, width)
    return [planes[:, plane].tobytes() for plane in range(width)]


def _add(base: bytes, planes: Sequence[bytes]) -> bytes:
    import numpy as np

    width = len(planes)
    kind = np.dtype(f"<u{width}")
    zigzag = np.empty((len(planes[0]), width), np.uint8)
    for number, plane in enumerate(planes):
        zigzag[:, number] = np.frombuffer(plane, np.uint8)
    value = zigzag.view(kind)[:, 0]
    one = kind.type(1)
    delta = (value >> one) ^ (~(value & one) + one)  # the second is 0 or all ones
    total: NDArray[np.unsignedinteger] = np.frombuffer(base, kind) + delta
    return total.astype(kind).tobytes()


def _leb128(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def _read_leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(_LONGEST_VARINT):
        if at + shift >= len(data):
            break
        byte = data[at + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            if value > _LARGEST:
                break
            return value, at + shift + 1
    raise ValueError("a number is cut off or too large")
