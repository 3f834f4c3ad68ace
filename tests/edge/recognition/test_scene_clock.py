"""The time of a scene, from positions in a stream and arrivals."""

from __future__ import annotations

import numpy as np
import pytest

from edge.recognition.scene_clock import SceneClock
from edge.types import Frame

PICTURE = np.zeros((2, 2, 3), np.uint8)
STEP_S = 1 / 15


def times(arrivals_s, positions_s, source="arrival"):
    clock = SceneClock()
    pairs = enumerate(zip(arrivals_s, positions_s, strict=True))
    return [clock.time_s(Frame("door", i, PICTURE, round(a * 1e9), 0.0, source, p)) for i, (a, p) in pairs]


def steady(count):
    return [i * STEP_S for i in range(count)]


def test_frames_of_a_burst_keep_their_distance():
    found = np.diff(times([5.0 + 0.004 * i for i in range(20)], steady(20)))
    assert found == pytest.approx([STEP_S] * 19, rel=0.4)


def test_frames_after_a_stall_keep_their_distance():
    arrivals_s = [*steady(30), *(2.9 + 0.004 * i for i in range(14)), *(44 * STEP_S + i * STEP_S for i in range(30))]
    found = np.diff(times(arrivals_s, steady(74)))
    assert found == pytest.approx([STEP_S] * 73, rel=0.35)


def test_jitter_of_arrivals_is_smoothed():
    late_s = np.random.default_rng(3).uniform(0, 0.05, 200)
    found = np.diff(times(steady(200) + late_s, steady(200)))
    assert found == pytest.approx([STEP_S] * 199, rel=0.12)


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.9999, 1.0001, 1.2, 2.0])
def test_clock_of_a_camera_may_run_at_a_wrong_rate(rate):
    arrivals_s = steady(3000)
    found = times(arrivals_s, [rate * at_s for at_s in arrivals_s])
    assert np.abs(np.subtract(found, arrivals_s)).max() <= 6.0
    assert found[-1] - found[-100] == pytest.approx(99 * STEP_S, rel=0.05)


@pytest.mark.parametrize("jump_s", [-1000.0, -3.0, 100.0])
def test_jump_of_the_positions_is_no_jump_of_the_scene(jump_s):
    positions_s = [at_s + (jump_s if i >= 50 else 0.0) for i, at_s in enumerate(steady(100))]
    found = np.diff(times(steady(100), positions_s))
    assert found == pytest.approx([STEP_S] * 99, rel=0.01)


def test_lost_frames_leave_a_gap():
    found = times([0.0, STEP_S, 2.0], [0.0, STEP_S, 2.0])
    assert found[2] - found[1] == pytest.approx(2.0 - STEP_S)


@pytest.mark.parametrize("positions_s", [[None] * 3, [0.0] * 3])
def test_without_usable_positions_the_arrival_counts(positions_s):
    assert times([1.0, 1.5, 2.5], positions_s) == pytest.approx([1.0, 1.5, 2.5])


def test_recording_has_the_times_of_its_positions():
    assert times([9.0, 9.1, 9.2], [4.0, 0.0, 1.0], "file") == [4.0, 0.0, 1.0]


def test_time_of_the_same_frame_stays():
    clock = SceneClock()
    frames = [Frame("door", i, PICTURE, 10**9 * i, 0.0, "arrival", i / 2) for i in range(3)]
    assert [clock.time_s(frame) for frame in frames for _ in range(2)] == [
        time_s for frame in times([0.0, 1.0, 2.0], [0.0, 0.5, 1.0]) for time_s in (frame, frame)
    ]


def test_scene_catches_up_with_the_arrival_after_a_lost_stream():
    clock = SceneClock()
    clock.time_s(Frame("door", 0, PICTURE, 10**9, 0.0, "arrival", 0.0))
    clock.restart()
    assert clock.time_s(Frame("door", 1, PICTURE, 31 * 10**9, 0.0, "arrival", 0.1)) == 31.0
