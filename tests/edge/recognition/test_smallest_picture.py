"""A camera that sends pictures of one pixel: nothing fails, and no event is made."""

from __future__ import annotations

import numpy as np

from edge.capture.tamper import TamperDetector
from edge.config.schema import MotionConfig, ViewConfig
from tests.edge.recognition.test_pipeline import Bench

PIXEL = np.full((1, 1, 3), 90, np.uint8)


def test_one_pixel_is_recognised_as_nothing():
    bench = Bench(camera={"motion": MotionConfig()})
    assert bench.show(30, PIXEL) == []
    assert len(bench.detector.batch_sizes) > 0


def test_one_pixel_without_a_detector_is_too_small_to_be_looked_at():
    bench = Bench(camera={"framing": "whole_frame"})
    assert bench.show(5, PIXEL) == []
    shed = bench.counts.total["looks_shed camera=door reason=too_small"]
    assert shed == 4  # the first has none before it to hold still against


def test_one_pixel_shows_no_scene():
    detector = TamperDetector(ViewConfig())
    assert {view.update(PIXEL, second / 2).doubt for second in range(40)} == {"obstructed"}
