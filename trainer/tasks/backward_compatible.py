"""Backward-compatible training: new embeddings that can be searched among those of an older embedder.

Sources: the old classifier's influence, Shen et al. 2020 (BCT, arXiv 2003.11942), with an item's mean old embedding as
its old class weight, which new items have as well; a pull towards the old vector of the same picture; a warm start.
benchmarks/compatible.py measures each way of training.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from edge.errors import TrainError
from trainer.data.crops import Crops, predict
from trainer.models.networks import ModelCard, load_card
from trainer.tasks.distillation import Teacher, mean_angle
from trainer.tasks.finetune import mean_directions

SCALE = 16.0  # factor on the cosines to the old centres
_SAME = ("kind", "heads", "joint", "preprocess")


class OldEmbedder:
    """The embedder that made the galleries in the field."""

    def __init__(self, folder: Path, new_card: ModelCard, crops: Crops) -> None:
        """Load the old embedder, and embed the training pictures with it.

        Args:
            folder: its run folder.
            new_card: card of the embedder to train.
            crops: training data of the new embedder.

        Raises:
            TrainError: it cannot be used, or its vectors cannot be compared with the new ones.
        """
        card = load_card(folder)
        if wrong := [key for key in _SAME if getattr(card, key) != getattr(new_card, key)]:
            found = "; ".join(f"{key} {getattr(card, key)!s:.80}" for key in wrong)
            raise TrainError(
                f"compatible_with {folder}: found {found}; set {' and '.join(wrong)} of the recipe to match"
            )
        self._teacher = Teacher(folder, new_card)
        vectors = torch.from_numpy(predict(self._teacher.network, crops.train_canvases(), crops.spec))
        self._centres = mean_directions(vectors, torch.from_numpy(crops.item_indices(crops.train)), len(crops.items))

    def losses(self, joint: Tensor, x: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses that keep the new vectors usable in old galleries.

        Args:
            joint: (n, dim) new vectors, of any norm.
            x: (n, 3, h, w) their pictures.
            items: (n,) item index of each picture.

        Returns:
            cross-entropy of the cosines to the old centres, and the mean of 1 - cos to the old vector.
        """
        cosines = F.normalize(joint, dim=1) @ self._centres.to(joint.device).T
        return F.cross_entropy(SCALE * cosines, items), mean_angle(joint, self._teacher.embed(x))
