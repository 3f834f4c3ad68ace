"""The cautious rule from the gallery's own pictures."""

import numpy as np
import pytest

from edge.inference.postprocess import unit_rows
from edge.types import Category
from quantize.open_set.gallery_rule import GalleryRows, cautious_rule, search_gallery_in_itself
from quantize.open_set.leave_items_out import ScoredCrop


def rows(rng, items, pictures, noise=0.3, views=0, dim=32):
    """Vectors of items about a centre each, and views near each picture."""
    vectors, names, numbers, is_view = [], [], [], []
    for item in items:
        centre = rng.normal(0, 1, dim)
        for _ in range(pictures):
            picture, number = centre + rng.normal(0, noise, dim), len(set(numbers))
            for view in range(views + 1):
                vectors.append(picture + (rng.normal(0, 0.1, dim) if view else 0))
                names.append(item)
                numbers.append(number)
                is_view.append(view > 0)
    return GalleryRows(
        unit_rows(np.asarray(vectors, np.float32)), tuple(names), np.array(numbers), np.array(is_view, bool)
    )


def test_rule_lies_between_other_items_and_the_own_one():
    rng = np.random.default_rng(0)
    gallery = {"box": rows(rng, "abcde", 4), "can": rows(rng, "fghij", 4)}
    answers = search_gallery_in_itself(gallery, 0.5)
    items = {name: sorted(set(found.items)) for name, found in gallery.items()}
    rule = cautious_rule(answers, [], items, None)
    assert answers.wrong.max() < rule.threshold < answers.right.min()
    assert not rule.calibrated
    assert answers.named("box", rule.threshold) == 1.0
    assert answers.named("jar", rule.threshold) is None


def test_picture_is_never_compared_with_itself_or_its_views():
    rng = np.random.default_rng(1)
    gallery = {"box": rows(rng, "ab", 3, noise=2.0, views=2)}
    answers = search_gallery_in_itself(gallery, 0.0)
    assert len(answers.right) == 6
    assert answers.right.max() < 0.9
    assert answers.views.size == 0


def test_one_picture_per_item_gives_wrong_answers_and_views():
    rng = np.random.default_rng(2)
    gallery = {"box": rows(rng, "abcdefgh", 1, views=5)}
    answers = search_gallery_in_itself(gallery, 0.5)
    assert np.isnan(answers.right).all()
    assert len(answers.views) == 40
    rule = cautious_rule(answers, [], {"box": list("abcdefgh")}, None)
    assert answers.wrong.max() < rule.threshold < answers.views.max()
    assert answers.named("box", rule.threshold) is None


def test_items_that_cannot_be_told_apart_keep_a_threshold_that_is_reached():
    rng = np.random.default_rng(3)
    vectors = unit_rows(rng.normal(0, 0.02, (12, 8)).astype(np.float32) + 1)
    gallery = {"box": GalleryRows(vectors, tuple("aaabbbcccddd"), np.arange(12), np.zeros(12, bool))}
    answers = search_gallery_in_itself(gallery, 0.5)
    rule = cautious_rule(answers, [], {"box": list("abcd")}, None)
    assert rule.threshold < answers.right.max() < 1


def test_single_item_is_named_by_nine_of_ten_of_its_own_pictures():
    gallery = {"box": rows(np.random.default_rng(4), "a", 10)}
    answers = search_gallery_in_itself(gallery, 0.5)
    rule = cautious_rule(answers, [], {"box": ["a"]}, None)
    assert answers.named("box", rule.threshold) == pytest.approx(0.9)


def test_held_out_pictures_of_other_items_raise_the_threshold():
    gallery = {"box": rows(np.random.default_rng(5), "abcde", 4)}
    answers, items = search_gallery_in_itself(gallery, 0.5), {"box": list("abcde")}
    scores = {"box": np.array([0.85, 0.3, 0.2, 0.2, 0.1], np.float32)}
    seen = [ScoredCrop("box", "new", [Category("box", 1.0)], scores)] * 3
    assert (
        cautious_rule(answers, seen, items, None).threshold > cautious_rule(answers, [], items, None).threshold + 0.05
    )
    assert cautious_rule(answers, seen, items, 0.1).false_accept == 0.1
