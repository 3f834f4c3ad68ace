"""Splits: stratified over the items, or with disjoint items; the same seed gives the same split."""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dataset_formats.records import AnnotatedPicture, Sample
from edge.errors import TrainError
from trainer.recipe_parts import Split

_LEAST = 3  # members that a stratum needs to be in several splits


def resplit(samples: Sequence[Sample], how: Split, near_duplicates: Mapping[str, str] | None = None) -> list[Sample]:
    """Split the pictures of single objects again.

    A stratified split keeps all crops of one picture together: the rarest item of a picture decides. In a published
    split, only the training classes are split, into training and validation.

    Args:
        samples: all samples of the data set.
        how: kind of split, and fractions.
        near_duplicates: by path, the first picture of its group of near duplicates, which stay together; None: split
            every picture on its own.

    Raises:
        TrainError: there is nothing to split, or no category has enough items.
    """
    pool = ["train"] if how.how == "published" else how.of
    chosen = [sample for sample in samples if sample.split in pool]
    if not chosen:
        raise TrainError(f"split: the data set has no picture of the splits {pool} to split again")
    test = 0.0 if how.how == "published" else how.test
    if how.how == "stratified":
        by_path: dict[str, set[str]] = defaultdict(set)
        for sample in chosen:
            by_path[str(sample.path)].add(f"{sample.category}/{sample.item}")
        to = _divide_pictures(by_path, how, near_duplicates)
        return [replace(s, split=to[str(s.path)]) if s.split in pool else s for s in samples]
    items = {f"{s.category}/{s.item}": s.category for s in chosen}
    to = assign_splits(items, how.val, test, how.seed)
    wanted = [split for split, fraction in (("val", how.val), ("test", test)) if fraction]
    if not set(wanted) <= set(to.values()):
        raise TrainError(f"split: no category has {_LEAST} items or more, which a class-disjoint split needs")
    return [replace(s, split=to[f"{s.category}/{s.item}"]) if s.split in pool else s for s in samples]


def resplit_pictures(
    scenes: Sequence[AnnotatedPicture], how: Split, near_duplicates: Mapping[str, str] | None = None
) -> list[AnnotatedPicture]:
    """Split whole pictures again, stratified by the rarest item of each; pictures without objects are one stratum.

    The same seed gives each picture the split that its crops have.

    Raises:
        TrainError: the split is not stratified; a whole picture may show several items.
    """
    if how.how != "stratified":
        raise TrainError(f"split: found how {how.how!r} for scenes, expected 'stratified'")
    chosen = [scene for scene in scenes if scene.split in ("", *how.of)]
    by_path = {str(s.path): {f"{box.category}/{box.item}" for box in s.boxes} for s in chosen}
    to = _divide_pictures(by_path, how, near_duplicates)
    return [replace(scene, split=to.get(str(scene.path), scene.split)) for scene in scenes]


def _divide_pictures(
    by_path: Mapping[str, set[str]], how: Split, near_duplicates: Mapping[str, str] | None
) -> dict[str, str]:
    """Return the split of each picture from its items; near duplicates count as one picture."""
    stands_for = {path: (near_duplicates or {}).get(path, path) for path in by_path}
    groups: dict[str, set[str]] = defaultdict(set)
    for path, items in by_path.items():
        groups[stands_for[path]] |= items
    to = assign_splits(_rarest_items(groups), how.val, how.test, how.seed)
    return {path: to[representative] for path, representative in stands_for.items()}


def _rarest_items(by_path: dict[str, set[str]]) -> dict[str, str]:
    counts = Counter(item for items in by_path.values() for item in items)
    return {path: min(items, key=lambda item: (counts[item], item), default="") for path, items in by_path.items()}


def assign_splits(stratum_of: dict[str, str], val: float, test: float, seed: int) -> dict[str, str]:
    """Assign `train`, `val` or `test` to every member.

    Every wanted split gets at least one member of a stratum of three or more; a smaller stratum is all training. The
    draw in one stratum does not depend on the others.

    Args:
        stratum_of: the stratum of each member.
        val: fraction of each stratum for validation.
        test: fraction of each stratum for test.
        seed: seed of the random draw.
    """
    if val + test >= 1.0:
        raise TrainError(f"split: val {val:g} and test {test:g} together must be less than 1")
    members: dict[str, list[str]] = defaultdict(list)
    for member, stratum in stratum_of.items():
        members[stratum].append(member)
    to = {}
    for stratum, listed in members.items():
        order = np.random.default_rng([seed, zlib.crc32(stratum.encode())]).permutation(len(listed))
        drawn = [sorted(listed)[i] for i in order]
        for_test = min(_count(len(listed), test), len(listed) - 1)
        for_val = min(_count(len(listed), val), len(listed) - for_test - 1)
        for number, member in enumerate(drawn):
            to[member] = "val" if number < for_val else "test" if number < for_val + for_test else "train"
    return to


def _count(total: int, fraction: float) -> int:
    return max(1, round(total * fraction)) if fraction and total >= _LEAST else 0
