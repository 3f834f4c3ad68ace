"""Decides what to do with the photos there are in the minutes there are: a pure function of counts and speeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from dataset_formats.records import Sample

FEW_PER_ITEM = 5  # photos of the middle item: with fewer, nothing is trained
FEW_PHOTOS = 100
ENOUGH_PER_ITEM = 10  # advice to people
# Of the network's input on the device, and in training. Training on smaller canvases makes up for crops that zoom in
# (Touvron et al. 2019). Groceries at 128 px, trained at 96: Recall@1 66.6 %; at 96 px, trained at 96: 63.2 %
# (2026-11-28, one seed, 296 queries).
_SIZES_PX = ((256, 192), (224, 160), (192, 128), (160, 128), (128, 96))
_GENERAL_PX = 224
_EPOCHS, _LEAST_EPOCHS, _MOST_EPOCHS = 18, 6, 30  # wanted at a size, needed at the smallest, no gain beyond
_FIXED_S = 60.0  # for starting, packing and the page
_SPENT = 0.85  # share of the rest that is planned: machines are shared
_REFERENCE_PX = 128
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Photos:
    """The counts of a set of photos."""

    categories: int
    items: int
    photos: int
    alone: int  # items with one photo
    median: float  # photos of the middle item

    @property
    def told(self) -> str:
        """Return the counts in words."""
        groups = many(self.categories, "category", "categories")
        return f"{many(self.items, 'item')} in {groups}, from {many(self.photos, 'photo')}"

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Photos:
        """Count the photos of each item."""
        counts = sorted(Counter((s.category, s.item) for s in samples).values())
        middle = (counts[(len(counts) - 1) // 2] + counts[len(counts) // 2]) / 2
        return cls(len({s.category for s in samples}), len(counts), len(samples), counts.count(1), middle)


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of a network on this machine, at 128x128 pixels; time grows with the number of pixels."""

    train_s: float  # to train on one photo
    embed_s: float  # to embed one photo

    def at(self, px: int) -> Speed:
        """Return the speed at another size."""
        factor = (px / _REFERENCE_PX) ** 2
        return Speed(self.train_s * factor, self.embed_s * factor)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do."""

    how: Literal["general", "trained"]  # general: published features, nothing trained
    px: int  # width and height of the network's input
    train_px: int  # the same in training
    epochs: int  # 0: nothing is trained
    minutes: int  # that it will take
    why: str


def make_plan(photos: Photos, speed: Speed, minutes: float) -> Plan:
    """Choose between training and published features, and the size and epochs that fit the time.

    Args:
        photos: counts of the photos to learn from.
        speed: of the network on this machine.
        minutes: allowed for everything.
    """
    examine_s = 6 * photos.photos * speed.at(_GENERAL_PX).embed_s + _FIXED_S
    general = Plan("general", _GENERAL_PX, _GENERAL_PX, 0, math.ceil(examine_s / 60), "")
    if photos.items < 2:
        return replace(general, why="there is one item, and telling items apart takes two")
    if photos.median < FEW_PER_ITEM or photos.photos < FEW_PHOTOS:
        return replace(
            general,
            why=f"{photos.photos} photos are too few to train on: that takes {FEW_PHOTOS} photos and {FEW_PER_ITEM} of "
            "most items",
        )
    for px, train_px in _SIZES_PX:
        examine_s = 6 * photos.photos * speed.at(px).embed_s + _FIXED_S
        epoch_s = photos.photos * speed.at(train_px).train_s
        epochs = int(_SPENT * (60 * minutes - examine_s) / epoch_s)
        if epochs >= (_LEAST_EPOCHS if px == _SIZES_PX[-1][0] else _EPOCHS):
            epochs = min(epochs, _MOST_EPOCHS)
            spent_s = epochs * epoch_s + examine_s
            why = f"{epochs} epochs at {px} px fit the time"
            return Plan("trained", px, train_px, epochs, math.ceil(spent_s / 60), why)
    return replace(general, why=f"{minutes:g} minutes are too few to train on {photos.photos} photos here")


def advice(samples: Sequence[Sample], most: int = 8) -> list[str]:
    """Say what to photograph next, the items with the fewest photos first."""
    counts = Counter((s.category, s.item) for s in samples)
    labels = distinct_labels({(s.category, s.item): s for s in samples})
    short = sorted((count, labels[item]) for item, count in counts.items() if count < ENOUGH_PER_ITEM)
    lines = [f"{label}: {many(count, 'photo')}; take {ENOUGH_PER_ITEM - count} more" for count, label in short]
    rest = len(lines) - most
    return [*lines[:most], f"and {rest} more with fewer than {ENOUGH_PER_ITEM} photos"] if rest > 0 else lines


def distinct_labels(shown: Mapping[T, Sample]) -> dict[T, str]:
    """Return the names of items for people: their labels, but where several have one label, the names of the items."""
    labels = {key: one.label or one.item for key, one in shown.items()}
    times = Counter(labels.values())
    return {key: label if times[label] == 1 else shown[key].item for key, label in labels.items()}


def many(count: int, one: str, several: str = "") -> str:
    """Return a count and its noun: `1 photo`, `2 photos`."""
    return f"{count} {one if count == 1 else several or one + 's'}"
