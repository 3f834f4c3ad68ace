"""Training of the localiser, which finds the pixels of the object in a crop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edge.errors import TrainError
from edge.imaging.image import resize
from edge.inference.preprocess import to_canvas
from edge.manifest.model import Preprocess
from trainer.data.augment import augment_masked, canvases_to_input, pad
from trainer.data.batches import plain_batches
from trainer.data.crops import predict
from trainer.data.masks import MaskedPictures, load_masked, of_splits, read_masked
from trainer.distributed import require_single_process
from trainer.loop.batch import Batch
from trainer.loop.training_loop import fit
from trainer.metrics import bootstrap
from trainer.model_setup import card_of, data_summary, preprocess_of
from trainer.models.localiser_network import COARSEST, STRIDE, MaskNetwork
from trainer.models.networks import ModelCard, build_model, freeze_parts, load_model, save_model
from trainer.recipe import LocaliserRecipe

_HEADROOM = 1.3  # training pictures are kept at this multiple of the canvas, for zooming in


class LocaliserTask:
    """Cross-entropy and overlap of every side output with the true mask (deep supervision, U2-Net §3.3)."""

    def __init__(
        self, recipe: LocaliserRecipe, train: MaskedPictures, val: MaskedPictures, model: MaskNetwork, spec: Preprocess
    ) -> None:
        self.recipe = recipe
        self.module: MaskNetwork = model
        self._train, self._spec = train, spec
        self._val = _canvases(val, spec), true_masks(val, spec)
        self.plan: list[NDArray[np.int64]] = []

    def steps(self) -> int:
        """Return the number of batches in an epoch."""
        return max(1, len(self._train.samples) // self.recipe.optimiser.batch)

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the backbone, if there is one."""
        return self.module.trunk_parameters()

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:  # noqa: ARG002
        """Shuffle the pictures."""
        self.plan = plain_batches(len(self._train.samples), self.recipe.optimiser.batch, rng)

    def batch(self, step: int, rng: np.random.Generator) -> Batch:
        """Augment the pictures of one batch with their masks, and paste some on other pictures."""
        contents, covers = [], []
        for i in self.plan[step]:
            other = int(rng.integers(len(self._train.images)))
            under = self._train.images[other] if rng.random() < self.recipe.paste and other != i else None
            content, cover = augment_masked(
                self._train.images[i], self._train.masks[i], self._spec, self.recipe.augment, rng, under
            )
            contents.append(content)
            covers.append(cover)
        masks = np.zeros((len(covers), 1, self._spec.height, self._spec.width), np.float32)
        for mask, cover in zip(masks, covers, strict=True):
            mask[0, : cover.shape[0], : cover.shape[1]] = cover / np.float32(255.0)
        x = canvases_to_input(pad(contents, self._spec), self._spec)
        tensors = {"x": x, "mask": F.avg_pool2d(torch.from_numpy(masks), STRIDE)}
        return Batch(tensors, [str(self._train.samples[i].path) for i in self.plan[step]])

    def loss(self, tensors: dict[str, Tensor], done: float) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the loss of the fused mask, and the sum over the side outputs."""
        fused, *sides = self.module.all_masks(tensors["x"])
        return {
            "fused": mask_loss(fused, tensors["mask"]),
            "sides": torch.stack([mask_loss(side, tensors["mask"]) for side in sides]).sum(),
        }

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Return the mean IoU with the validation masks."""
        canvases, masks = self._val
        if not len(canvases):
            return {}
        return {"iou": float(iou_of_masks(predict(module, canvases, self._spec), masks).mean())}


def mask_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Return the binary cross-entropy plus 1 - soft IoU, averaged over pictures; both inputs are (n, 1, h, w)."""
    found = logits.sigmoid()
    both = (found * mask).sum(dim=(1, 2, 3))
    either = (found + mask - found * mask).sum(dim=(1, 2, 3))
    return F.binary_cross_entropy_with_logits(logits, mask) + (1.0 - (both + 1.0) / (either + 1.0)).mean()


def iou_of_masks(logits: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the IoU of each predicted mask, (n, 1, h, w) logits, with the true mask, (n, h, w)."""
    found = logits[:, 0] > 0
    both, either = (found & masks).sum(axis=(1, 2)), (found | masks).sum(axis=(1, 2))
    return np.asarray(both / np.maximum(either, 1), np.float64)


def _canvases(pictures: MaskedPictures, spec: Preprocess) -> NDArray[np.uint8]:
    listed = [to_canvas(spec, image)[0] for image in pictures.images]
    return np.stack(listed) if listed else np.zeros((0, spec.height, spec.width, 3), np.uint8)


def true_masks(pictures: MaskedPictures, spec: Preprocess) -> NDArray[np.bool_]:
    """Return the true masks at the size of the network's output: (n, height / 2, width / 2)."""
    black = spec.model_copy(update={"fill": 0})
    rows = []
    for mask in pictures.masks:
        canvas = to_canvas(black, np.repeat(mask[..., None], 3, axis=2))[0]
        rows.append(resize(canvas, spec.width // STRIDE, spec.height // STRIDE, "area")[..., 0] >= 128)
    return np.stack(rows) if rows else np.zeros((0, spec.height // STRIDE, spec.width // STRIDE), np.bool_)


def _start(recipe: LocaliserRecipe, data: dict[str, Any]) -> tuple[MaskNetwork, ModelCard]:
    """Return the network before training, and its card.

    Raises:
        TrainError: the run to start from cannot be used, or has another shape; or the backbone cannot be built.
    """
    backbone = recipe.backbone
    options = {} if backbone is None else backbone.options
    name = "" if backbone is None else backbone.name
    if backbone is not None and backbone.strides is not None:
        raise TrainError("backbone.strides: a localiser reads every map; remove it")
    card = card_of(recipe, data, backbone=name, backbone_options=options, strides=[STRIDE])
    published = "none" if backbone is None or recipe.init_from is not None else backbone.pretrained
    model = build_model(card, published)
    assert isinstance(model, MaskNetwork)
    if recipe.init_from is not None:
        _init_from(recipe.init_from, model, card)
    return model, card


def _init_from(folder: Path, model: MaskNetwork, card: ModelCard) -> None:
    source, before = load_model(folder)
    keys = ("kind", "backbone", "backbone_options", "width")
    wrong = [key for key in keys if getattr(card, key) != getattr(before, key)]
    if card.preprocess.mean != before.preprocess.mean or card.preprocess.std != before.preprocess.std:
        wrong.append("mean and std")
    if wrong:
        raise TrainError(f"init_from {folder}: this run differs from the recipe in {', '.join(wrong)}")
    model.load_state_dict(source.state_dict())


def train_localiser(recipe: LocaliserRecipe, out: Path) -> ModelCard:
    """Train, and save the model into `out`.

    Raises:
        TrainError: the data is unusable, or training failed.
    """
    require_single_process("localiser")
    spec, data = preprocess_of(recipe), recipe.data
    if spec.width % COARSEST or spec.height % COARSEST:
        raise TrainError(f"input is {spec.width}x{spec.height}, expected multiples of {COARSEST}")
    listed = read_masked(data.index, data.root)
    chosen = of_splits(listed, data.train_splits)
    if not chosen:
        raise TrainError(f"{data.index}: no mask belongs to the splits {data.train_splits}; check data.train_splits")
    train = load_masked(chosen, round(_HEADROOM * max(spec.width, spec.height)))
    val = load_masked(of_splits(listed, data.val_splits))
    torch.manual_seed(recipe.seed)
    model, card = _start(recipe, data_summary(data.index, train, val))
    task = LocaliserTask(recipe, train, val, model, spec)
    frozen = [] if recipe.backbone is None else freeze_parts(model, recipe.backbone)
    final = fit(task, recipe.optimiser, out, recipe.seed, recipe.model_dump_json(), frozen)
    if val.samples:
        values = iou_of_masks(predict(final, _canvases(val, spec), spec), true_masks(val, spec))
        metrics = {"iou": float(values.mean()), "iou_interval": list(bootstrap(values, recipe.seed))}
        card = card.model_copy(update={"metrics": metrics | {"images": len(val.samples)}})
    save_model(out, final, card)
    return card
