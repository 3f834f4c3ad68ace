"""The background goes: the object on white, in the network that embeds or classifies it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edge.manifest.model import Preprocess
from trainer.models.cut_to_mask import CutToMask

SPEC = Preprocess(width=64, height=64, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
SEES = Preprocess(width=32, height=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


class RedIsObject(nn.Module):
    """A localiser of red things, at half its input's size; keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.zeros(0)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        rgb = nn.functional.avg_pool2d(x * 0.5 + 0.5, 2)
        return 80.0 * (rgb[:, :1] - rgb[:, 1:2] - 0.3)


def normalised(pixels: np.ndarray, spec: Preprocess) -> Tensor:
    """Map (h, w, 3) bytes to (1, 3, h, w)."""
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    return (x - torch.tensor(spec.mean).reshape(1, 3, 1, 1)) / torch.tensor(spec.std).reshape(1, 3, 1, 1)


def red_square() -> np.ndarray:
    picture = np.full((64, 64, 3), (30, 90, 160), np.uint8)
    picture[16:48, 16:48] = (230, 40, 50)
    return picture


def test_object_stays_and_its_background_is_white():
    cut = CutToMask(RedIsObject(), SEES, SPEC)
    expected = np.full((64, 64, 3), 255, np.uint8)
    expected[16:48, 16:48] = (230, 40, 50)
    found, wanted = cut(normalised(red_square(), SPEC)), normalised(expected, SPEC)
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[20:44, 20:44] = True
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[12:52, 12:52] = False
    for part in inside, outside:
        torch.testing.assert_close(found[0, :, part], wanted[0, :, part], atol=0.02, rtol=0)


def test_localiser_sees_the_crop_at_its_own_size_and_normalisation():
    red = RedIsObject()
    CutToMask(red, SEES, SPEC)(normalised(red_square(), SPEC))
    torch.testing.assert_close(red.seen, normalised(red_square()[::2, ::2], SEES), atol=1e-5, rtol=0)


def test_crop_without_an_object_stays_as_it_is():
    x = normalised(np.random.default_rng(0).integers(0, 90, (64, 64, 3)).astype(np.uint8) + np.uint8(60), SPEC)
    small = red_square()
    small[:] = small[0, 0]
    small[:6, :6] = (230, 40, 50)  # less than 2 % of the canvas
    for picture in x, normalised(small, SPEC):
        torch.testing.assert_close(CutToMask(RedIsObject(), SEES, SPEC)(picture), picture, atol=1e-5, rtol=0)


def test_localiser_is_never_trained():
    cut = CutToMask(RedIsObject(), SEES, SPEC)
    nn.Sequential(cut).train()
    assert not any(part.training for part in cut.modules())
    assert not any(parameter.requires_grad for parameter in cut.parameters())
