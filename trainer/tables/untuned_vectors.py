"""The vectors of a backbone that was not trained further: the averaged last map of its published weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.tables.table import Request
from trainer.tables.trained_vectors import network_input, vectors_of

if TYPE_CHECKING:
    from torch import nn

    from dataset_formats.records import Sample
    from edge.types import FloatArray


def untuned_vectors(
    request: Request, samples: Sequence[Sample], pixels: int, seed: int = 0
) -> tuple[FloatArray, list[Sample]]:
    """Return the averaged last map of the request's backbone for each readable picture, (n, channels), and its sample.

    Args:
        request: names the backbone and its weights; `none`: random ones.
        samples: pictures of single objects.
        pixels: width and height of the input, unless the request states it.
        seed: of random weights.

    Raises:
        TrainError: unknown backbone, or weights that do not fit.
    """
    import torch

    from edge.manifest.model import Preprocess
    from trainer.models.backbone import create_trunk, published_mean_std

    torch.manual_seed(seed)
    trunk = create_trunk(request.backbone, None, request.weights).eval()
    asked = network_input(request, pixels)
    if asked["mean"] is None:
        asked["mean"], asked["std"] = published_mean_std(request.backbone)
    return vectors_of(_averaged(trunk), samples, Preprocess(**asked, interpolation="area"))


def _averaged(trunk: nn.Module) -> nn.Module:
    from torch import Tensor, nn

    class Averaged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk

        def forward(self, x: Tensor) -> Tensor:
            averaged: Tensor = self.trunk(x)[-1].mean(dim=(2, 3))
            return averaged

    return Averaged().eval()
