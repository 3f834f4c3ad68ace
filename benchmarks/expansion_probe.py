"""Recognition with and without pasted crops on frozen ImageNet features: a linear map trained to convergence.

Part of benchmarks/expansion.py. It trains in seconds, and only the pictures differ, not the state of the trunk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from dataset_formats.records import Sample
from edge.manifest.model import Preprocess
from edge.types import Image
from trainer.data.augment import augment_crop, canvases_to_input, pad
from trainer.data.pictures import load_canvases, load_pictures
from trainer.losses.embedding_losses import CosineSoftmax
from trainer.metrics import rank, recall_at, similarity
from trainer.models.backbone import create_trunk
from trainer.models.networks import pool_grid
from trainer.recipe_parts import Augment

SPEC = Preprocess(
    width=128, height=128, resize="letterbox", interpolation="area", crop_margin=0.0, mean=[0.5] * 3, std=[0.5] * 3
)
AUGMENT = Augment(scale=(0.5, 1.3), shift=0.12, rotate_deg=20.0, flip=True, colour=0.3, erase=0.15)
VIEWS, STEPS, BATCH, DIM = 10, 800, 128, 256  # views of each item


def probe(weights: Path, train: list[Sample], queries: list[Sample], known: list[Sample], seed: int) -> dict[str, Any]:
    """Train a map on views of the training pictures; search each query among the known pictures.

    Args:
        weights: file with the weights of MobileNetV2.
        train: catalogue pictures and pasted crops, if any; half of an item's views are then of pasted crops.
        queries: photos.
        known: a catalogue picture of each item.
        seed: seed of the views and the map.
    """
    trunk = create_trunk("mobilenetv2_100", None, str(weights), {"pad_type": ""}).eval()
    items = sorted({sample.item for sample in known})
    contents, labels = views(train, items, seed)
    features = embed(trunk, pad(contents, SPEC))
    queries, canvases, _ = load_canvases(queries, SPEC)
    known, known_canvases, _ = load_canvases(known, SPEC, ["iconic", "catalogue"])
    query_features, known_features = embed(trunk, canvases), embed(trunk, known_canvases)
    head = learn(features, torch.from_numpy(labels), len(items), seed)
    found = {"views": len(labels), "steps": STEPS, "images": len(queries)}
    for name, mapped in (("", head), ("untuned_", nn.Identity())):
        with torch.no_grad():
            vectors = [F.normalize(mapped(rows), dim=1).numpy() for rows in (query_features, known_features)]
        found |= {name + key: value for key, value in recalls(*vectors, queries, known).items()}
    return found


def views(train: list[Sample], items: list[str], seed: int) -> tuple[list[Image], NDArray[np.int64]]:
    """Return the same number of augmented views of each item."""
    rng = np.random.default_rng(seed)
    pictures = load_pictures(train, round(1.3 * SPEC.width), ["iconic", "catalogue"])
    contents, labels = [], []
    for label, item in enumerate(items):
        mine = [i for i, sample in enumerate(pictures.samples) if sample.item == item]
        pasted = [i for i in mine if pictures.samples[i].split == "train"]
        plain = [i for i in mine if i not in pasted]
        for number in range(VIEWS):
            pool = pasted if pasted and number % 2 else plain
            contents.append(augment_crop(pictures.images[int(rng.choice(pool))], SPEC, AUGMENT, rng))
            labels.append(label)
    return contents, np.array(labels, np.int64)


@torch.no_grad()
def embed(trunk: nn.Module, canvases: NDArray[np.uint8]) -> Tensor:
    """Return the pooled features of canvases, of unit length."""
    parts = [
        pool_grid(trunk(canvases_to_input(canvases[start : start + 64], SPEC))[-1], 1)
        for start in range(0, len(canvases), 64)
    ]
    return F.normalize(torch.cat(parts), dim=1)


def learn(features: Tensor, labels: Tensor, classes: int, seed: int) -> nn.Module:
    """Train a linear map with the embedder's own loss and a cosine schedule."""
    torch.manual_seed(seed)
    head, anchor = nn.Linear(features.shape[1], DIM, bias=False), CosineSoftmax(DIM, classes, 20.0)
    optimiser = torch.optim.AdamW([*head.parameters(), *anchor.parameters()], lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    rng = np.random.default_rng(seed)
    for _ in range(STEPS):
        rows = torch.from_numpy(rng.integers(len(labels), size=BATCH))
        loss = anchor(head(features[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return head.eval()


def recalls(
    vectors: NDArray[np.float32], among: NDArray[np.float32], queries: list[Sample], known: list[Sample]
) -> dict[str, float]:
    """Return Recall@1 and @5 among all known pictures, and Recall@1 among those of the true category."""
    similar = similarity(vectors, among)
    items, known_items = [sample.item for sample in queries], [sample.item for sample in known]
    same = np.array([[one.category == other.category for other in known] for one in queries])
    within = np.where(same, similar, np.float32(-2))
    ranked = rank(similar, items, known_items)
    return {
        "recall_1": float(recall_at(ranked, 1).mean()),
        "recall_5": float(recall_at(ranked, 5).mean()),
        "recall_1_in_true_category": float(recall_at(rank(within, items, known_items), 1).mean()),
    }
