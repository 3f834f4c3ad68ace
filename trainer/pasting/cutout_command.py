"""The command `edge-train cutout`: find the object in catalogue pictures, refine its alpha, remove the background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset_formats.decode import read_image
from edge.errors import CaptureError, TrainError
from edge.imaging.image import encode_cutout, encode_image, resize
from edge.inference.preprocess import to_canvas
from edge.types import Image
from trainer.data.crops import predict
from trainer.data.masks import fault_of
from trainer.models.localiser_network import STRIDE, MaskNetwork
from trainer.models.networks import ModelCard, load_model

_BAND = 0.02  # share of the longer side: alpha is estimated this far to either side of the mask's edge
_LONGEST_PX = 800  # larger pictures are shrunk: memory and time of closed-form matting grow with the pixels


def predict_mask(model: MaskNetwork, card: ModelCard, image_rgb: Image) -> NDArray[np.uint8]:
    """Return the mask of the object in a picture: (h, w), 0..255, of the picture's size."""
    spec = card.preprocess
    canvas, placed = to_canvas(spec, image_rgb)
    logits = predict(model, canvas[None], spec)[0, 0]
    share = np.asarray(np.rint(255.0 / (1.0 + np.exp(-logits))), np.uint8)
    height, width = image_rgb.shape[:2]
    high, wide = round(height * placed.scale_y / STRIDE), round(width * placed.scale_x / STRIDE)
    return resize(share[: max(1, high), : max(1, wide)], width, height)


def matted_cutout(image_rgb: Image, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Refine a mask to alpha and remove the background from the object's colours: (h, w, 4) RGBA.

    Raises:
        TrainError: the mask has no certain object or no certain background.
    """
    from trainer.pasting.matting import foreground_colours, refine_alpha

    alpha = refine_alpha(image_rgb, mask, max(2, round(_BAND * max(mask.shape))))
    return np.dstack([foreground_colours(image_rgb, alpha), alpha])


def on_white(cutout: NDArray[np.uint8]) -> Image:
    """Lay a cut-out (h, w, 4) on white."""
    share = cutout[..., 3:].astype(np.float32) / 255.0
    return np.asarray(np.rint(255.0 + share * (cutout[..., :3].astype(np.float32) - 255.0)), np.uint8)


def write_cutouts(run: Path, pictures: Sequence[Path], out: Path) -> dict[str, str]:
    """Write `NAME.png` with alpha and `NAME.white.jpg` for each picture.

    Args:
        run: run folder of a localiser.
        pictures: pictures of one object each.
        out: folder to write to, made if missing.

    Returns:
        the reason for each picture that was not cut out, by path.

    Raises:
        TrainError: the run is not a localiser's.
    """
    model, card = load_model(run)
    if not isinstance(model, MaskNetwork):
        raise TrainError(f"{run}: this is a {card.kind}; give the run folder of a localiser")
    out.mkdir(parents=True, exist_ok=True)
    failed = {}
    for path in pictures:
        try:
            cutout = _cut(model, card, path)
        except (CaptureError, TrainError) as error:
            failed[str(path)] = str(error)
            continue
        (out / f"{path.stem}.png").write_bytes(encode_cutout(cutout))
        (out / f"{path.stem}.white.jpg").write_bytes(encode_image(on_white(cutout), ".jpg", 95))
    return failed


def _cut(model: MaskNetwork, card: ModelCard, path: Path) -> NDArray[np.uint8]:
    picture = read_image(path)
    shrink = min(1.0, _LONGEST_PX / max(picture.shape[:2]))
    if shrink < 1.0:
        picture = resize(picture, round(picture.shape[1] * shrink), round(picture.shape[0] * shrink), "area")
    mask = predict_mask(model, card, picture)
    if fault := fault_of(mask):
        raise TrainError(f"{path}: {fault}")
    return matted_cutout(picture, mask)
