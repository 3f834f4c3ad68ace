"""How far a camera's clock is from ours."""

from __future__ import annotations

import pytest

from edge.capture.clock_offset import ClockOffset

NOW = 1_700_000_000.0


def take(clock, *offsets_s, begin_s=0.0):
    """What is told while pictures of these offsets come, one a second."""
    told = [clock.take(NOW + s + offset_s, NOW + s, begin_s + s) for s, offset_s in enumerate(offsets_s)]
    return [said for said in told if said is not None]


def test_an_offset_is_known_after_some_seconds():
    clock = ClockOffset()
    take(clock, *[-0.25] * 4)
    assert clock.seconds is None
    take(clock, -0.25, begin_s=4)
    assert clock.seconds == pytest.approx(-0.25)
    assert not clock.is_off


def test_a_clock_that_is_off_is_told_once_and_once_when_it_is_back():
    clock = ClockOffset()
    assert take(clock, *[-3.2] * 60) == ["its clock is -3.2 s from ours, expected at most 2 s"]
    assert clock.is_off
    assert take(clock, *[-0.1] * 60, begin_s=60) == ["its clock is -0.1 s from ours again"]
    assert not clock.is_off


def test_a_clock_at_the_bound_is_not_told_again_and_again():
    clock = ClockOffset()
    assert len(take(clock, *[1.9, 2.1] * 200)) == 1


def test_late_pictures_now_and_then_are_passed_over():
    clock = ClockOffset()
    assert take(clock, *[-0.1, -0.1, -8.0] * 30) == []


def test_one_picture_a_second_counts():
    clock = ClockOffset()
    for n in range(100):
        clock.take(NOW + 5, NOW, n / 25)
    assert clock.seconds is None


def test_a_camera_that_comes_back_with_its_clock_set_is_told():
    clock = ClockOffset()
    take(clock, *[5.0] * 10)
    assert take(clock, *[0.1] * 10, begin_s=4000) == ["its clock is +0.1 s from ours again"]
