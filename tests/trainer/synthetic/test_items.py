"""The synthetic items, and invented ones: distinct, and the same for one seed."""

from __future__ import annotations

import csv
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from edge.errors import TrainError
from trainer.synthetic.items import CATEGORIES, appearance_of, catalogue, invent_items
from trainer.synthetic.render import sprite
from trainer.synthetic.shading import Light
from trainer.synthetic.solid import View
from trainer.synthetic.write_dataset import write_dataset

ITEMS = catalogue()
FRONT = View(yaw=0.0, pitch=0.08, light=Light(-0.5, fill=0.5, shine=1.0))
QUARTER = View(yaw=0.75, pitch=0.02, light=Light(-0.5, fill=0.5, shine=1.0))


@pytest.mark.parametrize("category", CATEGORIES)
def test_each_category_has_a_dozen_items_with_unique_ids(category: str) -> None:
    mine = [item for item in ITEMS if item.category == category]
    assert len(mine) >= 12
    assert len({item.label for item in mine}) == len({item.item_id for item in mine}) == len(mine)
    assert all(item.item_id.startswith(f"{category}-") for item in mine)


@pytest.mark.parametrize("category", CATEGORIES)
def test_no_two_items_of_a_category_look_the_same(category: str) -> None:
    """From one viewpoint and in one light, at least 1.5 % of the pixels differ clearly."""
    view = QUARTER if category == "car" else FRONT
    pictures = {}
    for item in (item for item in ITEMS if item.category == category):
        picture = sprite(item, view, 72)
        canvas = np.zeros((96, 260, 4), dtype=np.int16)
        height, width = min(96, picture.shape[0]), min(260, picture.shape[1])
        canvas[:height, :width] = picture[:height, :width]
        pictures[item.item_id] = canvas
    for first, second in combinations(pictures, 2):
        shown = (pictures[first][..., 3] > 0) | (pictures[second][..., 3] > 0)
        differs = np.abs(pictures[first] - pictures[second]).max(axis=2) > 40
        assert differs.sum() / shown.sum() > 0.015, (first, second)


def test_invented_items_are_unique_and_reproducible() -> None:
    made = invent_items(1, 30)
    assert made == invent_items(1, 30)
    assert Counter(item.category for item in made) == dict.fromkeys(CATEGORIES, 30)
    appearances = [appearance_of(item) for item in (*catalogue(), *made)]
    assert len(set(appearances)) == len(appearances)
    assert len({item.item_id for item in made}) == len(made)


def test_taken_items_are_not_invented_again() -> None:
    first = invent_items(1, 30)
    again = invent_items(1, 30, taken=first)
    assert not {appearance_of(item) for item in again} & {appearance_of(item) for item in first}


def test_too_many_invented_items_are_rejected() -> None:
    with pytest.raises(TrainError, match="found 201 items of each category, expected 0 to 200"):
        invent_items(1, 201)


def test_data_set_lists_invented_items_in_their_own_split(tmp_path: Path) -> None:
    index = write_dataset(tmp_path, 3, 0, 4, 1, items=catalogue()[:1], invented_items=2, workers=1, progress=False)
    rows = list(csv.DictReader(index.read_text(encoding="utf-8").splitlines()))
    apart = [row for row in rows if row["split"] == "invented"]
    assert Counter(row["category"] for row in apart) == dict.fromkeys(CATEGORIES, 2)
    assert {row["item"] for row in apart}.isdisjoint(item.item_id for item in catalogue())
    assert all((tmp_path / row["path"]).is_file() for row in apart)
