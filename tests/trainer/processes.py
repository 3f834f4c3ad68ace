"""Training in separate processes, and the gradients of one step of each kind of network."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import torch

from edge.manifest.embedder import Head
from edge.manifest.model import Preprocess
from tests.trainer.toy import BACKBONE, INPUT, classifier_recipe, embedder_recipe
from trainer import distributed
from trainer.losses.detector_losses import giou, quality_focal
from trainer.losses.embedding_losses import CosineSoftmax, pair_losses
from trainer.models.backbone import Trunk, training_mode
from trainer.models.networks import ModelCard, build_model
from trainer.tasks.classifier import train_classifier
from trainer.tasks.embedder import EmbedderTask, train_embedders

PLAIN = {  # no augmentation: every process makes the same pictures
    "scale": (1, 1),
    "shift": 0,
    "stretch": 0,
    "rotate_deg": 0,
    "perspective": 0,
    "colour": 0,
    "blur": 0,
    "noise": 0,
    "erase": 0,
}


def card_of(kind: str) -> ModelCard:
    return ModelCard(
        kind=kind,
        backbone=BACKBONE["name"],
        preprocess=Preprocess(**INPUT),
        strides=BACKBONE["strides"],
        width=16,
        labels=["a", "b", "c"],
        heads=[Head(name=name, dim=8) for name in ("class", "local", "outline")],
    )


def loss_of(kind: str, model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """A loss with terms across the whole batch: pairs, and a count of the learned cells."""
    labels = tensors["label"]
    if kind == "classifier":
        return torch.nn.functional.cross_entropy(model(tensors["x"]), labels)
    if kind == "embedder":
        parts = model.parts(tensors["x"])
        torch.manual_seed(5)
        anchor = CosineSoftmax(8, 3, decorrelation=0.1)
        pairs = pair_losses(parts, parts, labels, "guarded")
        return torch.stack([anchor(v, labels) for v in parts.values()] + list(pairs.values())).sum()
    rows = model(tensors["x"])[0].flatten(2).transpose(1, 2)
    learned = labels[:, None].expand(rows.shape[:2]) > 0
    _, generalised = giou(rows[..., :4][learned], torch.ones_like(rows[..., :4][learned]))
    quality = learned[..., None].float().expand_as(rows[..., 4:])
    return (quality_focal(rows[..., 4:], quality) + (1 - generalised).sum()) / learned.sum()


def step(kind: str) -> dict[str, torch.Tensor]:
    """Gradients and batch statistics after one batch of eight, sharded among the processes."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    model = build_model(card_of(kind)).train()
    x = torch.randn(8, 3, INPUT["height"], INPUT["width"])
    whole = {"x": x, "label": torch.tensor([0, 0, 1, 1, 2, 2, 1, 0])}
    mine = torch.from_numpy(distributed.shard(np.arange(8)))
    torch.manual_seed(4)  # of the dropout
    with training_mode([part for part in model.modules() if isinstance(part, Trunk)], None):
        loss = loss_of(kind, model, distributed.gather_batch({key: value[mine] for key, value in whole.items()}))
        loss.backward()
    distributed.average_gradients(model)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach()} | found | {k: v for k, v in model.state_dict().items() if "running" in k}


def together(index: Path, out: Path, environment: dict[str, str]) -> None:
    """Run one of several processes: gradients into OUT/RANK.pt, a training into OUT/RANK."""
    torch.set_num_threads(1)
    with distributed.process_group(environment):
        rank = str(distributed.rank())
        found = {kind: step(kind) for kind in ("classifier", "embedder", "detector")}
        torch.save(found | {"seed": distributed.rank_seed(7)}, out / f"{rank}.pt")
        train_classifier(classifier_recipe(index, epochs=2, augment=PLAIN), out / rank)


def killed(index: Path, out: Path) -> None:
    """Train, and be killed in the middle of the third epoch."""
    torch.set_num_threads(1)
    batch, begin, begun = EmbedderTask.batch, EmbedderTask.begin_epoch, []

    def counts(self: EmbedderTask, epoch: int, rng: np.random.Generator) -> None:
        begun.append(epoch)
        begin(self, epoch, rng)

    def dies(self: EmbedderTask, number: int, rng: np.random.Generator) -> object:
        if begun[-1] == 2 and number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(self, number, rng)

    EmbedderTask.batch, EmbedderTask.begin_epoch = dies, counts
    train_embedders(embedder_recipe(index, epochs=4, batches_per_epoch=3), out)
