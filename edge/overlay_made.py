"""What models made of the pictures of one taught thing, as the bytes of one file; pure.

    magic and version | SHA-256 of the rest | length of the header | header: JSON | the numbers, one after the other

Rules this module keeps:
1. Numbers are found by the picture's own digest and by what made them: a file that comes from elsewhere cannot mislead.
2. What does not have its checksum is not looked into.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import OverlayError

_MAGIC = b"finesight made 1\n"
_DIGEST = hashlib.sha256().digest_size
_LENGTH = 4  # bytes
_KINDS = {"float32": "<f4", "uint8": "|u1"}

Numbers = NDArray[Any]  # float32 or uint8
Made = dict[tuple[str, str], Numbers]  # by SHA-256 of the picture, and by what made them


def pack(made: Made) -> bytes:
    """The bytes of a file; the same numbers, the same bytes."""
    ordered = sorted(made.items())
    header = json.dumps([[*key, numbers.dtype.name, numbers.shape] for key, numbers in ordered]).encode()
    parts = [np.ascontiguousarray(numbers, _KINDS[numbers.dtype.name]).tobytes() for _, numbers in ordered]
    body = b"".join([len(header).to_bytes(_LENGTH, "little"), header, *parts])
    return _MAGIC + hashlib.sha256(body).digest() + body


def unpack(data: bytes, where: str) -> Made:
    """What a file holds.

    Raises:
        OverlayError: it is damaged, or of another version.
    """
    start = len(_MAGIC) + _DIGEST
    body = data[start:]
    if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        raise OverlayError(f"{where}: found {len(data)} bytes without their checksum, expected a whole file")
    made: Made = {}
    try:
        at = _LENGTH + int.from_bytes(body[:_LENGTH], "little")
        for picture, by, kind, shape in json.loads(body[_LENGTH:at]):
            numbers = np.frombuffer(body, _KINDS[kind], math.prod(shape), at).reshape(shape)
            made[picture, by] = numbers
            at += numbers.nbytes
    except (ValueError, TypeError, KeyError) as error:
        raise OverlayError(f"{where}: found a header that does not fit: {error!r}"[:300]) from error
    return made
