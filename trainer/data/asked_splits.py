"""The splits that a command asks for: an absent one is an error that lists those there are, never an empty choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dataset_formats.records import AnnotatedPicture, Sample
from dataset_formats.splits import find_split
from edge.errors import TrainError
from trainer.data.dataset import choose
from trainer.data.detection_sample import DetectionSample

CATALOGUE = "catalogue"  # the split of reference pictures
Scene = TypeVar("Scene", AnnotatedPicture, DetectionSample)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The samples of some splits."""

    samples: list[Sample]  # split by split, in the order of the names
    splits: tuple[str, ...]
    why: str = ""  # why these splits, where nobody asked for them and it is not the usual choice


def asked_splits(names: str, present: Sequence[str], source: Path, option: str) -> tuple[str, ...]:
    """Return the splits that comma-separated names stand for; `Validation` stands for `val`, too.

    Args:
        names: as a person wrote them.
        present: the split of each picture.
        source: the data set, for the message.
        option: where the names were given, for the message.

    Raises:
        TrainError: the data set has no such split; the message lists those it has.
    """
    counts = Counter(present)
    found = {}
    for name in dict.fromkeys(part.strip() for part in names.split(",")):
        split = find_split(name, counts)
        if split is None:
            listed = ", ".join(f"{one} ({count} pictures)" for one, count in sorted(counts.items()))
            raise TrainError(f"{source}: no picture belongs to split {name!r}; there are {listed}; check {option}")
        found[split] = name
    return tuple(found)


def choose_asked(samples: Sequence[Sample], names: str, source: Path, option: str) -> Chosen:
    """Return the samples of the splits that a command asks for.

    Raises:
        TrainError: the data set has no such split; the message lists those it has.
    """
    splits = asked_splits(names, [sample.split for sample in samples], source, option)
    return Chosen([sample for split in splits for sample in choose(samples, [split])], splits)


def scenes_of_splits(scenes: Sequence[Scene], asked: str | None, source: Path) -> list[Scene]:
    """Return the scenes of the splits asked for, else of `val`, else of `test`; and those of no split.

    A data set without splits is used as a whole.

    Raises:
        TrainError: the data set has no such split; the message lists those it has.
    """
    present = [scene.split for scene in scenes if scene.split]
    if not present:
        return list(scenes)
    asked = asked or ("test" if "val" not in present and "test" in present else "val")
    splits = asked_splits(asked, present, source, "--query")
    return [scene for scene in scenes if not scene.split or scene.split in splits]


def choose_queries(samples: Sequence[Sample], asked: str | None, source: Path) -> Chosen:
    """Return the pictures to recognise: those asked for, else `val`, else `test`, else `query`.

    Raises:
        TrainError: the data set has no such split.
    """
    if asked is None and not _has(samples, "val"):
        for split in ("test", "query"):
            if _has(samples, split):
                why = f"there is no split 'val': {split!r} holds the queries"
                return Chosen(choose(samples, [split]), (split,), why)
    return choose_asked(samples, asked or "val", source, "--query")


def choose_gallery(samples: Sequence[Sample], asked: str | None, queries: Chosen, source: Path) -> Chosen:
    """Return the pictures to find: those asked for, else `catalogue`, else `train`, else the queries themselves.

    Where the data set has a split `query` and it holds the queries, its split `gallery` is the gallery.

    `train` is no gallery for queries that show other items: in a class-disjoint split the queries are searched among
    each other.

    Raises:
        TrainError: the data set has no such split.
    """
    if asked is not None or _has(samples, CATALOGUE):
        return choose_asked(samples, asked or CATALOGUE, source, "--gallery")
    if queries.splits == ("query",) and _has(samples, "gallery"):
        return Chosen(choose(samples, ["gallery"]), ("gallery",))
    training = choose(samples, ["train"])
    if {(s.category, s.item) for s in training} & {(s.category, s.item) for s in queries.samples}:
        return Chosen(training, ("train",), f"there is no split {CATALOGUE!r}: 'train' is the gallery")
    why = f"there is no split {CATALOGUE!r}, and 'train' shows none of the items: the queries are the gallery"
    return Chosen(queries.samples, queries.splits, why)


def choose_references(samples: Sequence[Sample], asked: str | None, source: Path) -> Chosen:
    """Return the pictures to embed: those asked for, else `catalogue`, else `train`.

    Raises:
        TrainError: the data set has no such split.
    """
    if asked is None and not _has(samples, CATALOGUE) and _has(samples, "train"):
        return Chosen(choose(samples, ["train"]), ("train",), f"there is no split {CATALOGUE!r}: 'train' is embedded")
    return choose_asked(samples, asked or CATALOGUE, source, "--split")


def _has(samples: Sequence[Sample], split: str) -> bool:
    return any(sample.split == split for sample in samples)
