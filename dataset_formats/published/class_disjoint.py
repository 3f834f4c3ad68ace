"""The class-disjoint splits of HDCL's Table 2 (Zeng et al. 2021): the first classes train, the others test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset_formats.folders import read_folders
from dataset_formats.records import Layout, Listing


@dataclass(frozen=True, slots=True)
class DisjointSplit:
    """How many of the classes train, and how many pictures each side has in print."""

    train_classes: int
    train_pictures: int
    test_pictures: int


# Flowers: the paper prints 60 and 60 classes, of 102 that there are. Its pictures, 3,493 and 4,696, are all 8,189 of
# the data set. So it must halve the classes, as it halves those of the other sets.
SPLITS: dict[Layout, DisjointSplit] = {
    "dogs": DisjointSplit(60, 10_651, 9_929),
    "aircraft": DisjointSplit(50, 5_000, 5_000),
    "flowers": DisjointSplit(51, 3_493, 4_696),
    "pets": DisjointSplit(19, 3_766, 3_583),
}


def split_by_class(listing: Listing, order: Sequence[str]) -> Listing:
    """Let the first classes of an order train and the others test; notice numbers of pictures unlike those in print."""
    how = SPLITS[listing.layout]
    training = frozenset(order[: how.train_classes])
    listing.samples = [replace(one, split="train" if one.item in training else "test") for one in listing.samples]
    train = sum(one.split == "train" for one in listing.samples)
    found = train, len(listing.samples) - train
    if found != (how.train_pictures, how.test_pictures):
        listing.noticed.append(
            f"the published split of {listing.layout} has {how.train_pictures} pictures to train and "
            f"{how.test_pictures} to test; found {found[0]} and {found[1]}"
        )
    return listing


def read_class_folders(
    folder: Path, layout: Layout, category: str, key: Callable[[str], Any], *, published: bool
) -> Listing:
    """Read a published data set that was stored as a folder for each class, in folders of splits or not.

    Args:
        folder: of the classes, or of the splits.
        layout: of the data set.
        category: of all classes.
        key: sorts the names of the classes as the data set numbers them.
        published: split by class; False: as the folders say, else every fifth picture is for validation.

    Raises:
        DataError: no picture is where a class would have it.
    """
    listing = read_folders(folder, category)
    listing.layout = layout
    listing.samples = [replace(one, category=category) for one in listing.samples]
    order = sorted({one.item for one in listing.samples}, key=key)
    return split_by_class(listing, order) if published else listing
