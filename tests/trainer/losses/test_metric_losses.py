"""Losses of metric learning against values computed by hand, and against pytorch-metric-learning."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from tests.trainer.losses.test_embedding_losses import unit
from trainer.losses.metric_losses import MARGINS, CentreLoss, metric_loss

LABELS = torch.tensor([0, 0, 1])


def chord(degrees):
    """The distance of two unit vectors at this angle."""
    return 2 * math.sin(math.radians(degrees) / 2)


def test_contrastive_pulls_to_cosine_one_and_pushes_below_one_half():
    vectors = unit(0, 60, 30) * 3  # lengths do not count; cosines: 0.5 within, cos 30 twice to the other
    expected = (1 - 0.5) + (math.cos(math.radians(30)) - 0.5)
    assert float(metric_loss("contrastive", 2, 2)(vectors, LABELS)) == pytest.approx(expected, abs=1e-5)


def test_triplet_within_the_margin_costs_half_the_difference():
    found = metric_loss("triplet", 2, 2)(unit(0, 20, 25), LABELS)  # anchor 0: semi-hard; anchor 20: hard, left out
    assert float(found) == pytest.approx(0.5 * (chord(20) - chord(25) + 0.2), abs=1e-4)


def test_centre_ranking_sums_over_the_other_centres():
    loss = metric_loss("crl", 2, 3, margin=0.5)
    loss.centres.data = unit(10, 30, 180) * 7
    found = loss(unit(0, 30), torch.tensor([0, 1])).detach()
    first = max(0.0, 0.5 + chord(10) - chord(30)) + max(0.0, 0.5 + chord(10) - chord(180))
    second = max(0.0, 0.5 + 0.0 - chord(20)) + max(0.0, 0.5 + 0.0 - chord(150))
    assert float(found) == pytest.approx((first + second) / 2, abs=1e-4)


def test_proxy_anchor_of_one_vector_on_its_proxy():
    loss = metric_loss("proxy_anchor", 2, 2)
    loss.centres.data = unit(0, 90)
    positive = math.log(1 + math.exp(-32 * (1 - 0.1)))
    negative = math.log(1 + math.exp(32 * (0 + 0.1)))
    expected = positive / 1 + negative / 2  # over proxies with a positive, over all proxies
    assert float(loss(unit(0), torch.tensor([0])).detach()) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", list(MARGINS))
def test_gradient_is_finite_where_vectors_coincide(name):
    vectors = unit(0, 0, 0, 90).requires_grad_()
    loss = metric_loss(name, 2, 2)
    if isinstance(loss, CentreLoss):
        loss.centres.data = unit(0, 0)
    loss(vectors, torch.tensor([0, 0, 1, 1])).backward()
    assert torch.isfinite(vectors.grad).all()


def test_losses_and_gradients_are_those_of_pytorch_metric_learning():
    """Margins as in MARGINS. Their triplet loss lacks the half of Eq. 2; they have no centre ranking loss."""
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    from pytorch_metric_learning import distances, miners

    generator = torch.Generator().manual_seed(4)
    centres = torch.randn(6, 8, generator=generator)
    labels = torch.arange(24) % 6
    vectors = normalize(centres[labels] + 0.7 * torch.randn(24, 8, generator=generator), dim=1).requires_grad_()
    cosine = distances.CosineSimilarity()
    miner = miners.TripletMarginMiner(margin=0.2, type_of_triplets="semihard")
    theirs = {
        "contrastive": lambda: losses.ContrastiveLoss(pos_margin=1.0, neg_margin=0.5, distance=cosine)(vectors, labels),
        "triplet": lambda: 0.5 * losses.TripletMarginLoss(margin=0.2)(vectors, labels, miner(vectors, labels)),
        "proxy_anchor": lambda: anchors(vectors, labels),
    }
    anchors = losses.ProxyAnchorLoss(6, 8, margin=0.1, alpha=32)
    for name, other in theirs.items():
        loss = metric_loss(name, 8, 6)
        if isinstance(loss, CentreLoss):
            loss.centres.data = anchors.proxies.data.clone()
        ours, peer = loss(vectors, labels), other()
        assert float(ours.detach()) == pytest.approx(float(peer.detach()), rel=1e-4), name
        (of_ours,), (of_peer,) = (torch.autograd.grad(value, vectors) for value in (ours, peer))
        torch.testing.assert_close(of_ours, of_peer, rtol=1e-3, atol=1e-5)
