"""Measures of shopping lists, on lists short enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.evaluation import shopping_list as checkout

ITEMS = ["ale", "jam", "tea"]
TRUE = checkout.count([{"ale": 2}, {"ale": 1, "jam": 1}], ITEMS)
FOUND = checkout.count([{"ale": 2}, {"jam": 3, "cat": 9}], ITEMS)


def test_lists_become_rows_and_what_is_no_item_is_left_out():
    assert FOUND.tolist() == [[2, 0, 0], [0, 3, 0]]


def test_a_list_is_right_only_as_a_whole():
    assert checkout.checkout_accuracy(FOUND, TRUE).tolist() == [1.0, 0.0]
    assert checkout.counting_distance(FOUND, TRUE).tolist() == [0.0, 3.0]


def test_distance_of_items_is_over_those_that_are_shown():
    assert checkout.mean_category_distance(FOUND, TRUE) == pytest.approx((1 / 3 + 2 / 1) / 2)


def test_iou_of_items_is_over_those_that_are_shown_or_found():
    assert checkout.mean_category_iou(FOUND, TRUE) == pytest.approx((2 / 3 + 1 / 3) / 2)
    invented = checkout.count([{"tea": 1}, {}], ITEMS)
    assert checkout.mean_category_iou(FOUND + invented, TRUE) == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)


def test_nothing_shown_and_nothing_found_is_a_number():
    nothing = np.zeros((2, 3), np.int64)
    assert checkout.mean_category_distance(nothing, nothing) == 0.0
    assert checkout.mean_category_iou(nothing, nothing) == 1.0
