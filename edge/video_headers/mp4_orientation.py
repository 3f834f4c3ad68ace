"""Read how the pictures of an MP4 or QuickTime file must be turned, from the matrix of its video track.

OpenCV reports the angle only and takes a mirrored picture for a rotated one; GStreamer 1.22 misses one of the eight.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MATRICES = {  # a, b, c, d of ISO/IEC 14496-12 8.3.2: x' = a x + c y, y' = b x + d y; the value is the EXIF orientation
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
_MAX_BOXES = 1000  # of one level; a real file has some tens
_MAX_HEADER_BYTES = 2**26  # of one track; the sample tables of a day of video
_MATRIX_AT = {0: 40, 1: 52}  # bytes from the start of a track header, by its version


def read_mp4_orientation(path: Path) -> int | None:
    """Return the EXIF orientation (1 to 8) of the first video track; None for another format or matrix."""
    try:
        with path.open("rb") as file:
            return _of_file(file, path.stat().st_size)
    except (OSError, struct.error):
        return None


def _of_file(file: BinaryIO, size: int) -> int | None:
    for moov_at, moov_end, name in _boxes(file, 0, size):
        if name != b"moov":
            continue
        for track_at, track_end, kind in _boxes(file, moov_at, moov_end):
            if kind == b"trak" and track_end - track_at <= _MAX_HEADER_BYTES:
                file.seek(track_at)
                track = file.read(track_end - track_at)
                if _is_video(track):
                    return _of_track(track)
    return None


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield first byte, end and name of the boxes between two positions."""
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8 or at + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", head)
        first = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", head, 8)
            first = at + 16
        stop = end if size == 0 else at + size
        if stop < first or stop > end:
            return
        yield first, stop, name
        at = stop


def _is_video(track: bytes) -> bool:
    handler = track.find(b"hdlr")
    return handler >= 0 and track[handler + 12 : handler + 16] == b"vide"


def _of_track(track: bytes) -> int | None:
    header = track.find(b"tkhd") + 4
    at = header + _MATRIX_AT.get(track[header], 40)
    a, b, _, c, d = struct.unpack_from(">5i", track, at)
    return _MATRICES.get((_sign(a), _sign(b), _sign(c), _sign(d)))


def _sign(fixed: int) -> int:
    """Return -1, 0 or 1 for a fixed-point number; half of 1.0 or less counts as 0."""
    return 0 if abs(fixed) <= 0x8000 else 1 if fixed > 0 else -1
