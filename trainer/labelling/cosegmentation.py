"""Image co-localisation: where the pictures of a class show the same object, by DDT over a trunk's feature maps.

DDT: deep descriptor transforming, Wei et al. 2017 and 2019.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from edge.errors import TrainError
from edge.inference.postprocess import unit_rows
from edge.inference.preprocess import to_canvas
from edge.manifest.model import Preprocess
from edge.types import FloatArray, Image
from trainer.data.augment import canvases_to_input
from trainer.models.backbone import Trunk, create_trunk, published_mean_std
from trainer.models.networks import load_model

# How the descriptors of the cells enter: as published, or each scaled to unit length, see `colocalise`.
Descriptors = Literal["raw", "unit"]
_SIDE = 448
_OPTIONS = {"output_stride": 16, "pad_type": ""}  # twice the cells of the whole network, by dilation
_SUBSPACE, _ITERATIONS = 16, 60  # exact to rounding where the 17th eigenvalue is below half of the first
_DILATED = ("mobilenetv2", "efficientnet", "tf_efficientnet")  # timm's families that have these options


class FeatureExtractor:
    """A trunk that gives the deepest feature map of a picture."""

    def __init__(self, trunk: Trunk, spec: Preprocess) -> None:
        self._trunk, self._spec = trunk.eval(), spec

    def extract(self, image_rgb: Image) -> FloatArray:
        """Return the deepest feature map of a picture, without the cells that hold only canvas: (h, w, c)."""
        canvas, place = to_canvas(self._spec, image_rgb)
        with torch.no_grad():
            feature = self._trunk(canvases_to_input(canvas[None], self._spec))[-1][0].permute(1, 2, 0).numpy()
        rows = round(image_rgb.shape[0] * place.scale_y * feature.shape[0] / self._spec.height)
        columns = round(image_rgb.shape[1] * place.scale_x * feature.shape[1] / self._spec.width)
        return np.asarray(feature[: max(1, rows), : max(1, columns)], np.float32)


def load_feature_extractor(
    source: Path | str, backbone: str, mean: float | None = None, side: int = _SIDE
) -> FeatureExtractor:
    """Load a trunk from published weights, or from a training run.

    Args:
        source: a safetensors file of the whole network, or a run folder of any kind; as text also a name of published
            weights, as in Backbone.pretrained.
        backbone: timm name of the network in the file; ignored for a run.
        mean: mean and standard deviation of the input that the file's weights were trained on; None: as published.
        side: width and height of the input, in pixels.

    Raises:
        TrainError: there are no weights, or they do not fit the backbone.
    """
    path = Path(source)
    if path.is_dir():
        module, card = load_model(path)
        return FeatureExtractor(module.trunk, card.preprocess.model_copy(update={"width": side, "height": side}))
    if isinstance(source, Path) and not path.is_file():
        raise TrainError(f"{source}: not found; give a safetensors file or a run folder")
    published = published_mean_std(backbone) if mean is None else ((mean,) * 3, (mean,) * 3)
    spec = Preprocess(
        width=side, height=side, resize="letterbox", interpolation="area", mean=published[0], std=published[1]
    )
    options = _OPTIONS if backbone.startswith(_DILATED) else {}
    return FeatureExtractor(create_trunk(backbone, None, str(source), options), spec)


@dataclass(frozen=True, slots=True)
class CommonComponent:
    """The common component of the pictures of a class: the first principal component of their descriptors."""

    mean: FloatArray  # (c,)
    axis: FloatArray  # (c,), its sign such that the pictures' borders are below zero
    largest: float  # largest projection of a cell
    descriptors: Descriptors = "unit"

    def projection(self, feature: FloatArray) -> FloatArray:
        """Map features (h, w, c) to the cells' projections (h, w): above 0 on the common object.

        A picture without any cell above 0 does not show it: noise among the pictures of its class.
        """
        return np.asarray((_scaled(feature, self.descriptors) - self.mean) @ self.axis, np.float32)

    def activation(self, feature: FloatArray) -> FloatArray:
        """Map features (h, w, c) to (h, w), 0..1, above 0 on the common object; 0 everywhere means no such object."""
        return np.asarray((self.projection(feature) / self.largest).clip(0.0, 1.0), np.float32)


def colocalise(features: Iterable[FloatArray], descriptors: Descriptors = "unit") -> CommonComponent | None:
    """Compute the common component of the pictures of a class (DDT); None for fewer than two descriptors.

    The paper takes the descriptors as they are. By default, they are scaled to unit length: a pixel on a card then
    scores higher than one beside it in 93 % of all pairs, without it in 83 % (MobileNetV2, 99 photos of playing cards).
    `edge-train table ddt` compares both. An axis has no sign of its own; here the borders of the pictures are below 0.

    Args:
        features: feature map (h, w, c) of each picture; h and w may differ.
        descriptors: `raw`, as published, or `unit`.
    """
    listed = [_scaled(feature, descriptors) for feature in features]
    rows = np.concatenate([one.reshape(-1, one.shape[2]) for one in listed]) if listed else np.zeros((0, 1), np.float32)
    if len(rows) < 2:
        return None
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = torch.from_numpy(rows - mean)
    axis = _first_axis((centred.T @ centred).double() / len(rows)).numpy().astype(np.float32)
    rim = np.concatenate([np.concatenate([one[0], one[-1], one[1:-1, 0], one[1:-1, -1]]) for one in listed])
    if ((rim - mean) @ axis).mean() > 0:
        axis = -axis
    return CommonComponent(mean, axis, max(float(((rows - mean) @ axis).max()), 1e-6), descriptors)


def _first_axis(covariance: Tensor) -> Tensor:
    """Return the eigenvector of the largest eigenvalue, (c,), by subspace iteration: a whole eigh takes seconds."""
    start = torch.randn(len(covariance), min(_SUBSPACE, len(covariance)), generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(start.double())[0]
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(covariance @ basis)[0]
    _, vectors = torch.linalg.eigh(basis.T @ covariance @ basis)
    return basis @ vectors[:, -1]


def _scaled(feature: FloatArray, descriptors: Descriptors) -> FloatArray:
    return unit_rows(feature) if descriptors == "unit" else np.asarray(feature, np.float32)
