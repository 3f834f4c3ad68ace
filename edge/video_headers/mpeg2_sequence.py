"""Read whether an MPEG-2 video stream may be interlaced (ITU-T H.262 6.2.2)."""

from __future__ import annotations

_SEQUENCE_HEADER = b"\0\0\1\xb3"
_EXTENSION = b"\0\0\1\xb5"
_SEQUENCE_EXTENSION = 1  # in the first four bits
_PROGRESSIVE = 0x08  # in the second byte


def mpeg2_may_be_interlaced(extradata: bytes) -> bool:
    """Return whether the extra data of a stream are those of MPEG-2 and allow interlaced pictures."""
    if not extradata.startswith(_SEQUENCE_HEADER):
        return False
    extensions = [part for part in extradata.split(_EXTENSION)[1:] if len(part) > 1]
    return any(part[0] >> 4 == _SEQUENCE_EXTENSION and not part[1] & _PROGRESSIVE for part in extensions)
