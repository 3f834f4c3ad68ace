"""Pictures that look the same, joined: what a split must not tear apart."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edge.errors import CaptureError
from trainer.duplicates import Print, fingerprint, groups_of, near_pairs
from trainer.picture import read_picture


def join_alike(paths: Iterable[Path]) -> dict[str, str]:
    """For every picture that looks like another, the first of all that do; those that cannot be read are left out."""
    distinct = sorted(set(paths))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        looks = list(pool.map(_look, distinct))
    read = [(str(path), look) for path, look in zip(distinct, looks, strict=True) if look is not None]
    pairs, _ = near_pairs([look for _, look in read])
    return {read[member][0]: read[group[0]][0] for group in groups_of(pairs, len(read)) for member in group}


def _look(path: Path) -> Print | None:
    try:
        return fingerprint(read_picture(path)[0])
    except CaptureError:
        return None  # told when it is loaded
