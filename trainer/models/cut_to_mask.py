"""The background goes, inside the network: locate the object, lay it on white, then classify or embed it.

As in fused similarity search (CMC 2023, section 3.1), with the project's own localiser instead of U2-Net and matting.
The localiser is a part of the network that uses it. So training, evaluation, the exported file, a gallery and every
device see the same object on the same white, the id of the embedding space covers it, and older devices run it, too.

Rules this module keeps:
1. The localiser sees the crop that the network sees, at its own size, and is never trained here.
2. A mask that covers next to nothing is no object: the crop stays as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge.manifest.model import Preprocess

_LEAST_AREA = 0.02  # of the canvas: a smaller mask is no object
_STEEPNESS = 1e4  # of the step at that area: a static graph has no branches


class CutToMask(nn.Module):
    """Lays the object of a normalised picture on white."""

    scale: Tensor
    shift: Tensor
    white: Tensor

    def __init__(self, localiser: nn.Module, sees: Preprocess, spec: Preprocess) -> None:
        """Wrap a localiser; its weights stay as they are.

        Args:
            localiser: maps (n, 3, h, w) to (n, 1, h / 2, w / 2) logits of the object.
            sees: the input that the localiser was trained on.
            spec: the input of the network that the object is for.
        """
        super().__init__()
        self.localiser = localiser.eval().requires_grad_(requires_grad=False)
        self.sees = sees
        mean, std, seen_mean, seen_std = (
            torch.tensor(one).reshape(1, 3, 1, 1) for one in (spec.mean, spec.std, sees.mean, sees.std)
        )
        # Not saved but built from the card.
        self.register_buffer("scale", std / seen_std, persistent=False)
        self.register_buffer("shift", (mean - seen_mean) / seen_std, persistent=False)
        self.register_buffer("white", (1.0 - mean) / std, persistent=False)

    def train(self, mode: bool = True) -> CutToMask:  # noqa: ARG002 as torch calls it
        """Stay in eval mode: the localiser is never trained here."""
        super().train(mode=False)
        return self

    def masks(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w), normalised for the network, to the object's share of each pixel, (n, 1, h, w)."""
        size, seen = (int(x.shape[2]), int(x.shape[3])), (self.sees.height, self.sees.width)
        # First an average, then linear: the two steps by which a device shrinks a crop, see edge.imaging.pyramid.
        whole = (max(1, size[0] // seen[0]), max(1, size[1] // seen[1]))
        small = _resized(x if whole == (1, 1) else F.avg_pool2d(x, whole), seen)
        share = self.localiser(small * self.scale + self.shift).sigmoid()
        is_empty = ((_LEAST_AREA - share.mean(dim=(2, 3), keepdim=True)) * _STEEPNESS).clamp(0.0, 1.0)
        return _resized(share + (1.0 - share) * is_empty, size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w), normalised, to the same shape."""
        return self.white + self.masks(x) * (x - self.white)


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    if (int(x.shape[2]), int(x.shape[3])) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
