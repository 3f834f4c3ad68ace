"""A camera that sends frames of one pixel: nothing fails, and no event is made."""

from __future__ import annotations

import numpy as np

from edge.capture.tamper import TamperDetector
from edge.config.schema import MotionConfig, ViewConfig
from tests.edge.recognition.test_pipeline import Bench

PIXEL = np.full((1, 1, 3), 90, np.uint8)


def test_one_pixel_frames_make_no_events():
    bench = Bench(camera={"motion": MotionConfig()})
    assert bench.show(30, PIXEL) == []
    assert len(bench.detector.batch_sizes) > 0


def test_one_pixel_whole_frame_is_too_small():
    bench = Bench(camera={"framing": "whole_frame"})
    assert bench.show(5, PIXEL) == []
    shed = bench.counts.total["looks_shed camera=door reason=too_small"]
    assert shed == 4  # the first frame has no previous one to compare with


def test_one_pixel_frames_are_obstructed():
    detector = TamperDetector(ViewConfig())
    assert {detector.update(PIXEL, second / 2).suspected for second in range(40)} == {"obstructed"}
