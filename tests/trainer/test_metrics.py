"""The metrics on cases small enough to count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trainer.metrics
from trainer.metrics import (
    Boxes,
    average_precision,
    average_precision_at,
    best_threshold,
    bootstrap,
    calibration_error,
    detection_map,
    fit_temperature,
    map_at_r,
    per_class,
    precision_at,
    r_precision,
    rank,
    recall_at,
)

SIMILAR = np.array([[0.9, 0.8, 0.1], [0.2, 0.3, 0.9]], np.float32)


def ranked(*items: str):
    return rank(SIMILAR, items, ["a", "b", "b"])


def test_recall_counts_queries_with_a_hit_among_the_nearest():
    assert recall_at(ranked("a", "a"), 1).tolist() == [1.0, 0.0]
    assert recall_at(ranked("a", "a"), 2).tolist() == [1.0, 0.0]
    assert recall_at(ranked("a", "a"), 3).tolist() == [1.0, 1.0]


def test_picture_is_not_its_own_neighbour():
    same = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, 0.4], [0.2, 0.4, 1.0]], np.float32)
    alone = rank(same, ["a", "a", "b"], ["a", "a", "b"], same_set=True)
    assert recall_at(alone, 1).tolist() == [1.0, 1.0, 0.0]
    assert alone.relevant.tolist() == [1, 1, 0]
    assert same[0, 0] == 1.0  # the caller's matrix is left alone


@pytest.mark.parametrize("never", [-np.inf, np.nan])
def test_row_that_is_not_searched_is_neither_hit_nor_relevant(never):
    found = rank(np.array([[never, 0.2, 0.1]], np.float32), ["a"], ["a", "b", "a"])
    assert found.hits.tolist() == [[False, True, False]]
    assert (found.relevant.tolist(), found.searched.tolist()) == ([1], [2])
    assert precision_at(found, 3).tolist() == [0.5]


@settings(deadline=None)
@given(data=st.data(), seed=st.integers(0, 99), nearest=st.integers(1, 40))
def test_nearest_ranks_are_those_of_the_whole_ranking(data, seed, nearest):
    columns, levels = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 50))
    rng = np.random.default_rng(seed)
    similar = (rng.integers(0, levels, (5, columns)) / 50).astype(np.float32)  # with ties
    similar[rng.random(similar.shape) < 0.2] = -np.inf
    items, others = rng.integers(0, 9, 5), rng.integers(0, 9, columns)
    whole, some = rank(similar, items, others), rank(similar, items, others, nearest=nearest)
    assert some.hits.shape[1] >= min(columns, nearest)
    assert (some.hits == whole.hits[:, : some.hits.shape[1]]).all()
    assert map_at_r(some) == pytest.approx(map_at_r(whole))


def test_map_at_r_of_one_hit_in_two():
    # Item b has R = 2 gallery pictures; the first query finds one of them, at rank 2: (1/2) / 2.
    assert map_at_r(ranked("b", "b")) == pytest.approx([0.25, 1.0])


def test_precision_is_the_share_among_the_nearest():
    assert precision_at(ranked("b", "b"), 2).tolist() == [0.5, 1.0]
    assert r_precision(ranked("b", "b")).tolist() == [0.5, 1.0]
    assert r_precision(ranked("c", "a")).tolist() == [0.0, 0.0]


def test_map_at_k_per_hits_and_per_possible_differ():
    ask = (ranked("b", "b"), 2)
    # the first query's only hit among two is at rank 2: precision 1/2; its item has two pictures
    assert average_precision_at(*ask, per="hits").tolist() == [0.5, 1.0]
    assert average_precision_at(*ask, per="possible").tolist() == [0.25, 1.0]


def test_per_class_table():
    table = per_class(["a", "a", "b"], ["a", "b", "b"])
    assert (table["a"]["precision"], table["a"]["recall"]) == (0.5, 1.0)
    assert (table["b"]["precision"], table["b"]["recall"]) == (1.0, 0.5)


def test_average_precision_of_one_hit_and_one_miss():
    truth = [np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)]
    found = [Boxes(np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32), np.array([0.9, 0.8], np.float32))]
    assert pytest.approx(average_precision(found, truth, 0.5)) == 51 / 101  # precision 1 up to recall 0.5
    assert (pytest.approx(0.9), pytest.approx(2 / 3)) == best_threshold(found, truth)


def test_box_found_twice_counts_once():
    truth = [np.array([[0, 0, 10, 10]], np.float32)]
    twice = [Boxes(np.array([[0, 0, 10, 10], [0, 0, 10, 9]], np.float32), np.array([0.9, 0.8], np.float32))]
    assert detection_map(twice, truth)["map50"] == 1.0
    assert best_threshold(twice, truth)[1] == 1.0


def test_nothing_found_is_zero():
    nothing = [Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))]
    assert detection_map(nothing, [np.array([[0, 0, 9, 9]], np.float32)]) == {"map50": 0.0, "map50_95": 0.0}


def test_temperature_corrects_under_and_overconfidence():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    logits = np.eye(3, dtype=np.float32)[labels]
    assert fit_temperature(logits, labels) < 0.5
    wrong = np.where(rng.random(400) < 0.4, (labels + 1) % 3, labels)
    assert fit_temperature(10 * np.eye(3, dtype=np.float32)[wrong], labels) > 2


def test_calibration_error_of_always_sure_and_half_right():
    assert calibration_error(np.ones(4, np.float32), np.array([True, False, True, False])) == 0.5


def test_bootstrap_interval_holds_the_mean_and_is_seeded():
    values = np.array([0.0, 1.0] * 50)
    low, high = bootstrap(values, 1)
    assert 0.35 < low < 0.5 < high < 0.65
    assert (low, high) == bootstrap(values, 1)


def test_bootstrap_in_blocks_draws_the_same(monkeypatch):
    values = np.random.default_rng(1).random(77)
    whole = bootstrap(values, 3)
    monkeypatch.setattr(trainer.metrics, "_DRAWN", 500)
    assert bootstrap(values, 3) == whole
