"""The clock that ages are measured by."""

from __future__ import annotations

import pytest

from edge.messaging.age_clock import AgeClock

NOW = 1_700_000_000.0
YEAR_S = 365 * 86_400.0


class World:
    """A wall clock that can be set, and time that passes."""

    def __init__(self, unix_s=NOW):
        self.elapsed_s = 50.0
        self.unix_s = unix_s
        self.clock = AgeClock(lambda: self.unix_s, lambda: self.elapsed_s)

    def pass_s(self, seconds):
        self.elapsed_s += seconds
        self.unix_s += seconds


def test_it_is_the_wall_clock_while_nobody_sets_that():
    world = World()
    world.pass_s(7.0)
    assert world.clock() == pytest.approx(NOW + 7.0)


def test_what_was_stamped_before_a_year_was_added_is_as_old_as_it_is():
    world = World()
    world.unix_s += YEAR_S
    world.pass_s(60.0)
    assert world.clock() - NOW == pytest.approx(60.0)


def test_what_was_stamped_before_a_year_was_taken_off_is_never_older_than_it_is():
    world = World()
    world.unix_s -= YEAR_S
    world.pass_s(60.0)
    assert world.clock() == pytest.approx(NOW - YEAR_S + 60.0)


def test_a_clock_that_is_set_at_last_counts_from_then_on():
    world = World(unix_s=3.0)
    assert world.clock() == 3.0
    world.unix_s = NOW
    world.clock()
    world.pass_s(60.0)
    assert world.clock() == pytest.approx(NOW + 60.0)
