"""Every loss against a value computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.losses import (
    CosineSoftmax,
    centre_correlation,
    cosine_distances,
    giou,
    hard_cross_entropy,
    pair_losses,
    pull,
    push,
    quality_focal,
)


def unit(*degrees: float) -> torch.Tensor:
    """Vectors of the plane at these angles."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_cosine_softmax_of_one_right_angle():
    loss = CosineSoftmax(dim=2, classes=2, scale=4.0)
    loss.centres.data = torch.tensor([[3.0, 0.0], [0.0, 0.5]])  # their lengths do not count
    found = loss(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).detach()
    assert float(found) == pytest.approx(math.log(1 + math.exp(-4.0)), abs=1e-6)


def test_decorrelation_adds_the_mean_absolute_cosine_of_centres():
    loss = CosineSoftmax(dim=2, classes=2, scale=4.0, decorrelation=0.1)
    loss.centres.data = unit(0, 120) * 5
    plain = CosineSoftmax(dim=2, classes=2, scale=4.0)
    plain.centres.data = loss.centres.data
    vector, label = unit(10), torch.tensor([0])
    assert float((loss(vector, label) - plain(vector, label)).detach()) == pytest.approx(0.1 * 0.5, abs=1e-6)
    assert float(centre_correlation(unit(0, 120))) == pytest.approx(0.5, abs=1e-6)


def test_hard_cross_entropy_counts_only_the_largest_logits():
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    assert float(hard_cross_entropy(logits, torch.tensor([0]), 2)) == pytest.approx(
        math.log(1 + math.exp(-1)), abs=1e-6
    )
    # The true class outside the largest two: its gradient is -1, as the paper says.
    assert float(hard_cross_entropy(logits, torch.tensor([2]), 2)) == pytest.approx(
        math.log(math.e**2 + math.e), abs=1e-6
    )
    everything = torch.nn.functional.cross_entropy(logits, torch.tensor([1]))
    assert float(hard_cross_entropy(logits, torch.tensor([1]), None)) == pytest.approx(float(everything))


def test_pull_and_push_average_over_violating_pairs():
    distances = torch.tensor([0.05, 0.3, 0.5])  # margins 0.1 and 0.6
    every = torch.ones(3, dtype=torch.bool)
    assert float(pull(distances, every)) == pytest.approx((0.2 + 0.4) / 2, abs=1e-6)
    assert float(push(distances, every)) == pytest.approx((0.55 + 0.3 + 0.1) / 3, abs=1e-6)
    assert float(pull(distances, ~every)) == 0.0


def test_pair_losses_follow_the_pair_table():
    labels = torch.tensor([0, 0, 1])
    original = unit(0, 60, 0)  # D: 0.5 within item 0; 0 and 0.5 to item 1
    confused = unit(0, 90, 0)  # D: 1 within item 0
    vectors = {"class": original, "local": original, "outline": original}
    rcm = {"local": confused, "outline": confused}
    pushed_items = (0.6 + 0.1) / 2
    literal = {k: float(v) for k, v in pair_losses(vectors, rcm, labels, "literal").items()}
    assert literal["class"] == pytest.approx(0.4 + pushed_items, abs=1e-5)
    assert literal["local"] == pytest.approx(0.9 + pushed_items, abs=1e-5)
    assert literal["outline"] == pytest.approx(0.4 + 0.0, abs=1e-5)  # confused ones are beyond the margin already
    guarded = {k: float(v) for k, v in pair_losses(vectors, rcm, labels, "guarded").items()}
    assert guarded["outline"] == pytest.approx(0.4 + pushed_items, abs=1e-5)
    assert guarded["class"] == pytest.approx(literal["class"])


def test_the_literal_outline_pushes_what_the_local_head_pulls():
    """On one shared embedding the two are opposed: why each head has its own block, and an anchor."""
    labels = torch.tensor([0, 0])
    confused = unit(0, 50).requires_grad_()  # D = 0.36, inside both margins
    losses = pair_losses(
        {"local": unit(0, 0), "outline": unit(0, 0)}, {"local": confused, "outline": confused}, labels, "literal"
    )
    pulled = torch.autograd.grad(losses["local"], confused, retain_graph=True)[0]
    pushed = torch.autograd.grad(losses["outline"], confused)[0]
    torch.testing.assert_close(pulled, -pushed)
    assert pulled.abs().sum() > 0


def test_class_head_alone_needs_no_confused_images():
    losses = pair_losses({"class": unit(0, 10, 90)}, {}, torch.tensor([0, 0, 1]), "guarded")
    assert list(losses) == ["class"]


def test_cosine_distances_of_opposites_is_two():
    assert float(cosine_distances(unit(0, 180))[0, 1]) == pytest.approx(2.0)


def test_giou_of_two_apart_squares():
    a, b = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[2.0, 0.0, 3.0, 1.0]])
    iou, generalised = giou(a, b)
    assert float(iou) == 0.0
    assert float(generalised) == pytest.approx(-1 / 3)  # hull 3, union 2
    assert float(giou(a, a)[1]) == pytest.approx(1.0)


def test_quality_focal_of_an_even_chance():
    found = quality_focal(torch.zeros(1), torch.ones(1))
    assert float(found) == pytest.approx(0.25 * math.log(2), abs=1e-6)
