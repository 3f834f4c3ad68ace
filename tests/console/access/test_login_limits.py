"""How often a password may be tried."""

from __future__ import annotations

import pytest

from console.access import login_limits
from console.access.login_limits import PER_ADDRESS, PER_NAME, WINDOW_S, LoginLimits, TooManyAttemptsError
from tests.console.access.access_samples import Clock


def tries(limits, name, address):
    """Return how many more attempts are allowed."""
    for done in range(1000):
        try:
            limits.count(name, address)
        except TooManyAttemptsError:
            return done
    return 1000


def test_name_is_limited_from_many_addresses():
    limits = LoginLimits(Clock())
    for n in range(PER_NAME):
        limits.count("ann", f"192.0.2.{n}")
    with pytest.raises(TooManyAttemptsError):
        limits.count("ANN", "198.51.100.1")
    limits.count("bob", "198.51.100.1")


def test_address_is_limited_with_many_names():
    limits = LoginLimits(Clock())
    for n in range(PER_ADDRESS):
        limits.count(f"user{n}", "192.0.2.1")
    with pytest.raises(TooManyAttemptsError):
        limits.count("another", "192.0.2.1")


def test_address_of_ipv6_is_its_network():
    limits = LoginLimits(Clock())
    for n in range(PER_ADDRESS):
        limits.count(f"user{n}", f"2001:db8::{n:x}")
    assert tries(limits, "another", "2001:db8::ffff") == 0
    assert tries(limits, "another", "2001:db8:1::1") == PER_NAME


def test_window_slides():
    clock = Clock()
    limits = LoginLimits(clock)
    limits.count("ann", "a")
    clock.now_s += WINDOW_S / 2
    assert tries(limits, "ann", "a") == PER_NAME - 1
    with pytest.raises(TooManyAttemptsError) as caught:
        limits.count("ann", "a")
    assert caught.value.wait_s == WINDOW_S / 2
    clock.now_s += WINDOW_S / 2
    assert tries(limits, "ann", "a") == 1


def test_success_takes_attempts_back():
    limits = LoginLimits(Clock())
    for _ in range(100):
        limits.count("ann", "a")
        limits.succeed("ann", "a")
    assert tries(limits, "ann", "a") == PER_NAME


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(login_limits, "_MOST_KEYS", 100)
    limits = LoginLimits(Clock())
    for n in range(1000):
        limits.count(f"user{n}", f"10.0.{n // 250}.{n % 250}")
    assert len(limits._attempts) == 100
