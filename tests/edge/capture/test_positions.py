"""Positions of pictures: missing and wrong ones, and those of a backlog."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.capture.positions import Backlog, SteadyPositions, plausible_rate_hz

STEP_S = 1 / 15


def held(arrivals_s, positions_s=None):
    """Return for each picture whether it belongs to the backlog."""
    backlog = Backlog()
    positions_s = [i * STEP_S for i in range(len(arrivals_s))] if positions_s is None else positions_s
    return [backlog.holds(position_s, arrived_s) for position_s, arrived_s in zip(positions_s, arrivals_s, strict=True)]


def test_burst_is_held_back_until_pictures_come_at_their_pace():
    burst = [9.0 + 0.005 * i for i in range(30)]
    found = held([*burst, *(burst[-1] + STEP_S * (i + 1) for i in range(10))])
    assert all(found[:30])
    assert not any(found[34:])


def test_hiccup_within_a_burst_does_not_end_it():
    burst = [9.0 + 0.005 * i + (0.05 if i > 7 else 0.0) for i in range(20)]
    assert all(held(burst))


@pytest.mark.parametrize("fps", [1, 5, 15, 60])
def test_live_stream_is_delivered_within_a_fifth_of_a_second_or_a_frame(fps):
    times_s = [i / fps for i in range(100)]
    delivered = [at_s for at_s, late in zip(times_s, held(times_s, times_s), strict=True) if not late]
    assert delivered[0] <= max(0.2, 1 / fps)
    assert len(delivered) >= 88


def test_stream_without_positions_has_no_backlog():
    assert not any(held([0.0, 0.001, 0.002], [None] * 3))


def test_positions_that_run_too_fast_stop_nothing_for_long():
    times_s = [i * 0.1 for i in range(100)]
    assert sum(held(times_s, [10 * at_s for at_s in times_s])) <= 31


def test_positions_that_go_back_end_the_backlog():
    assert held([0.0, 0.001, 0.002, 0.003], [5.0, 5.1, 0.0, 0.1]) == [True, True, False, False]


WRAP_S = 2**33 / 90_000  # of MPEG-TS


def steady(said, rate_hz=10.0):
    """Return the positions of pictures, rounded, and how many were mended."""
    positions = SteadyPositions(rate_hz, "file:///x.h264")
    return [round(positions.next_s(one), 3) for one in said], positions.mended


@pytest.mark.parametrize(
    ("said", "expected", "mended"),
    [
        ([0.0, 0.1, 0.2, 0.5], [0.0, 0.1, 0.2, 0.5], 0),
        ([0.7, 0.8, 0.9], [0.7, 0.8, 0.9], 0),  # a file may start late
        ([0.0, 0.1, 0.3, 0.2, 0.4], [0.0, 0.1, 0.3, 0.4, 0.5], 0),  # a little out of order
        ([None] * 4, [0.0, 0.1, 0.2, 0.3], 4),
        ([math.nan, math.inf, -math.inf], [0.0, 0.1, 0.2], 3),
        ([0.0] * 5, [0.0, 0.1, 0.2, 0.3, 0.4], 0),
        ([-5.0, -4.9, -4.8], [0.0, 0.1, 0.2], 1),
        ([5.0, 5.1, 0.0, 0.1, 0.2], [5.0, 5.1, 5.2, 5.3, 5.4], 1),  # joined files
        ([500.0, WRAP_S, 0.05, 0.15], [500.0, 500.1, 500.2, 500.3], 2),
        ([WRAP_S - 0.1, WRAP_S, 0.1, 0.2], [0.0, 0.1, 0.2, 0.3], 2),  # a clock of 33 bits starts again
        ([0.0, 0.1, 1e300, 1e300], [0.0, 0.1, 0.2, 0.3], 1),
        ([0.0, 0.1, None, 0.3], [0.0, 0.1, 0.2, 0.3], 1),
    ],
)
def test_positions_increase(said, expected, mended):
    assert steady(said) == (expected, mended)


def test_missing_positions_are_logged_once(caplog):
    caplog.set_level("INFO")
    steady([None] * 5, rate_hz=0.0)
    assert [record.getMessage() for record in caplog.records] == [
        "file:///x.h264: pictures without a usable time; each follows the one before by 1/25 s"
    ]


def test_positions_that_stand_still_for_long_count_as_missing():
    positions, mended = steady([0.0] * 40)
    assert positions == [round(0.1 * i, 3) for i in range(40)]
    assert mended >= 1


@pytest.mark.parametrize("rate_hz", [None, 0.0, -25.0, 1e6, 90_000.0, math.nan, math.inf])
def test_rate_that_cannot_be_true_is_25(rate_hz):
    assert plausible_rate_hz(rate_hz) is None
    assert steady([None, None], rate_hz)[0] == [0.0, 0.04]


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.none() | st.floats(), max_size=40), st.floats() | st.none())
def test_any_positions_increase_by_little(said, rate_hz):
    positions = SteadyPositions(rate_hz, "file:///x.h264")
    found = [positions.next_s(one) for one in said]
    assert all(0 < after - before <= 600 for before, after in pairwise(found))
    assert all(math.isfinite(one) and one >= 0 for one in found)
