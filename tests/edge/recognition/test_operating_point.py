"""Thresholds by the promise of the configuration."""

import pytest
from pydantic import ValidationError

from edge.config.schema import GalleryConfig
from edge.errors import BundleError
from edge.manifest.embedder import OpenSet
from edge.recognition.operating_point import at_operating_point

RULE = OpenSet(
    threshold=0.5, operating_points={"0.01": 0.8, "0.1": 0.6}, risk_points={"0.02": 0.75, "0.05": 0.7, "new": 0.1}
)


def threshold(**asked):
    return at_operating_point({"can": RULE}, GalleryConfig(**asked))["can"].threshold


def test_bundle_decides_unless_asked():
    assert threshold() == 0.5


def test_threshold_of_the_asked_share_is_used():
    assert threshold(risk=0.05) == 0.7
    assert threshold(false_accept=0.1) == 0.6


def test_next_smaller_share_keeps_the_promise():
    assert threshold(risk=0.04) == 0.75
    assert threshold(false_accept=0.5) == 0.6


def test_promise_that_was_not_measured_is_refused():
    with pytest.raises(BundleError, match=r"gallery\.risk is 0\.01, and the bundle has thresholds for 0\.02, 0\.05"):
        threshold(risk=0.01)
    with pytest.raises(BundleError, match="the bundle has no such thresholds: remove the key"):
        at_operating_point({"can": OpenSet()}, GalleryConfig(risk=0.5))


def test_only_one_promise_is_set():
    with pytest.raises(ValidationError, match="set one of them"):
        GalleryConfig(risk=0.05, false_accept=0.05)
