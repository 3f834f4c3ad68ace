"""Read whether an H.264 stream may be interlaced, and its frame rate (ITU-T H.264 7.3.2.1)."""

from __future__ import annotations

from dataclasses import dataclass

_SPS = 7  # NAL unit type of a sequence parameter set
_WITH_CHROMA = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})  # profiles
_EXTENDED_SAR = 255
_MAX_RATE_HZ = 1000.0


@dataclass(frozen=True, slots=True)
class H264Parameters:
    """What the first sequence parameter set of a stream says."""

    may_be_interlaced: bool  # it allows fields; whether a picture has them, only that picture says
    rate_hz: float | None  # frames per second, None: not given


class _Bits:
    """Reads the bits of a parameter set, without its emulation prevention bytes.

    Raises:
        EOFError: the data end too early.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data.replace(b"\0\0\3", b"\0\0"), 0

    def take(self, count: int) -> int:
        """Return an unsigned number of so many bits."""
        if self._at + count > 8 * len(self._data):
            raise EOFError
        first, last = self._at // 8, (self._at + count + 7) // 8
        number = int.from_bytes(self._data[first:last], "big") >> (8 * last - self._at - count)
        self._at += count
        return number & ((1 << count) - 1)

    def ue(self) -> int:
        """Return an unsigned Exp-Golomb number (9.1)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise EOFError
        return (1 << zeros) - 1 + self.take(zeros)

    def se(self) -> int:
        """Return a signed Exp-Golomb number (9.1.1)."""
        number = self.ue()
        return (number + 1) // 2 if number % 2 else -(number // 2)


def read_h264_parameters(extradata: bytes) -> H264Parameters | None:
    """Read the extra data of a stream, as Annex B or as in MP4 (avcC); None if it holds no readable parameter set."""
    unit = _first_sps(extradata)
    if unit is None:
        return None
    try:
        return _read_sps(_Bits(unit[1:]))
    except EOFError:
        return None


def _first_sps(data: bytes) -> bytes | None:
    if data[:1] == b"\1" and len(data) > 8 and data[5] & 0x1F:  # avcC: the first unit has a length of two bytes
        return data[8 : 8 + int.from_bytes(data[6:8], "big")]
    units = data.split(b"\0\0\1")[1:]
    return next((unit for unit in units if unit and unit[0] & 0x1F == _SPS), None)


def _read_sps(bits: _Bits) -> H264Parameters:
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    bits.ue()
    if profile in _WITH_CHROMA:
        _skip_chroma(bits)
    bits.ue()
    order_type = bits.ue()
    if order_type == 0:
        bits.ue()
    elif order_type == 1:
        bits.take(1)
        bits.se(), bits.se()
        for _ in range(min(bits.ue(), 255)):
            bits.se()
    bits.ue(), bits.take(1), bits.ue(), bits.ue()  # reference frames, gaps, size in macroblocks
    frames_only = bits.take(1)
    if not frames_only:
        bits.take(1)
    bits.take(1)
    if bits.take(1):  # cropping
        bits.ue(), bits.ue(), bits.ue(), bits.ue()
    return H264Parameters(not frames_only, _read_rate(bits))


def _skip_chroma(bits: _Bits) -> None:
    chroma = bits.ue()
    if chroma == 3:
        bits.take(1)
    bits.ue(), bits.ue(), bits.take(1)
    if bits.take(1):  # scaling matrices
        for i in range(8 if chroma != 3 else 12):
            if bits.take(1):
                _skip_scaling(bits, 16 if i < 6 else 64)


def _skip_scaling(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _read_rate(bits: _Bits) -> float | None:
    """Read the usability information up to the frame rate (annex E)."""
    try:
        if not bits.take(1):
            return None
        if bits.take(1) and bits.take(8) == _EXTENDED_SAR:
            bits.take(32)
        if bits.take(1):
            bits.take(1)
        if bits.take(1):
            bits.take(4)
            if bits.take(1):
                bits.take(24)
        if bits.take(1):
            bits.ue(), bits.ue()
        if not bits.take(1):
            return None
        units, scale = bits.take(32), bits.take(32)
    except EOFError:
        return None
    rate_hz = scale / (2 * units) if units else 0.0  # a tick is a field
    return rate_hz if 0 < rate_hz <= _MAX_RATE_HZ else None
