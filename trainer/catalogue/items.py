"""The items of a catalogue, in the order of the gallery, and the shard that each belongs to."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset_formats.notices import printable
from dataset_formats.records import Sample
from edge.errors import TrainError
from edge.file_names import file_name
from edge.types import Box

_MAX_ID_CHARACTERS = 200  # an event holds at most 256


@dataclass(frozen=True, slots=True)
class CataloguePicture:
    """One picture of an item."""

    path: str  # or URL
    split: str
    box_px: Box | None = None  # where the object is; None: the whole picture


@dataclass(frozen=True, slots=True)
class CatalogueItem:
    """An item and its pictures."""

    category: str
    item_id: str
    label: str
    negative: bool  # an object that is nearest to it is not named
    pictures: tuple[CataloguePicture, ...]
    attributes: tuple[tuple[str, str], ...] = ()  # name and value, sorted: what all its pictures that tell any agree on

    @property
    def order(self) -> tuple[str, str]:
        """By which the items of a gallery are sorted."""
        return self.category, self.item_id


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several equal parts of a catalogue."""

    number: int = 1  # 1..of
    of: int = 1

    def __str__(self) -> str:
        """Return it as `--shard` takes it."""
        return f"{self.number}/{self.of}"


def parse_shard(text: str) -> Shard:
    """Parse `2/16`.

    Raises:
        TrainError: it is no such pair, or the number is not from 1 to the count.
    """
    number, slash, of = text.partition("/")
    if not slash or not number.isdecimal() or not of.isdecimal() or not 1 <= int(number) <= int(of):
        raise TrainError(f"--shard: found {text!r}, expected i/n with i from 1 to n, such as 2/16")
    return Shard(int(number), int(of))


def shard_of(item: CatalogueItem, of: int) -> int:
    """Return the shard of an item, 1..of: by a hash of its category and id, the same on every machine."""
    name = f"{item.category}\0{item.item_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") % of + 1


def collect_items(
    samples: Iterable[Sample],
    negatives: Sequence[str] = (),
    per_item: int | None = None,
    where: Callable[[Path], str] = str,
) -> list[CatalogueItem]:
    """Group pictures by item, in the order of the gallery.

    Args:
        samples: pictures of every item, in their order.
        negatives: splits of negative pictures.
        per_item: most pictures of an item to use; None: all.
        where: returns the path or URL of a picture.
    """
    by_item: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        by_item[sample.category, sample.item].append(sample)
    items = [
        CatalogueItem(
            category,
            item_id_of(item),
            printable(listed[0].label or item),
            listed[0].split in negatives,
            tuple(CataloguePicture(where(one.path), one.split, one.box_px) for one in listed[:per_item]),
            common_attributes(listed),
        )
        for (category, item), listed in by_item.items()
    ]
    return sorted(items, key=lambda item: item.order)


def common_attributes(samples: Sequence[Sample]) -> tuple[tuple[str, str], ...]:
    """Return the attributes of an item, sorted: those that its pictures do not contradict."""
    values: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        for name, value in sample.attributes:
            values[name].add(value)
    return tuple((name, next(iter(found))) for name, found in sorted(values.items()) if len(found) == 1)


def item_id_of(name: str) -> str:
    """Return the id of an item in galleries and events: its printable name, or a file name for a very long one."""
    name = printable(name)
    return name if len(name) <= _MAX_ID_CHARACTERS else file_name(name)


def listing_digest(items: Sequence[CatalogueItem]) -> str:
    """Return a hash of what a catalogue lists; folders may lie elsewhere on another machine, so names alone count."""
    digest = hashlib.sha256()
    for item in items:
        pictures = [(one.path.rpartition("/")[2], one.split, one.box_px) for one in item.pictures]
        further = [item.attributes] if item.attributes else []
        digest.update(json.dumps([*item.order, item.label, item.negative, pictures, *further]).encode())
    return digest.hexdigest()
