"""A chain of models under examination: training runs, a packed bundle, or an untuned trunk, asked in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from edge.bundle.bundle import read_bundle
from edge.errors import TrainError
from edge.gallery.generation import read_gallery
from edge.gallery.item_vectors import gathered, gathered_items
from edge.gallery.store import read_category, read_pictures
from edge.imaging.image import decode_image, read_image, trim
from edge.inference.engine import Precision
from edge.inference.postprocess import softmax, unit_rows
from edge.inference.preprocess import to_canvas
from edge.inference.stages import Embedder, load_stages
from edge.manifest import OpenSet, Preprocess
from edge.telemetry.timing import Timings
from edge.types import FloatArray, Image
from trainer.data.batches import Sample
from trainer.data.crops import answers
from trainer.models.backbone import create_trunk, published_mean_std
from trainer.models.networks import load_card, load_model

_CHUNK = 64  # pictures in memory
Ask = Callable[[Sequence[Image]], FloatArray]


@dataclass(frozen=True, slots=True)
class Recogniser:
    """One column of the report."""

    name: str
    labels: tuple[str, ...]  # categories that the classifier tells apart; empty: the true one is given
    classify: Ask | None  # pictures to (n, labels) probabilities
    embed: dict[str, Ask]  # by category, pictures to (n, dim), rows of unit length
    margin: float = 0.0  # that a catalogue picture is trimmed to
    threshold: float = 0.0  # below it the category is unknown
    open_sets: dict[str, OpenSet] = field(default_factory=dict)
    calibrated: bool = False  # whether thresholds and probabilities are fitted ones
    gathering: dict[str, float] = field(
        default_factory=dict
    )  # of galleries, by category, see edge.gallery.item_vectors


@dataclass(frozen=True, slots=True)
class Reference:
    """The gallery of one category."""

    vectors: FloatArray  # (n, dim), rows of unit length
    items: tuple[str, ...]  # of each row
    picture: Callable[[str], Image | None]  # of an item, for people


def of_runs(name: str, classifier: Path | None, embedders: Sequence[Path]) -> Recogniser:
    """Training runs, by torch.

    Its vectors are the embedders' own: no part of them is the classifier's, and galleries do not gather.

    Raises:
        TrainError: a folder is no such run, or unusable.
    """
    embed: dict[str, Ask] = {}
    margin = 0.0
    for folder in embedders:
        model, card = load_model(folder)
        _require(card.kind, "embedder", folder)
        margin = card.preprocess.crop_margin
        embed |= dict.fromkeys(card.categories, _by_torch(model, card.preprocess))
    if classifier is None:
        return Recogniser(name, (), None, embed, margin)
    model, card = load_model(classifier)
    _require(card.kind, "classifier", classifier)
    logits, temperature = _by_torch(model, card.preprocess), card.temperature
    return Recogniser(name, tuple(card.labels), lambda images: softmax(logits(images), temperature), embed, margin)


def of_bundle(name: str, folder: Path, precision: Precision = "shipped") -> Recogniser:
    """A packed bundle by its own engine, preprocessing and thresholds.

    Raises:
        BundleError: it is damaged.
        EngineError: it has no such form, or cannot be run here.
    """
    bundle = read_bundle(folder)
    stages = load_stages(folder, bundle.manifest, "onnxruntime", precision=precision)
    embed: dict[str, Ask] = {
        category: _by_stage(partial(_embed_by, stage)) for category, stage in stages.embedders.items()
    }
    margin = max((model.preprocess.crop_margin for model in bundle.manifest.embedders), default=0.0)
    open_sets = {name: rule for model in bundle.manifest.embedders for name, rule in model.open_set.items()}
    gathering = {category: stage.model.gathering for category, stage in stages.embedders.items()}
    coarse = stages.classifier
    if coarse is None:
        return Recogniser(name, (), None, embed, margin, 0.0, open_sets, calibrated=True, gathering=gathering)
    classify = _by_stage(lambda image: coarse.classify(image, [_whole(image)], Timings())[0])
    labels, threshold = tuple(coarse.model.labels), coarse.model.threshold
    return Recogniser(name, labels, classify, embed, margin, threshold, open_sets, calibrated=True, gathering=gathering)


def of_trunk(name: str, backbone: str, weights: Path, categories: Sequence[str], size_px: int) -> Recogniser:
    """A pretrained trunk, its last map averaged: what nothing but the published weights can do; no classifier.

    Raises:
        TrainError: unknown backbone, or weights that do not fit.
    """
    mean, std = published_mean_std(backbone)
    spec = Preprocess(width=size_px, height=size_px, resize="letterbox", interpolation="area", mean=mean, std=std)
    ask = _by_torch(_Pooled(create_trunk(backbone, [], str(weights))).eval(), spec)
    return Recogniser(name, (), None, dict.fromkeys(categories, lambda images: unit_rows(ask(images))))


def open_peer(name: str, where: str, categories: Sequence[str]) -> Recogniser:
    """A peer by what its place holds: a bundle, a folder of runs, an embedder's run, or `BACKBONE@WEIGHTS[@PIXELS]`.

    Raises:
        TrainError: it is none of these.
        FinesightError: it is unusable.
    """
    if "@" in where:
        backbone, weights, *size = where.split("@")
        return of_trunk(name, backbone, Path(weights), categories, int(size[0]) if size else 224)
    folder = Path(where)
    if (folder / "bundle.json").is_file():
        return of_bundle(name, folder)
    if (folder / "model.json").is_file():
        return of_runs(name, None, [folder])
    runs = [path.parent for path in sorted(folder.glob("*/model.json")) + sorted(folder.glob("*/*/model.json"))]
    kinds = {run: load_card(run).kind for run in runs}
    embedders = [run for run, kind in kinds.items() if kind == "embedder"]
    if not embedders:
        raise TrainError(f"--peer {name}: found neither bundle nor runs in {folder}, expected an embedder at least")
    return of_runs(name, next((run for run, kind in kinds.items() if kind == "classifier"), None), embedders)


def embedded(recogniser: Recogniser, samples: Sequence[Sample], trimmed: Sequence[str]) -> dict[str, Reference]:
    """The gallery that pictures make, by category; pictures of the split `trimmed` are cut to their object.

    Raises:
        CaptureError: a picture cannot be read.
    """
    made = {}
    for category, ask in recogniser.embed.items():
        chosen = [sample for sample in samples if sample.category == category]
        if not chosen:
            continue
        first = {sample.item: sample.path for sample in reversed(chosen)}
        rows = [ask(images) for images in pictures(chosen, trimmed, recogniser.margin)]
        items = tuple(sample.item for sample in chosen)
        vectors = gathered(np.concatenate(rows), items, recogniser.gathering.get(category, 0.0))
        made[category] = Reference(vectors, items, partial(_read_of, first))
    return made


def stored(recogniser: Recogniser, bundle: Path, gallery: Path) -> dict[str, Reference]:
    """The gallery generation of a folder, by category.

    Raises:
        BundleError: the bundle is damaged.
        GalleryError: the gallery is damaged, or of another embedding space.
    """
    manifest, generation = read_bundle(bundle, verify=False).manifest, read_gallery(gallery)
    made = {}
    for category in recogniser.embed:
        model = manifest.embedder_of(category)
        if model is None or category not in generation.categories:
            continue
        path = generation.path(category)
        held = gathered_items(read_category(path, model.space_id, model.dim), model.gathering)
        vectors = unit_rows(held.vectors_i8.astype(np.float32) * held.scales[:, None])
        items = tuple(held.item_ids[i] for i in held.row_item)
        made[category] = Reference(vectors, items, partial(_thumbnail, path))
    return made


def pictures(samples: Sequence[Sample], trimmed: Sequence[str], margin: float) -> Iterator[list[Image]]:
    """The pictures of samples, a few at a time."""
    for start in range(0, len(samples), _CHUNK):
        chunk = samples[start : start + _CHUNK]
        read = [(sample.split, read_image(sample.path)) for sample in chunk]
        yield [trim(image, margin) if split in trimmed else image for split, image in read]


class _Pooled(nn.Module):
    """A trunk whose last map is averaged."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w) to (n, channels)."""
        return self.trunk(x)[-1].mean(dim=(2, 3))


def _by_torch(module: nn.Module, spec: Preprocess) -> Ask:
    return lambda images: answers(module, np.stack([to_canvas(spec, image)[0] for image in images]), spec)


def _by_stage(one: Callable[[Image], FloatArray]) -> Ask:
    return lambda images: np.stack([one(image) for image in images])


def _embed_by(stage: Embedder, image: Image) -> FloatArray:
    return np.asarray(stage.embed(image, [_whole(image)], Timings())[0], np.float32)


def _read_of(paths: dict[str, Path], item: str) -> Image:
    return read_image(paths[item])


def _thumbnail(path: Path, item: str) -> Image | None:
    data, _ = read_pictures(path, item)
    return decode_image(data, f"{path}: thumbnail of {item}") if data else None


def _require(found: str, expected: str, folder: Path) -> None:
    if found != expected:
        raise TrainError(f"{folder}: found a {found}, expected a{'n' * (expected[0] in 'aeiou')} {expected}")


def _whole(image: Image) -> tuple[float, float, float, float]:
    return (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
