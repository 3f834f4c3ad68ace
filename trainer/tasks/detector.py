"""Training of the detector."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge.errors import TrainError
from edge.inference.preprocess import to_canvas
from edge.manifest.model import Preprocess
from edge.types import FloatArray, Image
from trainer.class_metrics import decode_labelled
from trainer.data.augment import augment_appearance, augment_scene, canvases_to_input
from trainer.data.batches import plain_batches
from trainer.data.dataset import read_scenes
from trainer.data.pictures import Pictures, load_pictures
from trainer.data.run_data_card import write_scenes_card
from trainer.loop.batch import Batch
from trainer.loop.training_loop import fit
from trainer.losses.detector_losses import giou, quality_focal
from trainer.metrics import Boxes, best_threshold, detection_map
from trainer.model_setup import card_of, data_summary, preprocess_of
from trainer.models.networks import Detector, ModelCard, build_model, freeze_parts, load_model, save_model
from trainer.recipe import DetectorRecipe

_HEADROOM = 2.0  # training scenes are kept at up to this multiple of the canvas, for zooming in
_GIOU_WEIGHT = 2.0


@dataclass(frozen=True, slots=True)
class Cells:
    """All cells of all maps, map by map, row by row."""

    centres_px: FloatArray  # (cells, 2)
    strides_px: FloatArray  # (cells,)
    reach_px: FloatArray  # (cells, 2): smallest and largest distance to a side that the cell's map covers


def cells_of(spec: Preprocess, strides: list[int]) -> Cells:
    """Lay out the cells. A map covers objects up to eight of its strides long, the last map all larger ones."""
    centres, sizes, reach = [], [], []
    for level, stride in enumerate(strides):
        y, x = np.mgrid[: spec.height // stride, : spec.width // stride]
        centres.append((np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * stride)
        sizes.append(np.full(x.size, stride))
        low = 0.0 if level == 0 else 4.0 * strides[level - 1]
        high = np.inf if level == len(strides) - 1 else 4.0 * stride
        reach.append(np.tile([low, high], (x.size, 1)))
    return Cells(*(np.concatenate(parts).astype(np.float32) for parts in (centres, sizes, reach)))


def assign(cells: Cells, boxes_px: FloatArray, radius: float) -> NDArray[np.int64]:
    """Assign a box to each cell, -1 for background: centre sampling (FCOS v2), the smallest of several boxes.

    Args:
        cells: cells of all maps.
        boxes_px: (n, 4).
        radius: radius around the box's centre, in cells.
    """
    if not len(boxes_px):
        return np.full(len(cells.strides_px), -1, np.int64)
    centre = (boxes_px[:, :2] + boxes_px[:, 2:]) / 2
    off = np.abs(cells.centres_px[:, None] - centre[None])  # cells, n, 2
    near = (off <= radius * cells.strides_px[:, None, None]).all(axis=2)
    sides = np.concatenate(
        [cells.centres_px[:, None] - boxes_px[None, :, :2], boxes_px[None, :, 2:] - cells.centres_px[:, None]], axis=2
    )
    inside = sides.min(axis=2) > 0
    farthest = (boxes_px[:, 2:] - boxes_px[:, :2]).max(axis=1)[None] / 2
    fits = (farthest >= cells.reach_px[:, :1]) & (farthest < cells.reach_px[:, 1:])
    area = (boxes_px[:, 2:] - boxes_px[:, :2]).prod(axis=1)
    cost = np.where(near & inside & fits, area[None], np.inf)
    best = cost.argmin(axis=1)
    return np.where(np.isfinite(cost[np.arange(len(best)), best]), best, -1).astype(np.int64)


class DetectorTask:
    """Quality focal loss and GIoU over the cells near an object's centre."""

    def __init__(
        self, recipe: DetectorRecipe, train: Pictures, val: Pictures, model: Detector, card: ModelCard
    ) -> None:
        self.recipe, self.card, self.module = recipe, card, model
        self._train = train
        self._cells = cells_of(card.preprocess, card.strides)
        self._val = scene_canvases(val, card.preprocess)
        self.plan: list[NDArray[np.int64]] = []

    def steps(self) -> int:
        """Return the number of batches in an epoch."""
        return max(1, len(self._train.samples) // self.recipe.optimiser.batch)

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that train at the trunk's own rate."""
        return list(self.module.trunk.parameters())

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:  # noqa: ARG002
        """Shuffle the pictures."""
        self.plan = plain_batches(len(self._train.samples), self.recipe.optimiser.batch, rng)

    def batch(self, step: int, rng: np.random.Generator) -> Batch:
        """Augment the scenes of one batch and assign the targets of each cell."""
        canvases, targets, labels = [], [], []
        for i in self.plan[step]:
            scene, image = self._train.samples[i], self._train.images[i]
            boxes = scene.boxes_px * np.float32(self._train.scales[i])
            canvas, boxes, seen = augment_scene(image, boxes, self.card.preprocess, self.recipe.augment, rng)
            boxes, classes = boxes[seen], scene.labels[seen]
            owner = assign(self._cells, boxes, self.recipe.centre_radius)
            learned = owner >= 0
            target = np.zeros((len(owner), 4), np.float32)
            label = np.full(len(owner), -1, np.int64)
            target[learned], label[learned] = boxes[owner[learned]], classes[owner[learned]]
            canvases.append(augment_appearance(canvas, self.recipe.augment, rng))
            targets.append(target)
            labels.append(label)
        x = canvases_to_input(np.stack(canvases), self.card.preprocess)
        tensors = {
            "x": x,
            "boxes": torch.from_numpy(np.stack(targets)),
            "labels": torch.from_numpy(np.stack(labels)),
        }
        return Batch(tensors, [str(self._train.samples[i].path) for i in self.plan[step]])

    def loss(self, tensors: dict[str, Tensor], done: float) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the score and box losses per assigned cell."""
        rows = torch.cat([level.flatten(2) for level in self.module(tensors["x"])], dim=2).transpose(1, 2)
        learned = tensors["labels"] >= 0
        count = learned.sum().clamp(min=1)
        strides_px, centres_px = (
            torch.from_numpy(of_cells).to(rows.device) for of_cells in (self._cells.strides_px, self._cells.centres_px)
        )
        distances = rows[..., :4][learned] * strides_px.expand_as(learned)[learned][:, None]
        centres = centres_px.expand(len(rows), -1, 2)[learned]
        boxes = torch.cat([centres - distances[:, :2], centres + distances[:, 2:]], dim=1)
        iou, generalised = giou(boxes, tensors["boxes"][learned])
        quality = torch.zeros_like(rows[..., 4:])
        quality[learned] = nn.functional.one_hot(tensors["labels"][learned], quality.shape[2]) * iou.detach()[:, None]
        return {
            "score": quality_focal(rows[..., 4:], quality) / count,
            "box": _GIOU_WEIGHT * (1.0 - generalised).sum() / count,
        }

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Return the mAP on the validation scenes."""
        if not self._val.boxes:
            return {}
        return detection_map(detect(module, self._val.canvases, self.card), self._val.boxes)


@dataclass(frozen=True, slots=True)
class SceneCanvases:
    """Scenes preprocessed for the network."""

    canvases: list[Image]
    boxes: list[FloatArray]  # on the canvas


def scene_canvases(pictures: Pictures, spec: Preprocess) -> SceneCanvases:
    """Preprocess scenes and their boxes as on the device; equal boxes, of whatever classes, are one object."""
    placed = [to_canvas(spec, image) for image in pictures.images]
    boxes = [
        np.unique(scene.boxes_px, axis=0) * np.array([place.scale_x, place.scale_y] * 2, np.float32)
        for scene, (_, place) in zip(pictures.samples, placed, strict=True)
    ]
    return SceneCanvases([canvas for canvas, _ in placed], boxes)


def detect(module: nn.Module, canvases: list[Image], card: ModelCard, batch: int = 32) -> list[Boxes]:
    """Detect the boxes of every canvas, down to a score of 0.05."""
    device = next(module.parameters()).device
    found: list[Boxes] = []
    with torch.no_grad():
        for start in range(0, len(canvases), batch):
            x = canvases_to_input(np.stack(canvases[start : start + batch]), card.preprocess).to(device)
            decoded = decode_labelled([level.cpu().numpy() for level in module(x)], card.strides, 0.05)
            found += [one.unlabelled for one in decoded]
    return found


def validate_detector(module: nn.Module, scenes: SceneCanvases, card: ModelCard) -> dict[str, float]:
    """Return the mAP, and the score threshold with the best F1."""
    if not scenes.boxes:
        return {}
    return measure_boxes(detect(module, scenes.canvases, card), scenes.boxes)


def measure_boxes(found: list[Boxes], truths: list[FloatArray]) -> dict[str, float]:
    """Return the mAP, and the score threshold with the best F1, of found and true boxes by picture."""
    threshold, f1 = best_threshold(found, truths)
    best = {"score_threshold": float(np.clip(threshold, 0.2, 0.6)), "f1": f1, "images": float(len(truths))}
    return detection_map(found, truths) | best


def init_weights(model: Detector, card: ModelCard, folder: Path) -> None:
    """Load the weights of another run.

    Raises:
        TrainError: the run has another shape.
    """
    other, other_card = load_model(folder)
    shared = ("kind", "backbone", "backbone_options", "strides", "width", "preprocess", "labels")
    if wrong := [key for key in shared if getattr(other_card, key) != getattr(card, key)]:
        raise TrainError(f"init_from {folder}: this run differs from the recipe in {', '.join(wrong)}")
    model.load_state_dict(other.state_dict())


def train_detector(recipe: DetectorRecipe, out: Path) -> ModelCard:
    """Train, choose the score threshold, and save the model into `out`.

    Raises:
        TrainError: the data is unusable, or training failed.
    """
    spec = preprocess_of(recipe)
    data = recipe.scenes
    read = partial(
        read_scenes,
        root=data.root,
        class_agnostic=data.class_agnostic,
        least_visible=data.least_visible,
        layout=data.layout,
        split=data.split,
    )
    train_scenes, labels = read(data.train, splits=data.train_splits)
    val_scenes, val_labels = read(data.val or data.train, splits=data.val_splits)
    if labels != val_labels:
        raise TrainError(f"{data.val}: found classes {val_labels}, expected those of {data.train}, {labels}")
    longest = round(_HEADROOM * max(spec.width, spec.height))
    train, val = load_pictures(train_scenes, longest), load_pictures(val_scenes, None)
    write_scenes_card(out, train, val, labels, data)
    torch.manual_seed(recipe.seed)
    card = card_of(recipe, data_summary(data.train, train, val), labels=labels)
    model = build_model(card, recipe.backbone.pretrained if recipe.init_from is None else "none")
    if recipe.init_from is not None:
        init_weights(model, card, recipe.init_from)
    task = DetectorTask(recipe, train, val, model, card)
    frozen = freeze_parts(model, recipe.backbone)
    final = fit(task, recipe.optimiser, out, recipe.seed, recipe.model_dump_json(), frozen)
    metrics = validate_detector(final, scene_canvases(val, spec), card)
    threshold = metrics.get("score_threshold", card.score_threshold)
    card = card.model_copy(update={"metrics": metrics, "score_threshold": threshold})
    save_model(out, final, card)
    return card
