"""What several formats do to fill a listing."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_formats.listings import add_scenes, drop_repeated_boxes, finish, settle_splits
from dataset_formats.records import AnnotatedPicture, Annotation, Listing, NamedBox
from edge.errors import DataError


def test_box_of_one_picture_that_is_listed_twice_is_kept_once():
    box, other = NamedBox((0, 0, 4, 4), "plum"), NamedBox((0, 0, 4, 4), "fig")
    scenes = [
        AnnotatedPicture(Path("a.png"), "train", (box, other, NamedBox((0.0, 0, 4, 4), "plum", score=0.5))),
        AnnotatedPicture(Path("b.png"), "train", (box,)),
    ]
    kept, noticed = drop_repeated_boxes(scenes)
    assert [scene.boxes for scene in kept] == [(box, other), (box,)]
    assert noticed == ["pictures that list one box twice; each was read once: 1 (a.png)"]


def test_repeated_boxes_are_dropped_from_annotations_too():
    box = NamedBox((0, 0, 4, 4), "plum")
    kept, noticed = drop_repeated_boxes([Annotation("a.png", (box, box)), Annotation("b.png", ())])
    assert [one.boxes for one in kept] == [(box,), ()]
    assert len(noticed) == 1


def test_picture_that_two_records_mean_is_left_out_by_both():
    listing = Listing("cvat")
    found = [("x", Annotation("x", ()), Path("a.png")), ("y", Annotation("y", ()), Path("a.png"))]
    add_scenes(listing, [*found, ("z", Annotation("z", (), "val"), Path("b.png")), ("q", Annotation("q", ()), "gone")])
    assert listing.scenes == [AnnotatedPicture(Path("b.png"), "val", ())]
    assert [line.partition(":")[0] for line in listing.left_out] == ["q", "x", "y"]


def test_pictures_without_a_split_are_left_out_beside_others():
    listing = Listing("voc", scenes=[AnnotatedPicture(Path(name), name, ()) for name in ("", "val")])
    settle_splits(listing)
    assert [scene.split for scene in listing.scenes] == ["val"]
    assert len(listing.left_out) == 1


def test_listing_without_pictures_names_the_first_record():
    with pytest.raises(DataError, match=r"set: no picture can be used; the first: a\.xml: broken"):
        finish(Listing("voc", left_out=["a.xml: broken"]), Path("set"), "is empty")
    with pytest.raises(DataError, match="set: is empty"):
        finish(Listing("voc"), Path("set"), "is empty")
