"""Losses of pytorch-metric-learning, compared with the formulas of their papers."""

from __future__ import annotations

import builtins
import math
from functools import partial

import pytest
import torch

from benchmarks.peer_losses import PeerLoss
from edge.errors import TrainError
from tests.trainer.losses.test_embedding_losses import unit
from tests.trainer.toy import embedder_recipe, write_crops
from trainer.tasks.embedder import train_embedders

LABELS = torch.tensor([0, 0, 1])


def test_contrastive_pulls_to_cosine_one_and_pushes_below_one_half():
    vectors = unit(0, 60, 30)  # cosines: 0.5 within; cos 30 twice to the other
    expected = (1 - 0.5) + (math.cos(math.radians(30)) - 0.5)
    assert float(PeerLoss("contrastive", 2, 2)(vectors, LABELS)) == pytest.approx(expected, abs=1e-5)


def test_triplet_within_the_margin_costs_the_difference():
    vectors = unit(0, 20, 25)
    near, far = (2 * math.sin(math.radians(angle / 2)) for angle in (20, 25))  # of 0: semi-hard; of 20: hard
    assert float(PeerLoss("triplet", 2, 2)(vectors, LABELS)) == pytest.approx(near - far + 0.2, abs=1e-4)


def test_proxy_anchor_of_one_vector_on_its_proxy():
    loss = PeerLoss("proxy_anchor", 2, 2)
    loss.loss.proxies.data = unit(0, 90)
    positive = math.log(1 + math.exp(-32 * (1 - 0.1)))
    negative = math.log(1 + math.exp(32 * (0 + 0.1)))
    expected = positive / 1 + negative / 2  # over proxies with a positive, over all proxies
    assert float(loss(unit(0), torch.tensor([0])).detach()) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["contrastive", "triplet", "proxy_anchor"])
def test_embedder_trains_with_a_peer_loss_only(tmp_path, name):
    recipe = embedder_recipe(write_crops(tmp_path / "data", per_item=9), epochs=6, heads=["class"])
    card = train_embedders(recipe, tmp_path / "run", partial(PeerLoss, name))[0]
    header = (tmp_path / "run/metrics.csv").read_text().splitlines()[0]
    assert "loss_joint" in header
    assert "anchor" not in header
    assert card.metrics["recall_1_train"] >= 0.75


def test_missing_library_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("pytorch_metric_learning"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TrainError, match="pytorch-metric-learning is not installed"):
        PeerLoss("triplet", 2, 2)
