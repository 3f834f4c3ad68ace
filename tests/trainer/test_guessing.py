"""When a model is no better than a guess, and what a training says then."""

from __future__ import annotations

import pytest

from edge.errors import TrainError
from tests.trainer.toy import INPUT
from trainer.metrics import is_a_guess
from trainer.model_setup import require_learned
from trainer.models.networks import ModelCard


@pytest.mark.parametrize(
    ("share", "total", "choices", "guess"),
    [
        (0.1, 100, 10, True),
        (0.25, 100, 10, False),
        (0.5, 20, 2, True),
        (1.0, 20, 2, False),
        (0.02, 200, 60, True),
        (0.1, 200, 60, False),
        (0.0, 9, 10, False),  # too few answers
        (1.0, 50, 1, False),  # nothing to choose from
    ],
)
def test_a_guess_is_told_from_knowledge(share, total, choices, guess):
    assert is_a_guess(share, total, choices) == guess


def card(kind, metrics, **own):
    fixed = {"backbone": "x", "preprocess": INPUT, "strides": [], "width": 0}
    return ModelCard(kind=kind, metrics=metrics, **fixed, **own)


def test_training_at_chance_is_an_error_that_says_what_to_do():
    require_learned(card("classifier", {"accuracy": 0.9, "images": 50}, labels=["a", "b"]))
    with pytest.raises(
        TrainError, match="classifier: 52% of 50 held-out pictures are answered rightly, which is no better"
    ):
        require_learned(card("classifier", {"accuracy": 0.52, "images": 50}, labels=["a", "b"]))
    with pytest.raises(TrainError, match="fruit: 2% of 100"):
        require_learned(
            card("embedder", {"recall_1_train": 0.02, "images": 100}, categories=["fruit"], data={"items": 40})
        )


def test_training_without_held_out_pictures_warns(caplog):
    require_learned(card("embedder", {"images": 0}, categories=["fruit"]))
    assert "fruit: no picture was held out, so nothing is known about how good it is" in caplog.text
