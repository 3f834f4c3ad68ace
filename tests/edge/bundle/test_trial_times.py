"""The race of engines: interleaved, adaptive, and on a busy machine."""

from __future__ import annotations

import numpy as np
import pytest

from edge.bundle.trial_times import fast_ms, race


class Runner:
    """Takes scripted milliseconds, on a clock that only runs advance."""

    def __init__(self, clock, ms, noise=0.0, seed=0) -> None:
        self.clock, self.ms, self.noise = clock, ms, noise
        self.random = np.random.default_rng(seed)
        self.slices: list[int] = []

    def __call__(self, runs):
        taken = [self.ms * (1 + self.noise * self.random.exponential()) for _ in range(runs)]
        self.slices.append(runs)
        self.clock[0] += sum(taken) / 1000
        return taken


def raced(*ms, noise=0.0, budget_s=0.5):
    clock = [0.0]
    runners = [Runner(clock, one, noise, seed) for seed, one in enumerate(ms)]
    taken = race(runners, budget_s)
    return runners, [fast_ms(one) for one in taken], clock[0]


def test_clear_winner_ends_the_race_early():
    _, found, spent_s = raced(1.0, 1.1, noise=0.01, budget_s=100.0)
    assert found == pytest.approx([1.0, 1.1], rel=0.01)
    assert spent_s < 1.0


def test_close_engines_run_until_the_budget_ends():
    runners, _, spent_s = raced(1.0, 1.02, noise=0.1)
    assert 0.5 <= spent_s < 0.6
    assert sum(runners[0].slices) > 100


def test_hopeless_engine_drops_out():
    runners, found, _ = raced(1.0, 1.01, 5.0)
    assert len(runners[2].slices) < len(runners[0].slices) / 2
    assert found[2] == pytest.approx(5.0)


def test_slow_engine_gets_its_three_slices_whatever_the_budget():
    runners, found, _ = raced(2000.0, 3000.0, budget_s=0.1)
    assert [len(one.slices) for one in runners] == [3, 3]
    assert found == [2000.0, 3000.0]


def test_other_work_does_not_change_the_winner():
    for seed in range(20):
        clock = [0.0]
        fast, slow = Runner(clock, 1.0, 0.5, seed), Runner(clock, 1.08, 0.5, seed + 100)
        taken = race([fast, slow], 0.5)
        assert fast_ms(taken[0]) < fast_ms(taken[1])


def test_one_engine_alone_is_timed_briefly():
    _, found, spent_s = raced(1.0, budget_s=10.0)
    assert found == [1.0]
    assert spent_s < 0.1
