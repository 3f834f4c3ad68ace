"""Cuts the background out of training pictures, with the localiser that becomes a part of the trained network.

The masks are found once, before augmentation, on what a device would see of each crop. So region confusion and every
other augmentation work on an object on white, and a training costs no more than without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge.errors import TrainError
from edge.imaging.image import resize_map
from edge.inference.preprocess import placement_of, to_canvas
from edge.manifest.model import Preprocess
from edge.types import FloatArray, Image
from trainer.data.augment import canvases_to_input
from trainer.models.cut_to_mask import CutToMask
from trainer.models.localiser_network import MaskNetwork
from trainer.models.networks import ModelCard, load_model

_BATCH = 64  # canvases


@dataclass(frozen=True, slots=True)
class BackgroundCut:
    """A localiser, for networks of one input."""

    network: CutToMask
    card: ModelCard  # of the localiser, as the network's card keeps it
    spec: Preprocess  # of the network's input

    def pictures(self, images: Sequence[Image]) -> list[Image]:
        """Return pictures, (h, w, 3) uint8 of any size, with the object of each on white."""
        shown: list[Image] = []
        for start in range(0, len(images), _BATCH):
            part = images[start : start + _BATCH]
            shares = self._shares(np.stack([to_canvas(self.spec, image)[0] for image in part]))
            for image, share in zip(part, shares, strict=True):
                height, width = image.shape[:2]
                placed = placement_of(self.spec, width, height)
                inner = share[: max(1, round(height * placed.scale_y)), : max(1, round(width * placed.scale_x))]
                shown.append(on_white(image, resize_map(inner, width, height)))
        return shown

    def canvases(self, canvases: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return canvases of the network's input, (n, h, w, 3) uint8, with the object of each on white."""
        shown = canvases.copy()
        for start in range(0, len(canvases), _BATCH):
            part = canvases[start : start + _BATCH]
            shown[start : start + _BATCH] = on_white(part, self._shares(part))
        return shown

    def _shares(self, canvases: NDArray[np.uint8]) -> FloatArray:
        with torch.no_grad():
            shares: FloatArray = self.network.masks(canvases_to_input(canvases, self.spec))[:, 0].numpy()
        return shares


def load_cut(run: Path, spec: Preprocess) -> BackgroundCut:
    """Load the localiser of a run folder, for networks of an input.

    Raises:
        TrainError: the run is not a localiser's, or was trained on crops of another shape.
    """
    localiser, card = load_model(run)
    if not isinstance(localiser, MaskNetwork):
        raise TrainError(f"data.cut_to_mask {run}: this is a {card.kind}; give the run folder of a localiser")
    if card.preprocess.resize != spec.resize:
        raise TrainError(
            f"data.cut_to_mask {run}: the localiser was trained with input.resize {card.preprocess.resize}, and the "
            f"recipe has {spec.resize}; set it to {card.preprocess.resize}"
        )
    kept = card.model_copy(update={"data": {}, "recipe": {}})
    return BackgroundCut(CutToMask(localiser, card.preprocess, spec), kept, spec)


def install_cut(cut: BackgroundCut | None, model: nn.Module, card: ModelCard) -> ModelCard:
    """Make the localiser a part of a trained classifier or embedder, in place; return the card that says so.

    Without a cut nothing changes.
    """
    if cut is None:
        return card
    trunk = model.trunk
    trunk.before = nn.Sequential(cut.network, trunk.before)
    return card.model_copy(update={"cut_to_mask": cut.card})


def on_white(pictures: NDArray[np.uint8], shares: FloatArray) -> NDArray[np.uint8]:
    """Lay pictures (..., h, w, 3) on white, where each pixel keeps its share (..., h, w), 0..1."""
    shown = 255.0 + shares[..., None] * (pictures.astype(np.float32) - 255.0)
    return np.asarray(np.rint(shown), np.uint8)
