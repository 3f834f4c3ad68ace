"""Every loss against a value computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.losses.embedding_losses import (
    CosineSoftmax,
    centre_correlation,
    cosine_distances,
    hard_cross_entropy,
    pair_losses,
    pull,
    push,
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


def test_decorrelation_adds_mean_absolute_cosine_of_centres():
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


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (0, lambda p: [p[0] - 1, p[1], 0.0]),  # true class among the largest: -(1 - p), the other p
        (2, lambda p: [p[0], p[1], -1.0]),  # not among them: -1
    ],
)
def test_gradient_of_the_hard_loss_is_that_of_the_paper(label, expected):
    logits = torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True)
    hard_cross_entropy(logits, torch.tensor([label]), 2).backward()
    p = torch.softmax(torch.tensor([2.0, 1.0]), dim=0).tolist()
    assert logits.grad[0].tolist() == pytest.approx(expected(p), abs=1e-6)


def test_hard_loss_is_never_negative():
    right = torch.tensor([[3.0, 1.0]], requires_grad=True)
    loss = hard_cross_entropy(right, torch.tensor([0]), 1)
    loss.backward()
    assert (float(loss.detach()), right.grad.abs().sum().item()) == (0.0, 0.0)  # why K is 2 or more
    drawn = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    assert hard_cross_entropy(drawn, torch.arange(50) % 6, 3) >= 0


def test_hardest_above_class_count_means_all_classes():
    logits = torch.tensor([[0.5, -1.0, 2.0]])
    assert float(hard_cross_entropy(logits, torch.tensor([1]), 9)) == pytest.approx(
        float(hard_cross_entropy(logits, torch.tensor([1]), None))
    )


def test_minimising_hdcl_spreads_the_centres():
    """The plus of Eq. 6: with the minus printed in Eq. 11 they would collapse."""
    loss = CosineSoftmax(dim=2, classes=2, scale=4.0, decorrelation=10.0)
    loss.hardest = 2
    loss.centres.data = unit(0, 40)
    loss(unit(20), torch.tensor([0])).backward()
    moved = torch.nn.functional.normalize(loss.centres.detach() - 0.01 * loss.centres.grad, dim=1)
    assert float(moved[0] @ moved[1]) < float(torch.cos(torch.tensor(40.0).deg2rad()))


def test_shorter_dims_are_prefixes_with_the_same_centres():
    loss = CosineSoftmax(dim=3, classes=2, scale=2.0, shorter_dims=[1, 2])
    loss.centres.data = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0]])
    vector, label = torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([1])

    def entropy(cosines):
        return math.log(sum(math.exp(2 * c) for c in cosines)) - 2 * cosines[1]

    by_length = [entropy([0.0, 0.0]), entropy([0.0, 2**-0.5]), entropy([0.0, 2**-0.5])]
    assert float(loss(vector, label).detach()) == pytest.approx(sum(by_length) / 3, abs=1e-6)


def test_decorrelation_of_one_class_is_zero():
    loss = CosineSoftmax(dim=2, classes=1, decorrelation=0.1)
    assert float(loss(unit(5), torch.tensor([0])).detach()) == pytest.approx(0.0, abs=1e-6)


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


def test_literal_outline_head_pushes_what_the_local_head_pulls():
    """On one shared embedding the two are opposed. So each head has its own block and an anchor."""
    labels = torch.tensor([0, 0])
    confused = unit(0, 50).requires_grad_()  # D = 0.36, inside both margins
    losses = pair_losses(
        {"local": unit(0, 0), "outline": unit(0, 0)}, {"local": confused, "outline": confused}, labels, "literal"
    )
    pulled = torch.autograd.grad(losses["local"], confused, retain_graph=True)[0]
    pushed = torch.autograd.grad(losses["outline"], confused)[0]
    torch.testing.assert_close(pulled, -pushed)
    assert pulled.abs().sum() > 0


@pytest.mark.parametrize("mode", ["literal", "guarded"])
def test_pair_losses_pull_same_items_and_push_others(mode):
    angles = torch.tensor([0.0, 40.0, 70.0], requires_grad=True)
    turned = torch.stack([angles.deg2rad().cos(), angles.deg2rad().sin()], dim=1)
    far = {"class": unit(0, 90, 180), "local": unit(0, 90, 180), "outline": unit(0, 90, 180)}
    losses = pair_losses({"class": turned, "outline": turned}, far, torch.tensor([0, 0, 1]), mode)
    of_class = torch.autograd.grad(losses["class"], angles, retain_graph=True)[0]
    assert (
        of_class[0] < 0 < of_class[2] * -1
    )  # descent turns the first vector towards the other of its item, and the third away
    of_outline = torch.autograd.grad(losses["outline"], angles)[0]
    assert of_outline[0] < 0
    assert (of_outline[2] == 0) == (mode == "literal")  # no term between items


def test_items_with_one_picture_have_no_positive_pairs():
    vectors = {"class": unit(0, 90), "local": unit(0, 90), "outline": unit(0, 90)}
    losses = pair_losses(vectors, vectors, torch.tensor([0, 1]), "guarded")
    assert {head: float(value) for head, value in losses.items()} == {"class": 0.0, "local": 0.0, "outline": 0.0}


def test_class_head_alone_needs_no_confused_images():
    losses = pair_losses({"class": unit(0, 10, 90)}, {}, torch.tensor([0, 0, 1]), "guarded")
    assert list(losses) == ["class"]


def test_cosine_distances_of_opposites_is_two():
    assert float(cosine_distances(unit(0, 180))[0, 1]) == pytest.approx(2.0)


def test_label_smoothing_is_that_of_torch():
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0])
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    assert hard_cross_entropy(logits, labels, None, 0.1) == pytest.approx(float(expected), abs=1e-6)


@torch.no_grad()
def test_dropout_acts_in_training_only():
    softmax, vectors, labels = CosineSoftmax(8, 3, dropout=0.5), torch.randn(4, 8), torch.tensor([0, 1, 2, 0])
    assert softmax(vectors, labels) != softmax(vectors, labels)
    softmax.eval()
    assert softmax(vectors, labels) == softmax(vectors, labels)
