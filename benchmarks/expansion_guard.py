"""Quality of the masks that self-tuning would keep, cut out of real photos by a trained detector's boxes.

Part of benchmarks/expansion.py. The true boxes of the photos are used for evaluation only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge.inference.postprocess import iou_matrix
from edge.types import FloatArray
from trainer.models.networks import load_model
from trainer.pasting.mask_sources import box_agreement, grabcut
from trainer.pasting.self_tuning.agreement import colour_model, disagreement
from trainer.pasting.self_tuning.rounds import detected_objects, grow_box

PHOTOS = 40


def guard(detector: Path, photos: list[tuple[Path, FloatArray]]) -> dict[str, Any]:
    """Detect objects, mask them, apply the agreement guard, and compare with true boxes.

    Args:
        detector: run folder.
        photos: photos, and the true boxes of each, (n, 4).

    Returns:
        for kept masks and for each reason to drop one: the count, the mean IoU of the detector's box and of the mask's
        extent with the nearest true box, and the share of masks whose extent has an IoU of 0.7 or more.
    """
    module, card = load_model(detector)
    found: dict[str, list[tuple[float, float]]] = {}
    for path, truth in photos[:PHOTOS]:
        for image_rgb, tight_px in detected_objects(module, card, (path,), []):
            box_px = grow_box(tight_px, image_rgb)
            mask = grabcut(image_rgb, box_px)
            reason = disagreement(mask, colour_model(image_rgb, box_px), box_px)
            boxed = float(iou_matrix(np.array([tight_px], np.float32), truth).max())
            masked = 0.0 if mask is None else max(box_agreement(mask, tuple(true.tolist())) for true in truth)
            found.setdefault(reason or "kept", []).append((boxed, masked))
    return {"photos": min(PHOTOS, len(photos))} | {
        reason: {
            "boxes": len(pairs),
            "detector_iou": float(np.mean([pair[0] for pair in pairs])),
            "mask_iou": float(np.mean([pair[1] for pair in pairs])),
            "mask_iou_70": float(np.mean([pair[1] >= 0.7 for pair in pairs])),
        }
        for reason, pairs in sorted(found.items())
    }
