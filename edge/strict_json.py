"""Read JSON documents that come from outside the device.

Rules this module keeps:
1. A document is bounded in bytes and in depth before it is parsed, so that none exhausts the memory or the stack.
2. Keys are unique, numbers are finite, and text can be written again as UTF-8.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

MAX_DEPTH = 32
_MAX_DIGITS = 19  # of an integer: as many as 64 bits hold
_TOO_LARGE = 10**_MAX_DIGITS
_PLAIN = json.JSONDecoder()
_PLAIN_DEPTH = 3  # a list of objects of objects


def parse_json(data: bytes | str, max_bytes: int, max_depth: int = MAX_DEPTH) -> Any:
    """Parse a JSON document.

    Args:
        data: UTF-8.
        max_bytes: of the document.
        max_depth: of lists and objects in each other.

    Raises:
        ValueError: it is too large or too deep, or breaks rule 2; the message is one line.
    """
    try:
        encoded = data.encode() if isinstance(data, str) else data
        if len(encoded) > max_bytes:
            raise ValueError(f"found {len(encoded)} bytes of JSON, expected {max_bytes} at most")
        opened = encoded.count(b"[") + encoded.count(b"{")  # which is cheap to count, and no less than the depth
        if opened > max_depth and (depth := _depth(encoded)) > max_depth:
            raise ValueError(f"found JSON {depth} levels deep, expected {max_depth} at most")
        parsed = _DECODER.decode(encoded.decode())
        if b"\\ud" in encoded.lower():  # half of a surrogate pair is not text
            json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeError:
        raise ValueError("found text that is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"Invalid JSON: {error.msg}, line {error.lineno} column {error.colno}") from None
    return parsed


def parse_plain_objects(texts: Sequence[Any], max_bytes: int) -> list[dict[str, Any]] | None:
    """Parse many documents at once, several times as fast as one by one.

    They are objects of plain texts and numbers, and of objects of such. There are as many objects as braces, so no
    brace is in a text. Each document has as many braces of each kind, first and last, and there are as many outer
    objects as documents: so none reaches into the next one. With as many colons as keys, no key is there twice.

    Args:
        texts: the documents.
        max_bytes: of each.

    Returns:
        an object for each; None: one is something else or breaks a rule. `parse_json` finds which.
    """
    if not all(type(text) is str and text[:1] == "{" and text[-1:] == "}" for text in texts):
        return None
    joined = f"[{','.join(texts)}]"
    is_plain = (
        joined.isascii()
        and "\\" not in joined
        and joined.count("[") == 1
        and max(map(len, texts), default=0) <= max_bytes
        and all(text.count("{") == text.count("}") for text in texts)
        and _depth(joined.encode()) <= _PLAIN_DEPTH
    )
    if not is_plain:
        return None
    try:
        found: list[dict[str, Any]] = _PLAIN.decode(joined)
    except ValueError:
        return None
    inner = [one for each in found for one in each.values() if type(one) is dict]
    numbers = [one for each in (*found, *inner) for one in each.values() if type(one) is int or type(one) is float]
    are_plain = (
        len(found) == len(texts)
        and joined.count("{") == len(found) + len(inner)
        and joined.count(":") == sum(map(len, found)) + sum(map(len, inner))
        and all(-_TOO_LARGE < one < _TOO_LARGE for one in numbers)
    )
    return found if are_plain else None


def _depth(encoded: bytes) -> int:
    """Return how deep lists and objects are in each other; too much only where a document is not JSON."""
    without_escapes = encoded.replace(b"\\\\", b"").replace(b'\\"', b"")
    characters = np.frombuffer(without_escapes, np.uint8)
    in_text = np.bitwise_xor.accumulate(characters == ord('"'))
    outside = characters[~in_text]
    opening = (outside == ord("[")) | (outside == ord("{"))
    closing = (outside == ord("]")) | (outside == ord("}"))
    steps = opening.astype(np.int8) - closing.astype(np.int8)
    return int(np.cumsum(steps[steps != 0], dtype=np.int64).max(initial=0))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"found the key {twice[:80]!r} twice, expected each key once")
    return found


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"found a number of {len(text)} digits, expected {_MAX_DIGITS} at most")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"found the number {text[:40]}, expected a finite one")
    return number


# one for all documents: a gallery has a document for each item
_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_finite, parse_int=_integer, parse_float=_finite)
