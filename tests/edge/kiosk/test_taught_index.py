"""Doubting taught items that others are nearly as near as."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.inference.postprocess import unit_rows
from edge.kiosk.taught_embeddings import ItemEmbeddings
from edge.kiosk.taught_index import MAX_RATIO, RatioTest, WithTaught, angle_ratio, with_taught
from edge.kiosk.taught_store import TaughtItem
from edge.types import Hit
from tests.edge.kiosk.kiosk_samples import scripted_models
from tests.fakes_engine import FixedIndex

DIM = 4
RNG = np.random.default_rng(0)


def views(centre, spread=(0.0, 0.0, 0.0, 0.0), count=6):
    """The views of one picture: (1, views, dim), spread along each axis."""
    rows = np.asarray(centre) + RNG.normal(0, 1, (count, DIM)) * np.asarray(spread)
    return unit_rows(rows.astype(np.float32))[None]


def query(*direction):
    return unit_rows(np.array(direction, np.float32))


def test_ratio_of_angles():
    assert angle_ratio(np.cos(0.2), np.cos(0.4)) == pytest.approx(0.5)
    assert angle_ratio(1.0, 1.0) == 1.0


def test_ratio_is_of_the_nearest_other_item():
    test = RatioTest({"a": views((1, 0, 0, 0)), "b": views((0, 1, 0, 0)), "c": views((0, 0, 1, 0))})
    angle = np.deg2rad(30)
    assert test.rival_ratio(query(np.cos(angle), np.sin(angle), 0, 0), "a") == pytest.approx(30 / 60, abs=1e-3)
    assert test.rival_ratio(query(1, 1, 0, 0), "a") == pytest.approx(1.0, abs=1e-3)


def test_only_item_has_no_rival():
    assert RatioTest({"a": views((1, 0, 0, 0))}).rival_ratio(query(0, 1, 0, 0), "a") == 0.0


def test_directions_in_which_views_vary_count_less():
    """The query differs from `a` as its own views do, and from `b` in a direction in which no views differ."""
    spread = (0.0, 0.0, 0.4, 0.0)
    varied = {"a": views((1, 0, 0, 0), spread, 40), "b": views((1, 0.35, 0, 0), spread, 40)}
    plain = {name: one.mean(axis=1, keepdims=True) for name, one in varied.items()}
    moved = query(1, 0.05, 0.8, 0)
    assert RatioTest(varied).rival_ratio(moved, "a") < 0.7
    assert RatioTest({name: unit_rows(one) for name, one in plain.items()}).rival_ratio(moved, "a") > MAX_RATIO


def test_nearest_hit_alone_is_tested():
    test = RatioTest({"a": views((1, 0, 0, 0)), "b": views((1, 0.1, 0, 0))})
    mug = Hit("a", "Mug", 0.9)

    def search(score):
        index = WithTaught(FixedIndex([Hit("g", "Jar", score)]), FixedIndex([mug]), test)
        return index.search(query(1, 0.05, 0, 0)[None], 5)[0]

    assert [(hit.item_id, hit.ambiguous) for hit in search(0.89)] == [("a", True), ("g", False)]
    assert [(hit.item_id, hit.ambiguous) for hit in search(0.91)] == [("g", False), ("a", False)]


def taught(number, *centre):
    item = TaughtItem(item_id=f"taught-{number:012x}", label=f"Thing {number}", category=None, taught_at="", looks=1)
    rows = views(centre)
    return item, ItemEmbeddings({"carton": rows[0]}, np.zeros((0, 512), np.uint8), {"0" * 64: rows})


def test_taught_items_of_one_space_doubt_each_other():
    models = with_taught(scripted_models(indexes={}), dict([taught(1, 1, 0, 0, 0), taught(2, 0.9, 0.5, 0, 0)]))
    near, between = models.search({"carton": query(1, -0.1, 0, 0)}), models.search({"carton": query(0.97, 0.25, 0, 0)})
    assert (near["carton"][0].label, near["carton"][0].ambiguous) == ("Thing 1", False)
    assert between["carton"][0].ambiguous


def test_without_a_classifier_a_taught_item_names_its_category():
    models = scripted_models(indexes={})
    models = replace(models, stages=replace(models.stages, classifier=None))
    models = with_taught(models, dict([taught(1, 1, 0, 0, 0)]))
    assert models.spaces["0" * 64].search(query(1, 0, 0, 0)[None], 1)[0][0].label == "carton"
    decision = models.identify(None, {"0" * 64: query(1, 0, 0, 0)}, None)
    assert (decision.category.name, decision.match.label) == ("carton", "Thing 1")
