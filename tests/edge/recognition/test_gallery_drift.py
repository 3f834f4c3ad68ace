"""When a gallery is stale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.inference.stages import Stages
from edge.manifest import OpenSet
from edge.recognition.gallery_drift import WINDOW, GalleryDrift, age_s, staleness
from edge.recognition.loaded_models import LoadedModels
from edge.types import Category, Decision, Hit

SERVING = LoadedModels("bundle", "gallery", Stages(None, None, {}), {}, {"carton": OpenSet(slope=10, midpoint=0.5)})


def saw(score):
    return Decision(Category("carton", 0.9), None, "unknown_item", (Hit("c1", "Oat flakes", float(score)),))


def note(freshness, scores, models=SERVING):
    for score in scores:
        freshness.note(saw(score), models)


@pytest.fixture
def scores():
    return np.random.default_rng(0).normal(0.8, 0.1, 2 * WINDOW)


def test_the_same_world_does_not_drift_and_another_does(tmp_path, scores):
    same, other = GalleryDrift(tmp_path / "a"), GalleryDrift(tmp_path / "b")
    note(same, scores)
    note(other, scores[:WINDOW])
    note(other, scores[WINDOW:] - 0.25)
    assert same.drift < 0.15
    assert other.drift > 0.5


def test_few_objects_say_nothing(tmp_path, scores):
    freshness = GalleryDrift(tmp_path / "first")
    note(freshness, scores[: 2 * WINDOW - 1])
    assert freshness.drift is None


def test_the_first_answers_outlive_a_restart_but_not_another_gallery(tmp_path, scores):
    note(GalleryDrift(tmp_path / "first"), scores[:WINDOW])
    again = GalleryDrift(tmp_path / "first")
    note(again, scores[WINDOW:] - 0.25)
    assert again.drift > 0.5
    other = GalleryDrift(tmp_path / "first")
    note(other, scores[WINDOW:] - 0.25, replace(SERVING, gallery_id="newer"))
    assert other.drift is None


def test_a_damaged_file_begins_anew(tmp_path, scores):
    (tmp_path / "first").write_text('{"pair": "bundle gallery", "first": "x"}')
    freshness = GalleryDrift(tmp_path / "first")
    note(freshness, scores)
    assert freshness.drift is not None


def test_what_was_never_compared_says_nothing(tmp_path):
    freshness = GalleryDrift(tmp_path / "first")
    for _ in range(2 * WINDOW):
        freshness.note(Decision(None, None, "unknown_category"), SERVING)
    assert freshness.drift is None
    assert not (tmp_path / "first").exists()


def test_age_is_counted_from_when_the_gallery_was_made():
    assert age_s("1970-01-02T00:00:00Z", 86400 * 3) == 2 * 86400
    assert age_s("1970-01-02T00:00:00+00:00", 0) == 0.0
    assert age_s(None, 1.0) is age_s("long ago", 1.0) is None


def test_stale_says_why_and_fine_says_nothing():
    assert staleness(10 * 86400, 0.1, 30, 0.3) == ()
    assert staleness(None, None, 30, 0.3) == staleness(99 * 86400, 0.9, None, None) == ()
    old, drifted = staleness(36.2 * 86400, 0.42, 30, 0.3)
    assert old == "it is 36 days old, expected at most 30"
    assert drifted == "the surety of answers has drifted by 0.42, expected at most 0.3"
