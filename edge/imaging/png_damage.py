"""Check the chunks of a PNG before a decoder reads them (PNG 3rd ed., 5.3).

OpenCV reserves memory for a chunk before it reads it, inflates texts and profiles that nobody asked for, and inflates
what follows the last row. It checks the checksums and rows of a still PNG, but not of an animated one.
"""

from __future__ import annotations

import struct
import zlib

from edge.errors import PictureError

_MARK_BYTES = 8
_NEEDED = (b"tRNS", b"eXIf")  # of the ancillary chunks: transparency, and the orientation
_MAX_EXIF_BYTES = 65_536
_MAX_CHUNKS, _BYTES_PER_CHUNK = 1000, 1024  # of a small file; of a large one, chunks hold this much on average
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_UNCHECKED_BYTES = 65_536  # of image data, which inflates to 68 MB at most
_PIECE_BYTES = 1 << 18


def checked_png(data: bytes) -> bytes:
    """Return the PNG with the chunks that decoding needs: without animation, texts and profiles.

    Raises:
        PictureError: a chunk is truncated, its checksum is wrong, or the image data is longer than the picture.
    """
    view, at, chunks, name = memoryview(data), _MARK_BYTES, 0, b""
    kept = [view[:at]]  # joined runs of chunks
    image_data: list[memoryview] = []
    while name != b"IEND":
        try:
            length, name = struct.unpack_from(">I4s", data, at)
            (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        except struct.error:
            raise PictureError("truncated", f"the png is truncated after {len(data)} bytes") from None
        is_critical = not name[0] & 0x20
        if is_critical and zlib.crc32(view[at + 4 : at + 8 + length]) != checksum:
            shown = name.decode("ascii", "backslashreplace")
            raise PictureError("broken", f"the png is damaged (the checksum of {shown} is wrong)")
        if is_critical or (name in _NEEDED and length <= _MAX_EXIF_BYTES):
            kept.append(view[at : at + 12 + length])
        if name == b"IDAT":
            image_data.append(view[at + 8 : at + 8 + length])
        at += 12 + length
        chunks += 1
        if chunks > _MAX_CHUNKS + len(data) // _BYTES_PER_CHUNK:
            raise PictureError("broken", f"the png has more than {chunks - 1} chunks")
    if sum(map(len, image_data)) > _UNCHECKED_BYTES and _inflates_too_far(image_data, _max_row_bytes(data)):
        raise PictureError("broken", "the png is damaged (its image data is longer than the picture)")
    return data if sum(map(len, kept)) == len(data) else b"".join(kept)


def _max_row_bytes(data: bytes) -> int:
    """Return how many bytes the rows of a picture have at most, from its first chunk."""
    width, height, depth, colour = (int(number) for number in struct.unpack_from(">IIBB", data, 16))
    bits = width * _CHANNELS.get(colour, 4) * depth
    return height * (bits // 8 + 4) + 8 * (height + width)  # a filter byte a row; interlaced ones are cut into seven


def _inflates_too_far(pieces: list[memoryview], most: int) -> bool:
    inflater, total = zlib.decompressobj(), 0
    try:
        for piece in pieces:
            rest: bytes | memoryview = piece
            while rest and not inflater.eof:
                total += len(inflater.decompress(rest, _PIECE_BYTES))
                if total > most:
                    return True
                rest = inflater.unconsumed_tail
    except zlib.error:
        return False  # it is the decoder's to refuse
    return False
