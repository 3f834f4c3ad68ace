"""Find damage in a JPEG: decoders fill lost parts with grey and only warn, on stderr.

A strict decoder (simplejpeg, libjpeg-turbo) stops at the first warning; at an eighth of the size and in grey, it costs
less than half of decoding. Two kinds of damage give no warning, so they are looked for: missing scans and zeroed parts.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edge.imaging.header import MARKER, MAX_SEGMENTS

log = logging.getLogger(__name__)

_MARKER_IN_SCAN = re.compile(rb"\xff([^\0\xff\xd0-\xd7])", re.DOTALL)
SOF_HUFFMAN = (0xC0, 0xC1, 0xC2)
_SOF_ARITHMETIC = range(0xC9, 0xD0)
_PROGRESSIVE = 0xC2
_DHT, _EOI, _SOS, _EXIF, _COMMENT = 0xC4, 0xD9, 0xDA, 0xE1, 0xFE
_EXIF_MARK = b"Exif\0\0"
_APPLICATION = range(0xE0, 0xF0)
_END = bytes([0xFF, _EOI])
_LONE = {0x01, *range(0xD0, 0xD9)}
_HOLE = bytes(16)  # by chance once in 2**128 bits of coded picture
_PADDING_BYTES = 8  # that some encoders leave before the end marker
_MAX_SCANS = 100  # encoders write about ten; each costs a pass over the picture
_SURPLUS = re.compile(r"(\d+) extraneous bytes before marker 0x(\w\w)")
_HARMLESS = re.compile(
    r"JFIF revision|Adobe color transform|extraneous bytes before marker 0x(?!d[0-7])|SOS parameters"
)
_NO_DAMAGE = re.compile(r"color conversion|subsampling")


@dataclass(slots=True)
class _Scan:
    """One scan (ITU T.81 B.2.3)."""

    components: dict[int, int]  # number of the AC table, by component
    first: int  # coefficients first..last
    last: int
    high: int  # bit positions of successive approximation
    low: int
    start: int  # of the coded picture
    stop: int = 0


@dataclass(slots=True)
class JpegParts:
    """The parts of a JPEG up to its end marker."""

    frame: int = 0  # marker of the frame
    precision: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)  # of each frame: width and height as stored, pixels
    components: list[int] = field(default_factory=list)
    scans: list[_Scan] = field(default_factory=list)
    zero_symbols: dict[int, int] = field(default_factory=dict)  # symbol of the code of zero bits, by AC table
    segments: list[bytes] = field(default_factory=list)  # in which damage shows, with coded pictures
    exif: list[bytes] = field(default_factory=list)  # contents of such segments before the first scan
    end: int = -1  # of the coded picture: offset of the end marker
    excess: str = ""  # the limit that it exceeds; empty: none

    def missing_scans(self) -> bool:
        """Return whether some coefficients of some component never come to their last bit."""
        needed = {(component, number) for component in self.components for number in range(64)}
        for scan in self.scans:
            if self.frame != _PROGRESSIVE or scan.low == 0:
                whole = range(64) if self.frame != _PROGRESSIVE else range(scan.first, scan.last + 1)
                needed -= {(component, number) for component in scan.components for number in whole}
        return bool(needed)


def find_jpeg_damage(data: bytes) -> tuple[str, str] | None:
    """Return the reason (`truncated` or `broken`) and what is wrong with a JPEG; None if the decoder vouches for it.

    Without simplejpeg, most damage goes unseen: that is logged once.
    """
    try:
        jpeg = parse_jpeg(data)
    except IndexError:
        return "truncated", f"ends after {len(data)} bytes, within its headers"
    if jpeg.excess:
        return "broken", f"has more than {jpeg.excess}"
    if jpeg.frame in _SOF_ARITHMETIC:  # its decoder fills what is missing without a warning
        return "not_a_picture", "uses arithmetic coding, in which damage cannot be seen; save it as an ordinary JPEG"
    if jpeg.frame not in SOF_HUFFMAN or jpeg.precision != 8:
        return None  # lossless, 12 bits: it is the decoder's to refuse
    if jpeg.missing_scans():
        return "truncated", "lacks its last scans"
    return _damage_in_scans(data, jpeg)


def _damage_in_scans(data: bytes, jpeg: JpegParts) -> tuple[str, str] | None:
    """Look for damage in the coded picture. A harmless warning may hide another one: look again without its cause."""
    warning, plain = _first_warning(data), b""
    if warning and _HARMLESS.search(warning):
        plain = b"".join([b"\xff\xd8", *jpeg.segments])
        warning = _first_warning(plain + _END)
    surplus = 0
    if warning and (found := _SURPLUS.search(warning)) and found[2] == "d9":
        surplus = int(found[1])
        if surplus <= _PADDING_BYTES or not plain[-surplus:].strip(b"\0"):
            warning = _first_warning(plain[:-surplus] + _END)
    if warning and not _NO_DAMAGE.search(warning):
        return "truncated" if "remature end" in warning else "broken", f"is damaged ({warning})"
    return ("broken", "has a zeroed part") if has_hole(data, jpeg, surplus) else None


def parse_jpeg(data: bytes) -> JpegParts:
    """Read the segments of marker and length (ITU T.81 B.1).

    Raises:
        IndexError: the data ends within them.
    """
    jpeg, at = JpegParts(), 2
    for _ in range(MAX_SEGMENTS):
        if (found := MARKER.search(data, at)) is None:
            return jpeg
        marker, at = found[1][0], found.end()
        if marker == _EOI:
            jpeg.end = found.start()
            return jpeg
        if marker in _LONE:
            continue
        stop = at + max(2, int.from_bytes(data[at : at + 2], "big"))
        if marker != _SOS:
            _add_segment(jpeg, marker, data[at:stop])
            at = stop
            continue
        if len(jpeg.scans) == _MAX_SCANS:
            jpeg.excess = f"{_MAX_SCANS} scans"
            return jpeg
        at = _add_scan(jpeg, data, at, stop)
        if at < 0:
            return jpeg
    jpeg.excess = f"{MAX_SEGMENTS} segments"
    return jpeg


def _add_segment(jpeg: JpegParts, marker: int, segment: bytes) -> None:
    """Note a segment, from its length on, that is no scan."""
    body = segment[2:]
    if 0xC0 <= marker <= 0xCF and marker not in (_DHT, 0xC8, 0xCC):
        jpeg.frame, jpeg.precision = marker, body[0]
        jpeg.sizes.append((int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")))
        jpeg.components = [body[6 + 3 * number] for number in range(body[5])]
    elif marker == _DHT:
        jpeg.zero_symbols |= _zero_symbols(body)
    elif marker == _EXIF and body.startswith(_EXIF_MARK) and not jpeg.scans:  # decoders ignore a later one
        jpeg.exif.append(body[len(_EXIF_MARK) :])
    if marker not in (_COMMENT, *_APPLICATION):
        jpeg.segments.append(bytes([0xFF, marker]) + segment)


def _add_scan(jpeg: JpegParts, data: bytes, at: int, start: int) -> int:
    """Note a scan whose header is at an offset; return where the next marker is, or -1 if there is none."""
    body = data[at + 2 : start]
    scan = _scan(body, start)
    jpeg.scans.append(scan)
    single = jpeg.frame != _PROGRESSIVE and len(scan.components) == len(jpeg.components)
    scan.stop = data.find(b"\xff\xd9", start) if single else _next_marker(data, start)
    if jpeg.frame != _PROGRESSIVE:  # a decoder ignores these three bytes, but warns of odd ones
        body = body[:-3] + b"\0\x3f\0"
    if scan.stop >= 0:
        jpeg.segments += [b"\xff\xda", data[at : at + 2], body, data[start : scan.stop]]
    return scan.stop


def _next_marker(data: bytes, at: int) -> int:
    found = _MARKER_IN_SCAN.search(data, at)
    return found.start() if found else -1


def _scan(body: bytes, start: int) -> _Scan:
    count = body[0]
    tables = {body[1 + 2 * number]: body[2 + 2 * number] & 15 for number in range(count)}
    first, last, bits = body[1 + 2 * count], body[2 + 2 * count], body[3 + 2 * count]
    return _Scan(tables, first, last, bits >> 4, bits & 15, start)


def _zero_symbols(body: bytes) -> dict[int, int]:
    """Return the first symbol of each AC table of a DHT segment: codes count up from zero bits (ITU T.81 C)."""
    symbols, at = {}, 0
    while at + 17 < len(body):
        if body[at] >> 4:
            symbols[body[at] & 15] = body[at + 17]
        at += 17 + sum(body[at + 1 : at + 17])
    return symbols


def has_hole(data: bytes, jpeg: JpegParts, surplus: int) -> bool:
    """Return whether a scan has a run of zero bytes that no encoder writes: zero bits that mean detail, not flatness.

    Args:
        data: the JPEG.
        jpeg: its parts.
        surplus: zero bytes before the end marker that belong to no part of the picture.
    """
    for scan in jpeg.scans:
        codes_ac = scan.last > 0 and scan.high == 0
        means_detail = any(jpeg.zero_symbols.get(table, 0) & 15 for table in scan.components.values())
        if codes_ac and means_detail and data.find(_HOLE, scan.start, scan.stop - surplus) >= 0:
            return True
    return False


def _first_warning(data: bytes) -> str | None:
    """Return the first warning or error of libjpeg; None if there is none, or no strict decoder is installed."""
    decode = strict_decoder()
    if decode is None:
        return None
    try:
        decode(data, colorspace="GRAY", min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        return str(error)
    return None


@functools.cache
def strict_decoder() -> Callable[..., Any] | None:
    """Return simplejpeg's decoder, which raises ValueError where libjpeg warns; None, and a log entry, without it."""
    try:
        from simplejpeg import decode_jpeg
    except ImportError as error:
        log.warning("damaged JPEGs cannot be told from whole ones (%s); run: pip install simplejpeg", error)
        return None
    return decode_jpeg  # type: ignore[no-any-return]
