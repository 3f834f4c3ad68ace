"""Find which items of a category differ from those that are loaded: the index changes by those alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.gallery.store import CategoryItems
from edge.gallery.texts import Texts


@dataclass(frozen=True, slots=True)
class Digests:
    """What is loaded of a category, by item: 8 bytes and the id. They mean nothing in another process."""

    item_ids: Texts
    digests: NDArray[np.int64]  # (items,), of id, label, negative and vectors

    @classmethod
    def of(cls, items: CategoryItems) -> Digests:
        """Digest items whose rows are grouped by item.

        Python's own hash of bytes and texts is SipHash with a secret of the process: nobody can make an item that
        passes for another one.
        """
        rows = np.ascontiguousarray(items.vectors_i8).reshape(-1).view(np.uint8).data
        ends = np.cumsum(np.bincount(items.row_item, minlength=len(items.item_ids))) * items.vectors_i8.shape[1]
        parts = zip(items.item_ids, items.labels, items.negative.tolist(), _starts(ends), ends.tolist(), strict=True)
        found = (hash((item, label, no, bytes(rows[start:end]))) for item, label, no, start, end in parts)
        ids = items.item_ids if isinstance(items.item_ids, Texts) else Texts.of(items.item_ids)
        return cls(ids, np.fromiter(found, np.int64, len(items.item_ids)))


@dataclass(frozen=True, slots=True)
class Changes:
    """From the items that are loaded to those of a new store. A changed item is both removed and added."""

    removed: list[str]  # ids
    added: CategoryItems
    kept: int  # items
    digests: Digests  # of the new store


def find_changes(old: Digests, batches: Iterable[CategoryItems], most: int) -> Changes | None:
    """Compare what is loaded with the items of a new store; None if more than `most` rows are new.

    Args:
        old: what is loaded.
        batches: the items of the new store; of each batch, only what is new is kept.
        most: rows to keep.
    """
    known = np.sort(old.digests)
    added: list[CategoryItems] = []
    digests = [Digests(Texts.of([]), np.zeros(0, np.int64))]
    for batch in batches:
        digests.append(Digests.of(batch))
        is_new = ~_is_in(digests[-1].digests, known)
        if is_new.any() or not added:
            added.append(_selected(batch, is_new))
        if sum(len(one.row_item) for one in added) > most:
            return None
    found = Digests(Texts.joined(one.item_ids for one in digests), np.concatenate([one.digests for one in digests]))
    gone = np.flatnonzero(~_is_in(old.digests, np.sort(found.digests))).tolist()
    new = _joined(added)
    kept = len(found.digests) - len(new.item_ids)
    return Changes([old.item_ids[item] for item in gone], new, kept, found)


def _is_in(wanted: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which digests are among sorted ones."""
    if not len(known):
        return np.zeros(len(wanted), np.bool_)
    found: NDArray[np.bool_] = known[np.searchsorted(known, wanted).clip(max=len(known) - 1)] == wanted
    return found


def _joined(parts: Sequence[CategoryItems]) -> CategoryItems:
    first = np.cumsum([0, *(len(part.item_ids) for part in parts)]).tolist()
    return replace(
        parts[0],
        item_ids=Texts.of(one for part in parts for one in part.item_ids),
        labels=Texts.of(one for part in parts for one in part.labels),
        negative=np.concatenate([part.negative for part in parts]),
        vectors_i8=np.concatenate([part.vectors_i8 for part in parts]),
        scales=np.concatenate([part.scales for part in parts]),
        row_item=np.concatenate([part.row_item + np.int32(n) for part, n in zip(parts, first, strict=False)]),
    )


def _selected(items: CategoryItems, wanted: NDArray[np.bool_]) -> CategoryItems:
    """Return some of the items."""
    numbers = np.flatnonzero(wanted).tolist()
    rows = np.flatnonzero(wanted[items.row_item])
    return replace(
        items,
        item_ids=Texts.of(items.item_ids[item] for item in numbers),
        labels=Texts.of(items.labels[item] for item in numbers),
        negative=items.negative[wanted],
        vectors_i8=items.vectors_i8[rows],
        scales=items.scales[rows],
        row_item=(np.cumsum(wanted) - 1)[items.row_item[rows]].astype(np.int32),
    )


def _starts(ends: NDArray[np.int64]) -> list[int]:
    return [0, *ends[:-1].tolist()] if len(ends) else []
