"""The live root of a category: one number that stands for all its live items, whatever their order.

It is the sum of the SHA-256 of each item's record, modulo 2^256: a change adds and subtracts the items that changed.
Two stores with the same items have the same root, whichever way they came there. The role `gallery` signs the root of
every state, so a device that came to another one knows. The root finds mistakes and forks. What keeps an attacker out
is the signed SHA-256 of each base and segment: with many items of his own choice, somebody could make an equal sum.
"""

from __future__ import annotations

from pathlib import Path

from gallery_sync.gallery_log.records import digest
from gallery_sync.gallery_log.store_records import read_records

MODULUS = 1 << 256
EMPTY = "0" * 64  # of a category without items


def root_text(number: int) -> str:
    """Return a root as documents and stores name it: 64 hexadecimal digits.

    >>> root_text(-1) == "f" * 64
    True
    """
    return f"{number % MODULUS:064x}"


def root_number(text: str) -> int:
    """Return the number of a root."""
    return int(text, 16)


def of_store(path: Path) -> str:
    """Return the live root of a store from all its items; reads the store once, an item at a time.

    Raises:
        GalleryError: the store is damaged.
    """
    return root_text(sum(digest(record) for record in read_records(path)))
