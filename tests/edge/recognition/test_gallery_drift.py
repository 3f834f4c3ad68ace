"""The drift of confidence, and when a gallery is stale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.inference.stages import Stages
from edge.manifest.embedder import OpenSet
from edge.recognition.gallery_drift import WINDOW, GalleryDrift, age_s, staleness
from edge.recognition.loaded_models import LoadedModels
from edge.types import Category, Decision, Hit

MODELS = LoadedModels("bundle", "gallery", Stages(None, None, {}), {}, {"carton": OpenSet(slope=10, midpoint=0.5)})


def decided(score):
    return Decision(Category("carton", 0.9), None, "unknown_item", (Hit("c1", "Oat flakes", float(score)),))


def add(drift, scores, models=MODELS):
    for score in scores:
        drift.add(decided(score), models)


@pytest.fixture
def scores():
    return np.random.default_rng(0).normal(0.8, 0.1, 2 * WINDOW)


def test_drift_is_small_for_same_scores_and_large_for_lower_ones(tmp_path, scores):
    same, other = GalleryDrift(tmp_path / "a"), GalleryDrift(tmp_path / "b")
    add(same, scores)
    add(other, scores[:WINDOW])
    add(other, scores[WINDOW:] - 0.25)
    assert same.drift < 0.15
    assert other.drift > 0.5


def test_no_drift_from_too_few_objects(tmp_path, scores):
    drift = GalleryDrift(tmp_path / "first")
    add(drift, scores[: 2 * WINDOW - 1])
    assert drift.drift is None


def test_first_decisions_survive_a_restart_but_not_another_gallery(tmp_path, scores):
    add(GalleryDrift(tmp_path / "first"), scores[:WINDOW])
    again = GalleryDrift(tmp_path / "first")
    add(again, scores[WINDOW:] - 0.25)
    assert again.drift > 0.5
    other = GalleryDrift(tmp_path / "first")
    add(other, scores[WINDOW:] - 0.25, replace(MODELS, gallery_id="newer"))
    assert other.drift is None


def test_damaged_file_is_ignored(tmp_path, scores):
    (tmp_path / "first").write_text('{"pair": "bundle gallery", "first": "x"}')
    drift = GalleryDrift(tmp_path / "first")
    add(drift, scores)
    assert drift.drift is not None


def test_decisions_without_a_nearest_item_are_ignored(tmp_path):
    drift = GalleryDrift(tmp_path / "first")
    for _ in range(2 * WINDOW):
        drift.add(Decision(None, None, "unknown_category"), MODELS)
    assert drift.drift is None
    assert not (tmp_path / "first").exists()


def test_age_counts_from_creation():
    assert age_s("1970-01-02T00:00:00Z", 86400 * 3) == 2 * 86400
    assert age_s("1970-01-02T00:00:00+00:00", 0) == 0.0
    assert age_s(None, 1.0) is age_s("long ago", 1.0) is None


def test_staleness_gives_reasons_or_nothing():
    assert staleness(10 * 86400, 0.1, 30, 0.3) == ()
    assert staleness(None, None, 30, 0.3) == staleness(99 * 86400, 0.9, None, None) == ()
    old, drifted = staleness(36.2 * 86400, 0.42, 30, 0.3)
    assert old == "it is 36 days old, more than 30"
    assert drifted == "the confidence of decisions has drifted by 0.42, more than 0.3"
