"""Fitting the weight of silhouettes."""

from pathlib import Path

import numpy as np
import pytest

from edge.manifest.embedder import SilhouetteRule
from edge.silhouettes.rerank import RERANKED, silhouettes_for
from edge.silhouettes.silhouette import SIDE
from edge.types import Hit
from quantize.bundle.fit_silhouettes import (
    OFF,
    LabelledSilhouettes,
    Similarities,
    fit_categories,
    fit_rule,
    similarities,
)
from quantize.open_set.score_crops import rerank_scores
from quantize.pictures import Sample

ITEMS = ("a", "b", "c")


def rows(*angles: float) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)] for angle in angles], np.float32)


def bar(width: int) -> np.ndarray:
    grid = np.zeros((SIDE, SIDE), bool)
    grid[4:60, 32 - width : 32 + width] = True
    return np.packbits(grid)


def lookalikes(count: int, separable: bool) -> Similarities:
    """Crops of two items whose vectors are uninformative, and whose silhouettes separate them or not."""
    generator = np.random.default_rng(4)
    own = np.arange(count) % 2
    cosine = 0.8 + 0.02 * generator.random((count, 2)).astype(np.float32)
    overlap = np.full((count, 2), 0.6, np.float32)
    if separable:
        overlap[np.arange(count), own] = 0.9
    return Similarities(cosine, overlap, np.full_like(overlap, 0.6), own)


def test_silhouettes_that_separate_lookalikes_get_a_weight():
    fit = fit_rule(lookalikes(60, separable=True))
    assert (fit.rule.mode, fit.rule.counts) == ("absolute", True)
    assert fit.without < 0.7
    assert fit.without + fit.gain == pytest.approx(1.0)
    assert fit.row()["pays"] is True


def test_uninformative_silhouettes_get_no_weight():
    fit = fit_rule(lookalikes(60, separable=False))
    assert (fit.rule, fit.gain) == (OFF, 0.0)
    assert fit.row()["pays"] is False


@pytest.mark.parametrize("mode", ["absolute", "aligned", "iou_only"])
def test_named_mode_is_used_whether_it_pays_or_not(mode):
    fit = fit_rule(lookalikes(60, separable=False), mode)
    assert (fit.rule.mode, fit.rule.counts, fit.pays) == (mode, True, False)
    assert fit.row()["forced"] is True
    assert fit_rule(lookalikes(60, separable=True), mode).pays is (mode != "aligned")


@pytest.mark.parametrize(("mode", "categories"), [("iou_only", {"can", "jar"}), ("aligned", {"can"}), (None, {"can"})])
def test_named_mode_without_a_weight_needs_no_held_out_crops(mode, categories):
    crops = [Sample(Path("1.jpg"), "1.jpg", split="val", category="can", item=item) for item in ("a", "b")]
    known = LabelledSilhouettes(crops, rows(0.0, 1.0), [bar(4), bar(20)])
    fits = fit_categories(["can", "jar"], known, known, 0.5, mode)
    assert set(fits) == categories
    assert all(fit.forced and fit.rule.mode == mode for fit in fits.values() if mode)


def test_overlap_alone_has_no_weight_to_fit():
    assert fit_rule(lookalikes(60, separable=True), "iou_only").rule == SilhouetteRule(mode="iou_only", weight=1.0)


def test_gain_within_chance_gets_no_weight():
    similar = lookalikes(4, separable=True)
    assert (
        fit_rule(Similarities(similar.cosine[:1], similar.absolute[:1], similar.aligned[:1], similar.own[:1])).rule
        == OFF
    )
    assert (
        fit_rule(
            Similarities(*(part[:0] for part in (similar.cosine, similar.absolute, similar.aligned)), similar.own[:0])
        ).queries
        == 0
    )


def test_similarities_use_the_best_picture_of_each_item():
    gallery, items = rows(0.0, 0.5, 1.0, 1.5), ("a", "a", "b", "c")
    silhouettes = [bar(10), None, bar(20), None]
    similar = similarities(rows(0.45), [bar(20)], ["b"], gallery, silhouettes, items)
    np.testing.assert_allclose(similar.cosine, [[np.cos(0.05), np.cos(0.55), np.cos(1.05)]], atol=1e-6)
    np.testing.assert_allclose(
        similar.absolute, [[0.5, 1.0, np.cos(1.05)]], atol=1e-6
    )  # c has no silhouette: its cosine
    assert similar.own.tolist() == [1]
    unseen = similarities(rows(0.45), [None], ["d"], gallery, silhouettes, items)
    np.testing.assert_allclose(unseen.absolute, unseen.cosine)
    assert unseen.own.tolist() == [-1]


@pytest.mark.parametrize("mode", ["absolute", "aligned", "iou_only"])
def test_device_scores_equal_the_fitted_scores(mode):
    gallery, silhouettes = rows(0.0, 0.6, 1.0), [bar(8), bar(14), bar(20)]
    query, silhouette = rows(0.3), bar(13)
    rule = SilhouetteRule(mode=mode, weight=0.3)
    fitted = similarities(query, [silhouette], ["a"], gallery, silhouettes, ITEMS).fused(rule)[0]
    hits = [Hit(item, item, float(vector @ query[0])) for item, vector in zip(ITEMS, gallery, strict=True)]
    on_device = silhouettes_for(rule, {i: o[None] for i, o in zip(ITEMS, silhouettes, strict=True)}).rerank(
        hits, silhouette
    )
    assert {hit.item_id: pytest.approx(hit.score, abs=1e-6) for hit in on_device} == dict(
        zip(ITEMS, fitted, strict=True)
    )


def test_only_the_nearest_items_by_vector_are_reranked():
    count = RERANKED + 5
    cosine = np.linspace(0.9, 0.1, count, dtype=np.float32)[None]
    overlap = np.linspace(0.0, 1.0, count, dtype=np.float32)[None]
    similar = Similarities(cosine, overlap, overlap, np.array([0]))
    fused = similar.fused(SilhouetteRule(mode="iou_only"))[0]
    assert fused.argmax() == RERANKED - 1
    assert (fused[RERANKED:] == -1).all()


def test_rerank_scores_fuses_as_a_device_does():
    whole, half = np.full(512, 255, np.uint8), np.repeat([255, 0], 256).astype(np.uint8)
    known = silhouettes_for(SilhouetteRule(weight=0.5), {"whole": whole[None], "half": half[None]})
    scores = np.array([0.85, 0.8, 0.7], np.float32)
    assert rerank_scores(scores, ["half", "whole", "none"], known, whole) == pytest.approx([0.675, 0.9, 0.7])


def test_items_that_are_not_reranked_score_minus_one():
    items = [f"item-{i:02}" for i in range(RERANKED + 2)]
    known = silhouettes_for(SilhouetteRule(weight=0.5), {})
    fused = rerank_scores(
        np.linspace(0.9, 0.1, len(items), dtype=np.float32), items, known, np.full(512, 255, np.uint8)
    )
    assert fused[-2:].tolist() == [-1.0, -1.0]
    assert fused[0] == pytest.approx(0.9)
