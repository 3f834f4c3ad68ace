"""Pictures that a stream has waiting when it opens."""

from __future__ import annotations

import pytest

from edge.capture.backlog import Backlog

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
