"""The clock for message ages."""

from __future__ import annotations

import pytest

from edge.telemetry.age_clock import AgeClock

NOW = 1_700_000_000.0
YEAR_S = 365 * 86_400.0


class World:
    """A settable wall clock and elapsed time."""

    def __init__(self, unix_s=NOW):
        self.elapsed_s = 50.0
        self.unix_s = unix_s
        self.clock = AgeClock(lambda: self.unix_s, lambda: self.elapsed_s)

    def pass_s(self, seconds):
        self.elapsed_s += seconds
        self.unix_s += seconds


def test_equals_the_wall_clock_while_nobody_sets_it():
    world = World()
    world.pass_s(7.0)
    assert world.clock() == pytest.approx(NOW + 7.0)


def test_forward_jump_does_not_age_a_message():
    world = World()
    world.unix_s += YEAR_S
    world.pass_s(60.0)
    assert world.clock() - NOW == pytest.approx(60.0)


def test_backward_jump_does_not_age_a_message():
    world = World()
    world.unix_s -= YEAR_S
    world.pass_s(60.0)
    assert world.clock() == pytest.approx(NOW - YEAR_S + 60.0)


def test_counts_from_when_the_clock_is_first_set():
    world = World(unix_s=3.0)
    assert world.clock() == 3.0
    world.unix_s = NOW
    world.clock()
    world.pass_s(60.0)
    assert world.clock() == pytest.approx(NOW + 60.0)
