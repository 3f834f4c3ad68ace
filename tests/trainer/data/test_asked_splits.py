"""Splits that a command asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset_formats.records import Sample
from edge.errors import TrainError
from trainer.data.asked_splits import choose_asked, choose_gallery, choose_queries, choose_references

SOURCE = Path("shop.csv")


def samples(*splits_and_items: tuple[str, str]) -> list[Sample]:
    return [Sample(Path(f"{number}.png"), split, "food", item) for number, (split, item) in enumerate(splits_and_items)]


COMMON = samples(("train", "tea"), ("train", "jam"), ("val", "tea"), ("test", "jam"))


def test_absent_split_is_an_error_that_lists_those_there_are():
    expected = r"'tset'; there are test \(1 pictures\), train \(2 pictures\), val \(1 pictures\); check --query"
    with pytest.raises(TrainError, match=expected):
        choose_asked(COMMON, "train,tset", SOURCE, "--query")


def test_split_is_found_by_any_of_its_names_and_only_once():
    chosen = choose_asked(COMMON, " Validation, val , training", SOURCE, "--query")
    assert chosen.splits == ("val", "train")
    assert [sample.path.name for sample in chosen.samples] == ["2.png", "0.png", "1.png"]


def test_split_of_another_name_is_matched_as_it_is_written():
    assert choose_asked(samples(("Shelf 1", "tea")), "Shelf 1", SOURCE, "--query").splits == ("Shelf 1",)
    with pytest.raises(TrainError, match="no picture belongs to split 'shelf 1'"):
        choose_asked(samples(("Shelf 1", "tea")), "shelf 1", SOURCE, "--query")


def test_queries_are_val_else_test():
    assert choose_queries(COMMON, None, SOURCE).splits == ("val",)
    chosen = choose_queries([s for s in COMMON if s.split != "val"], None, SOURCE)
    assert chosen.splits == ("test",)
    assert chosen.why == "there is no split 'val': 'test' holds the queries"
    with pytest.raises(TrainError, match=r"no picture belongs to split 'val'; there are train \(2 pictures\)"):
        choose_queries(COMMON[:2], None, SOURCE)


def gallery_splits(listed, asked=None):
    chosen = choose_gallery(listed, asked, choose_queries(listed, None, SOURCE), SOURCE)
    return chosen.splits, bool(chosen.why)


def test_gallery_is_the_catalogue_if_there_is_one():
    assert gallery_splits([*COMMON, *samples(("catalogue", "tea"))]) == (("catalogue",), False)


def test_published_queries_have_a_gallery_of_their_own():
    listed = samples(("train", "tea"), ("query", "jam"), ("gallery", "jam"))
    assert choose_queries(listed, None, SOURCE).splits == ("query",)
    assert gallery_splits(listed) == (("gallery",), False)


def test_gallery_without_a_catalogue_is_train_and_says_so():
    assert gallery_splits(COMMON) == (("train",), True)


def test_queries_of_a_class_disjoint_split_are_searched_among_each_other():
    disjoint = samples(("train", "tea"), ("val", "jam"), ("val", "jam"))
    assert gallery_splits(disjoint) == (("val",), True)
    assert gallery_splits(disjoint, "train") == (("train",), False)


def test_catalogue_that_was_asked_for_must_exist():
    with pytest.raises(TrainError, match="no picture belongs to split 'catalogue'"):
        gallery_splits(COMMON, "catalogue")
    with pytest.raises(TrainError, match=r"'catalogue'; there are test .* check --split"):
        choose_references(COMMON, "catalogue", SOURCE)


def test_references_are_the_catalogue_else_train():
    assert choose_references([*COMMON, *samples(("catalogue", "tea"))], None, SOURCE).splits == ("catalogue",)
    chosen = choose_references(COMMON, None, SOURCE)
    assert (chosen.splits, chosen.why) == (("train",), "there is no split 'catalogue': 'train' is embedded")
