"""Splits: seeded, even, and disjoint if the recipe says so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dataset_formats.records import AnnotatedPicture, NamedBox, Sample
from edge.errors import TrainError
from trainer.data.split import assign_splits, resplit, resplit_pictures
from trainer.recipe_parts import Split


def samples(items: dict[str, int], category: str = "jar") -> list[Sample]:
    return [
        Sample(Path(f"{item}-{n}.png"), "train", category, item) for item, count in items.items() for n in range(count)
    ]


def test_every_item_with_enough_pictures_is_in_every_split():
    new = resplit(samples({"plum": 20, "pear": 5, "rare": 2}), Split(how="stratified", val=0.2, test=0.1))
    counts = Counter((s.item, s.split) for s in new)
    assert {k: n for k, n in counts.items() if k[0] == "plum"} == {
        ("plum", "train"): 14,
        ("plum", "val"): 4,
        ("plum", "test"): 2,
    }
    assert {k: n for k, n in counts.items() if k[0] == "pear"} == {
        ("pear", "train"): 3,
        ("pear", "val"): 1,
        ("pear", "test"): 1,
    }
    assert counts["rare", "train"] == 2


def test_same_seed_gives_the_same_split_in_any_order():
    listed = samples({"plum": 20, "pear": 20})
    how = Split(how="stratified", seed=3)
    one = {s.path: s.split for s in resplit(listed, how)}
    assert one == {s.path: s.split for s in resplit(listed[::-1], how)}
    assert one != {s.path: s.split for s in resplit(listed, how.model_copy(update={"seed": 4}))}


def test_another_class_does_not_change_the_split_of_others():
    how = Split(how="stratified")
    few, more = resplit(samples({"plum": 20}), how), resplit(samples({"plum": 20, "pear": 9}), how)
    assert [s.split for s in few] == [s.split for s in more[:20]]


def test_classes_are_disjoint_within_every_category():
    listed = [*samples({f"plum-{i}": 3 for i in range(10)}), *samples({f"car-{i}": 2 for i in range(5)}, "car")]
    new = resplit(listed, Split(how="class_disjoint", val=0.2, test=0.2))
    by_split = {split: {(s.category, s.item) for s in new if s.split == split} for split in ("train", "val", "test")}
    assert [len(items) for items in by_split.values()] == [9, 3, 3]
    assert len(set.union(*by_split.values())) == 15
    assert dict(Counter(category for category, _ in by_split["val"])) == {"jar": 2, "car": 1}


def test_catalogue_pictures_are_not_split():
    listed = [*samples({"plum": 5}), Sample(Path("p.png"), "catalogue", "jar", "plum")]
    assert resplit(listed, Split(how="stratified"))[-1].split == "catalogue"


def test_crops_of_one_picture_stay_together():
    listed = [Sample(Path(f"{n}.png"), "train", "jar", item) for n in range(20) for item in ("plum", "pear")]
    new = resplit(listed, Split(how="stratified", val=0.3))
    assert len({(s.path, s.split) for s in new}) == 20
    assert sum(s.split == "val" for s in new) == 12


def test_scenes_are_split_by_their_rarest_object():
    box = (0.0, 0.0, 1.0, 1.0)
    scenes = [
        AnnotatedPicture(Path(f"{n}"), "train", (NamedBox(box, "plum"), NamedBox(box, "rare" if n < 5 else "pear")))
        for n in range(20)
    ]
    held = [s for s in resplit_pictures(scenes, Split(how="stratified", val=0.2)) if s.split == "val"]
    assert dict(Counter(s.boxes[1].item for s in held)) == {"rare": 1, "pear": 3}
    with pytest.raises(TrainError, match="'class_disjoint' for scenes, expected 'stratified'"):
        resplit_pictures(scenes, Split(how="class_disjoint"))


def test_scene_and_its_crops_get_the_same_split():
    box = (0.0, 0.0, 1.0, 1.0)
    names = ["plum", "pear", "fig"]
    scenes = [
        AnnotatedPicture(Path(f"{n}"), "train", (NamedBox(box, names[n % 3]), NamedBox(box, names[n % 2])))
        for n in range(30)
    ]
    crops = [Sample(s.path, "train", b.category, b.item, box_px=box) for s in scenes for b in s.boxes]
    how = Split(how="stratified", val=0.3, test=0.1, seed=1)
    of_scene = {scene.path: scene.split for scene in resplit_pictures(scenes, how)}
    assert {crop.path: crop.split for crop in resplit(crops, how)} == of_scene
    assert set(of_scene.values()) == {"train", "val", "test"}


def test_split_without_training_pictures_is_rejected():
    with pytest.raises(TrainError, match="together must be less than 1"):
        assign_splits({"a": "x"}, 0.5, 0.5, 0)
    assert "train" in assign_splits({str(n): "x" for n in range(3)}, 0.6, 0.39, 0).values()
    with pytest.raises(TrainError, match="no category has 3 items"):
        resplit(samples({"plum": 5, "pear": 5}), Split(how="class_disjoint"))
    with pytest.raises(TrainError, match="has no picture of the splits"):
        resplit(samples({"plum": 5}), Split(how="stratified", of=["test"]))
