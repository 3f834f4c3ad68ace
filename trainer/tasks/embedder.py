"""Training of an embedder, which tells items apart: up to three heads of different focus on one trunk.

The pairwise losses alone collapse from random weights (Recall@1 0.06 where a cosine softmax gives 0.36). So each head
has a cosine-softmax anchor from the first step, and the pairwise losses are ramped in.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edge.errors import TrainError
from edge.file_names import distinct_file_names
from edge.manifest.embedder import Head
from trainer.data.augment import confuse_regions
from trainer.data.batches import pair_batches, shuffled_batches
from trainer.data.crops import Crops, load_crops, recalibrate_bn
from trainer.data.cut_background import install_cut
from trainer.data.run_data_card import write_crops_card
from trainer.embedder_recipe import EmbedderRecipe
from trainer.loop.batch import Batch
from trainer.loop.training_loop import fit
from trainer.losses.embedding_losses import pair_losses
from trainer.metrics import bootstrap
from trainer.model_setup import card_of, feature_dim, preprocess_of, train_spec_of
from trainer.models.networks import Embedder, ModelCard, build_model, freeze_parts, save_model
from trainer.tasks.backward_compatible import OldEmbedder
from trainer.tasks.distillation import Teacher, mean_angle
from trainer.tasks.embedder_metrics import validate_embedder, validate_shorter, validation_recall
from trainer.tasks.embedder_module import TrainingModule
from trainer.tasks.finetune import base_run_of, fit_projection, imprint_centres, init_from_run, save_centres

log = logging.getLogger(__name__)

_HARDEST = 4  # classes in a hard softmax, where the recipe does not say
SINGLE_ITEMS = "single-items~all"  # folder of the embedder of all categories of one item; no category's is named so


class EmbedderTask:
    """Cosine softmax for each head and pairwise losses that are ramped in, or another loss; optionally distillation."""

    def __init__(
        self,
        recipe: EmbedderRecipe,
        crops: Crops,
        model: Embedder,
        card: ModelCard,
        teacher: Teacher | None = None,
        old_embedder: OldEmbedder | None = None,
    ) -> None:
        self.recipe, self.crops, self.teacher, self.old_embedder = recipe, crops, teacher, old_embedder
        teacher_dim = teacher.dim if teacher and teacher.vector_parts != card.vector_parts else 0
        self.module = TrainingModule(model, len(crops.items), recipe, teacher_dim)
        self._labels = crops.item_indices(crops.train)
        self.plan: list[NDArray[np.int64]] = []

    def centres(self, trained: TrainingModule) -> dict[str, nn.Parameter]:
        """Return the centres of this task's module, or of a copy of it: by head name, (items, dim)."""
        return trained.centres

    def steps(self) -> int:
        """Return the number of batches in an epoch."""
        recipe = self.recipe
        shown = recipe.optimiser.batch
        if self.recipe.uses_pairs:
            shown = min(recipe.classes_per_batch, len(self.crops.items)) * recipe.images_per_class
        return recipe.batches_per_epoch or max(1, len(self.crops.train) // shown)

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that train at the trunk's own rate."""
        return list(self.module.model.trunk.parameters())

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:
        """Shuffle the pictures; for pairwise losses, draw batches of items whose centres are near each other."""
        if not self.recipe.uses_pairs:
            self.plan = shuffled_batches(len(self.crops.train), self.recipe.optimiser.batch, self.steps(), rng)
            return
        nearest = None
        if epoch and self.module.centres:
            centres = F.normalize(next(iter(self.module.centres.values())).detach().cpu(), dim=1)
            nearest = (centres @ centres.T).fill_diagonal_(-2.0).argsort(dim=1, descending=True)[:, :-1].numpy()
        recipe = self.recipe
        self.plan = pair_batches(
            self._labels, recipe.classes_per_batch, recipe.images_per_class, self.steps(), rng, nearest
        )

    def batch(self, step: int, rng: np.random.Generator) -> Batch:
        """Augment the pictures of one batch, and make their region-confusion images."""
        indices, recipe = self.plan[step], self.recipe
        contents = self.crops.augment(indices, recipe.augment, rng)
        tensors = {"x": self.crops.to_input(contents), "item": torch.from_numpy(self._labels[indices])}
        if recipe.uses_region_confusion:
            seed = int(rng.integers(2**31))
            confused = confuse_regions(contents, self.crops.train_spec, recipe.blocks, recipe.neighbourhood, seed)
            tensors["confused"] = self.crops.to_input(confused)
        return Batch(tensors, [str(self.crops.train[i].path) for i in indices])

    def loss(self, tensors: dict[str, Tensor], done: float) -> dict[str, Tensor]:
        """Return the anchor and pair losses of each head; the local head learns from region-confusion images."""
        recipe, model, items = self.recipe, self.module.model, tensors["item"]
        original = model.parts(tensors["x"])
        confused: dict[str, Tensor] = {}
        if recipe.uses_region_confusion:
            with _keep_running_statistics(model):  # only original pictures count, because a device sees no others
                confused = model.parts(tensors["confused"])
        joint = model.join(list(original.values()))
        if self.module.metric_loss is not None:
            parts: dict[str, Tensor] = {recipe.loss: self.module.metric_loss(joint, items)}
        else:
            parts = self._anchors(original, confused, joint, items, done)
        start, full = recipe.pair_ramp
        ramp = min(1.0, max(0.0, (done - start) / max(1e-6, full - start)))
        if ramp * recipe.pairs or not parts:
            weight = recipe.pairs * ramp if parts else 1.0
            pairs = pair_losses(original, confused, items, recipe.mode)
            parts |= {f"{head}_pairs": weight * value for head, value in pairs.items()}
        if self.teacher:
            teacher_vectors = self.teacher.embed(tensors["x"])
            parts["teacher"] = recipe.distil * mean_angle(self.module.to_teacher(joint), teacher_vectors)
        if self.old_embedder:
            old_classes, pull = self.old_embedder.losses(joint, tensors["x"], items)
            parts |= {"old_classes": recipe.old_classes * old_classes, "old_pull": recipe.old_pull * pull}
        return parts

    def _anchors(
        self, original: dict[str, Tensor], confused: dict[str, Tensor], joint: Tensor, items: Tensor, done: float
    ) -> dict[str, Tensor]:
        recipe = self.recipe
        if not recipe.anchor:
            return {}
        for anchor in self.module.anchors.values():
            anchor.hardest = (recipe.hdcl_hardest or _HARDEST) if done >= recipe.hdcl_from else None
        parts = {}
        for head, vectors in original.items():
            anchor = self.module.anchor_of(head)
            loss = anchor(vectors, items)
            if head == "local":
                loss = anchor(confused[head], items) + 0.5 * loss
            parts[f"{head}_anchor"] = recipe.anchor * loss
        if recipe.joint == "sum":
            parts["joint_anchor"] = recipe.anchor * self.module.anchor_of("joint")(joint, items)
        return parts

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Return Recall@1 of validation crops among training crops, and among catalogue pictures if there are any."""
        return {key: float(values.mean()) for key, values in validate_embedder(module.model, self.crops).items()}


@contextmanager
def _keep_running_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norm normalise by the batch without updating its running statistics."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def train_embedders(recipe: EmbedderRecipe, out: Path) -> list[ModelCard]:
    """Train one embedder, or with `one_per_category` one for each category, into `out/<category>`.

    Categories of one item share an embedder, see `_runs_to_train`. The folders are named by `edge.file_names`.

    Args:
        recipe: recipe of the run.
        out: run folder.

    Raises:
        TrainError: the data is unusable, or training failed.
    """
    least = 2 if recipe.uses_pairs else 1
    load = partial(load_crops, each_item=least, smallest_cut=recipe.augment.scale[0])
    crops = load(recipe.data, preprocess_of(recipe), train_spec_of(recipe))
    if recipe.data.categories is None and (unknown := sorted(recipe.each.keys() - set(crops.categories))):
        there = ", ".join(crops.categories)
        log.warning("each: %s: no category of %s; it has %s", ", ".join(unknown), recipe.data.index, there)
    if not recipe.one_per_category:
        return [_train_one(recipe, crops, out)]
    return [_train_one(own, chosen, folder) for own, chosen, folder in runs_by_category(recipe, crops, load, out)]


def runs_by_category(
    recipe: EmbedderRecipe, crops: Crops, load: Callable[..., Crops], out: Path
) -> Iterator[tuple[EmbedderRecipe, Crops, Path]]:
    """Yield the recipe, the pictures and the folder of each category's embedder.

    Args:
        recipe: recipe of the whole run.
        crops: pictures of all categories.
        load: loads the pictures of a category with an input of its own: `load_crops`, or with settings.
        out: run folder.
    """
    for name, categories in _runs_to_train(crops).items():
        own = recipe.for_category(categories[0]) if len(categories) == 1 else recipe
        chosen = crops.of_categories(categories)
        if own.input != recipe.input:
            data = recipe.data.model_copy(update={"categories": categories})
            chosen = load(data, preprocess_of(own), train_spec_of(own))
        starts = {
            key: base_run_of(folder, name)
            for key in ("init_from", "compatible_with")
            if (folder := getattr(own, key)) is not None
        }
        yield own.model_copy(update=starts), chosen, out / name


def _runs_to_train(crops: Crops) -> dict[str, list[str]]:
    """Return the categories of each embedder, by the name of its folder.

    A category of several items has an embedder of its own. One item alone teaches nothing: all categories of one item
    share an embedder, and where there is only one of them, it joins the category with the fewest pictures.
    """
    items: dict[str, set[str]] = {name: set() for name in crops.categories}
    for sample in crops.train:
        items[sample.category].add(sample.item)
    alone = [name for name, own in items.items() if len(own) < 2]
    pictures = Counter(sample.category for sample in crops.train)
    several = sorted(items.keys() - set(alone), key=lambda name: (pictures[name], name))
    folders = distinct_file_names(several)
    runs = {folders[name]: [name] for name in several}
    if len(alone) == 1 and several:
        runs[folders[several[0]]] += alone
    elif alone:
        runs[SINGLE_ITEMS] = alone
    if alone and several:
        log.warning("%s: one item each, so that they share an embedder with others", ", ".join(sorted(alone)))
    return dict(sorted(runs.items()))


def _require_cells(recipe: EmbedderRecipe, stride: int) -> None:
    for spec in preprocess_of(recipe), train_spec_of(recipe):
        columns, rows = spec.width // stride, spec.height // stride
        if recipe.grid > min(columns, rows):
            raise TrainError(
                f"grid is {recipe.grid}, but the last map of a {spec.width}x{spec.height} input has {columns}x{rows} "
                f"cells; set grid to {min(columns, rows)} or less, or enlarge the input"
            )


def _train_one(recipe: EmbedderRecipe, crops: Crops, out: Path) -> ModelCard:
    if len(crops.items) < 2:
        raise TrainError(
            f"{', '.join(crops.categories)}: an embedder needs two or more items; the data has {crops.items}"
        )
    write_crops_card(out, crops, recipe.data)
    torch.manual_seed(recipe.seed)
    heads = [Head(name=name, dim=recipe.dim or feature_dim(recipe)) for name in recipe.heads]
    card = card_of(
        recipe,
        crops.summary(recipe.data),
        grid=recipe.grid,
        categories=crops.categories,
        heads=heads,
        projection=recipe.dim > 0,
        pool=recipe.pool,
        joint=recipe.joint,
        shorter_dims=sorted(recipe.shorter_dims),
    )
    start = recipe.init_from or recipe.compatible_with
    model = build_model(card, recipe.backbone.pretrained if start is None else "none")
    _require_cells(recipe, model.trunk.strides[-1])
    if recipe.fits_projection:
        model.defer_projection()
    text = recipe.model_dump_json() + " ".join(crops.categories)
    teacher = Teacher(recipe.teacher, card) if recipe.teacher else None
    old_embedder = OldEmbedder(recipe.compatible_with, card, crops) if recipe.compatible_with else None
    task = EmbedderTask(recipe, crops, model, card, teacher, old_embedder)
    if start is not None:
        init_from_run(start, model, card, task.centres(task.module), crops)
    if recipe.fits_projection or (start is None and recipe.starts_from_features):
        imprint_centres(model, task.centres(task.module), crops)
    frozen = freeze_parts(model, recipe.backbone.model_copy(update={"freeze_bn": recipe.freezes_bn}))
    faster = dict.fromkeys(task.centres(task.module).values(), recipe.centre_lr)
    trained = fit(task, recipe.optimiser, out, recipe.seed, text, frozen, faster)
    final = trained.model
    if not recipe.freezes_bn:
        final = recalibrate_bn(final, crops, recipe.seed, lambda m: validation_recall(m, crops))
    centres = fit_projection(final, task.centres(trained), crops, recipe.dim)
    values = validate_embedder(final, crops) | validate_shorter(final, crops, card)
    metrics: dict[str, object] = {key: float(value.mean()) for key, value in values.items()}
    metrics |= {f"{key}_interval": list(bootstrap(value, recipe.seed)) for key, value in values.items()}
    card = card.model_copy(update={"metrics": metrics | {"images": len(crops.val)}})
    card = install_cut(crops.cut, final, card)
    save_model(out, final, card)
    save_centres(out, centres, crops.items)
    return card
