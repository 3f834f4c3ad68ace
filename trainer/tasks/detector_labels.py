"""Labels of a detector's boxes: detect and measure item by item, for detectors of several labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from edge.errors import TrainError
from edge.inference.preprocess import to_canvas
from edge.types import Image
from trainer.class_metrics import LabelledBoxes, decode_labelled
from trainer.data.augment import canvases_to_input
from trainer.data.detection_sample import DetectionSample
from trainer.data.pictures import load_readable
from trainer.models.networks import ModelCard

_LEAST_SCORE = 0.05
_CHUNK = 16  # pictures in memory at a time


def detect_labelled(module: nn.Module, canvases: Sequence[Image], card: ModelCard) -> list[LabelledBoxes]:
    """Detect the boxes of every canvas with their labels, down to a score of 0.05; boxes are in canvas pixels."""
    device = next(module.parameters()).device
    with torch.no_grad():
        x = canvases_to_input(np.stack(canvases), card.preprocess).to(device)
        return decode_labelled([level.cpu().numpy() for level in module(x)], card.strides, _LEAST_SCORE)


def detect_in_scenes(
    module: nn.Module, card: ModelCard, scenes: Sequence[DetectionSample], names: Sequence[str]
) -> tuple[list[LabelledBoxes], list[LabelledBoxes], list[DetectionSample]]:
    """Detect in whole pictures, a few of them in memory at a time.

    Args:
        module: the detector.
        card: its model card, with its labels.
        scenes: whole pictures with boxes; unreadable ones are logged and left out.
        names: what the label numbers of the scenes stand for. A box of a name that the detector lacks has the label -1.

    Returns:
        found boxes, true boxes and scene of each picture, in pixels of the detector's canvas, with its labels.

    Raises:
        TrainError: no picture can be read.
    """
    numbers = np.array([card.labels.index(name) if name in card.labels else -1 for name in names], np.int64)
    found: list[LabelledBoxes] = []
    truths: list[LabelledBoxes] = []
    kept: list[DetectionSample] = []
    skipped: list[str] = []
    for start in range(0, len(scenes), _CHUNK):
        pictures = load_readable(scenes[start : start + _CHUNK], None)
        skipped += pictures.skipped
        if not pictures.samples:
            continue
        placed = [to_canvas(card.preprocess, image) for image in pictures.images]
        found += detect_labelled(module, [canvas for canvas, _ in placed], card)
        for scene, (_, place) in zip(pictures.samples, placed, strict=True):
            boxes = scene.boxes_px * np.array([place.scale_x, place.scale_y] * 2, np.float32)
            labels = numbers[scene.labels]
            truths.append(LabelledBoxes(boxes, labels, np.ones(len(labels), np.float32)))
            kept.append(replace(scene, labels=labels))
    if skipped and not kept:
        raise TrainError(f"none of {len(scenes)} pictures can be read; the first: {skipped[0]}")
    return found, truths, kept
