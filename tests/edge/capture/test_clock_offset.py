"""The offset of a camera's clock."""

from __future__ import annotations

import pytest

from edge.capture.clock_offset import ClockOffset

NOW = 1_700_000_000.0


def messages(clock, *offsets_s, begin_s=0.0):
    """The messages while pictures of these offsets come, one a second."""
    found = [clock.add(NOW + s + offset_s, NOW + s, begin_s + s) for s, offset_s in enumerate(offsets_s)]
    return [message for message in found if message is not None]


def test_offset_is_known_after_five_seconds():
    clock = ClockOffset()
    messages(clock, *[-0.25] * 4)
    assert clock.seconds is None
    messages(clock, -0.25, begin_s=4)
    assert clock.seconds == pytest.approx(-0.25)
    assert not clock.is_off


def test_clock_off_and_back_are_each_reported_once():
    clock = ClockOffset()
    assert messages(clock, *[-3.2] * 60) == ["its clock is -3.2 s from the device's, more than 2 s; check both clocks"]
    assert clock.is_off
    assert messages(clock, *[-0.1] * 60, begin_s=60) == ["its clock is back to -0.1 s from the device's"]
    assert not clock.is_off


def test_clock_near_the_bound_is_reported_once():
    clock = ClockOffset()
    assert len(messages(clock, *[1.9, 2.1] * 200)) == 1


def test_occasional_late_pictures_are_ignored():
    clock = ClockOffset()
    assert messages(clock, *[-0.1, -0.1, -8.0] * 30) == []


def test_only_one_picture_a_second_counts():
    clock = ClockOffset()
    for n in range(100):
        clock.add(NOW + 5, NOW, n / 25)
    assert clock.seconds is None


def test_clock_set_during_an_outage_is_reported():
    clock = ClockOffset()
    messages(clock, *[5.0] * 10)
    assert messages(clock, *[0.1] * 10, begin_s=4000) == ["its clock is back to +0.1 s from the device's"]
