"""Learning rates, against values counted by hand."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from trainer.loop.schedule import learning_rate, plateaus, watched_values
from trainer.recipe import Optimiser

PUBLISHED = Optimiser(name="sgd", lr=0.1, schedule="plateau", watch="loss_val", patience=2, decay=0.5, stop_after=4)


def test_learning_rate_warms_up_and_falls():
    how = Optimiser(lr=1.0, warmup=0.1)
    rates = [learning_rate(how, step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(rates[9], abs=0.01) == 1.0
    assert rates[0] < 0.2
    assert rates[-1] < 0.01


def test_a_plateau_is_so_many_examinations_without_a_better_value_and_is_counted_anew():
    assert [plateaus([1.0, 2.0, 2.0, 1.9, 1.8, 1.7][:n], 2) for n in range(7)] == [0, 0, 0, 0, 1, 1, 2]
    assert plateaus([1.0, 0.9, 1.1, 1.0, 1.2], 2) == 0


def test_the_rate_halves_at_a_plateau_whatever_the_step():
    assert learning_rate(PUBLISHED, 0, 100, [-1.0]) == pytest.approx(0.1)
    assert learning_rate(PUBLISHED, 99, 100, [-1.0, -1.1, -1.2]) == pytest.approx(0.05)


def test_a_loss_is_better_when_smaller_and_unexamined_epochs_do_not_count():
    rows = [{"epoch": 1.0, "loss_val": 0.7}, {"epoch": 2.0}, {"epoch": 3.0, "loss_val": 0.5}]
    assert watched_values(rows, PUBLISHED) == [-0.7, -0.5]
    assert watched_values([{"accuracy": 0.5}], Optimiser(watch="accuracy")) == [0.5]
    assert watched_values(rows, Optimiser()) == []


def test_a_plateau_has_to_say_of_what():
    with pytest.raises(ValidationError, match="watch is null"):
        Optimiser(schedule="plateau")
