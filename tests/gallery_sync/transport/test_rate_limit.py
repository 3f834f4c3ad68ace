"""The token bucket: never more than its rate and one piece, whatever the clock does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gallery_sync.transport.rate_limit import RateLimit


class Clock:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.now_s += seconds

    def limit(self, bytes_per_s: float) -> RateLimit:
        return RateLimit(bytes_per_s, clock=lambda: self.now_s, sleep=self.sleep)


@pytest.mark.parametrize("rate", [1.0, 100.0, 5_000.0, 1e6, 1e9])
def test_average_is_the_rate(rate):
    clock = Clock()
    limit = clock.limit(rate)
    for _ in range(200):
        limit.take(limit.piece_bytes)
    assert clock.now_s - 100 == pytest.approx(200 * limit.piece_bytes / rate)
    assert limit.waited_s == pytest.approx(sum(clock.slept))


@given(st.lists(st.tuples(st.integers(0, 65536), st.floats(0, 30)), max_size=50))
def test_never_more_than_the_rate_and_a_piece(steps):
    clock = Clock()
    limit = clock.limit(10_000)
    read = 0
    for count, pause_s in steps:
        clock.now_s += pause_s
        limit.take(count)
        read += count
        assert read <= (clock.now_s - 100) * 10_000 + limit.piece_bytes + 1


def test_long_pause_gives_one_piece():
    clock = Clock()
    limit = clock.limit(1000)
    clock.now_s += 1e6
    limit.take(1024)
    assert clock.slept == []
    limit.take(1024)
    assert clock.slept == [1.024]


def test_clock_that_goes_back_waits_longer():
    clock = Clock()
    limit = clock.limit(1000)
    limit.take(1000)
    clock.now_s -= 50
    limit.take(1000)
    assert clock.slept == [1.0, 2.0]
