"""Items that no gallery has."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from edge.errors import TrainError
from trainer.synthetic.dataset import write_dataset
from trainer.synthetic.items import CATEGORIES, catalogue, invented, look_of


def test_invented_items_are_unique_and_reproducible() -> None:
    made = invented(1, 30)
    assert made == invented(1, 30)
    assert Counter(item.category for item in made) == dict.fromkeys(CATEGORIES, 30)
    looks = [look_of(item) for item in (*catalogue(), *made)]
    assert len(set(looks)) == len(looks)
    assert len({item.item_id for item in made}) == len(made)


def test_taken_items_are_not_invented_again() -> None:
    first = invented(1, 30)
    again = invented(1, 30, taken=first)
    assert not {look_of(item) for item in again} & {look_of(item) for item in first}


def test_too_many_invented_items_are_rejected() -> None:
    with pytest.raises(TrainError, match="found 201 items of each category, expected 0 to 200"):
        invented(1, 201)


def test_data_set_lists_invented_items_in_their_own_split(tmp_path: Path) -> None:
    index = write_dataset(tmp_path, 3, 0, 4, 1, items=catalogue()[:1], invented_items=2, workers=1, progress=False)
    rows = list(csv.DictReader(index.read_text(encoding="utf-8").splitlines()))
    apart = [row for row in rows if row["split"] == "invented"]
    assert Counter(row["category"] for row in apart) == dict.fromkeys(CATEGORIES, 2)
    assert {row["item"] for row in apart}.isdisjoint(item.item_id for item in catalogue())
    assert all((tmp_path / row["path"]).is_file() for row in apart)
