"""The chains of models to evaluate: training runs, a packed bundle, or an untuned trunk, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from dataset_formats.decode import read_picture
from dataset_formats.records import Sample
from edge.bundle.bundle import read_bundle
from edge.errors import TrainError
from edge.gallery.attributes import Attributes, read_attributes
from edge.gallery.generation import read_gallery
from edge.gallery.item_vectors import shrink_items_to_centroid, shrink_to_centroid
from edge.gallery.store import CategoryItems, read_category, read_thumbnail
from edge.imaging.image import decode_image
from edge.inference.engine import Precision
from edge.inference.postprocess import softmax, unit_rows
from edge.inference.preprocess import to_canvas
from edge.inference.stages import Embedder, load_stages
from edge.manifest.embedder import OpenSet
from edge.manifest.model import Preprocess
from edge.telemetry.timing import Timings
from edge.types import FloatArray, Image
from trainer.catalogue.items import common_attributes
from trainer.data.crops import predict
from trainer.data.pictures import cut_out_object, is_plain
from trainer.evaluation.evaluation_set import EvaluationSet
from trainer.evaluation.reference_gallery import ReferenceGallery
from trainer.models.backbone import create_trunk, published_mean_std
from trainer.models.networks import load_card, load_model

_CHUNK = 64  # pictures in memory at a time
BatchFunction = Callable[[Sequence[Image]], FloatArray]


@dataclass(frozen=True, slots=True)
class ModelChain:
    """A classifier and embedders that are evaluated together: one column of the report."""

    name: str
    labels: tuple[str, ...]  # categories of the classifier; empty: no classifier, the true category is used
    classify: BatchFunction | None  # images to (n, labels) probabilities
    embed: dict[str, BatchFunction]  # by category, images to (n, dim), rows of unit length
    crop_margin: float = 0.0  # margin around the object of a trimmed catalogue picture
    category_threshold: float = 0.0  # below it the category is unknown
    open_sets: dict[str, OpenSet] = field(default_factory=dict)
    calibrated: bool = False  # whether thresholds and probabilities were fitted
    # By category, how far a gallery is shrunk to its centroids, see edge.gallery.item_vectors.
    gathering: dict[str, float] = field(default_factory=dict)
    # The same as `embed` for gallery pictures on a plain background, where an embedder treats these apart.
    embed_plain: dict[str, BatchFunction] = field(default_factory=dict)


def chain_of_runs(name: str, classifier: Path | None, embedders: Sequence[Path]) -> ModelChain:
    """Build a chain of training runs, which torch runs.

    The vectors are those of the embedders alone, without the classifier's descriptor. Galleries are not shrunk to their
    centroids.

    Raises:
        TrainError: a folder holds a run of another kind, or cannot be used.
    """
    embed: dict[str, BatchFunction] = {}
    margin = 0.0
    for folder in embedders:
        model, card = load_model(folder)
        _require_kind(card.kind, "embedder", folder)
        margin = card.preprocess.crop_margin
        embed |= dict.fromkeys(card.categories, _torch_function(model, card.preprocess))
    if classifier is None:
        return ModelChain(name, (), None, embed, margin)
    model, card = load_model(classifier)
    _require_kind(card.kind, "classifier", classifier)
    logits, temperature = _torch_function(model, card.preprocess), card.temperature
    return ModelChain(name, tuple(card.labels), lambda images: softmax(logits(images), temperature), embed, margin)


def chain_of_bundle(name: str, folder: Path, precision: Precision = "shipped") -> ModelChain:
    """Build the chain of a packed bundle, with its own engine, preprocessing and thresholds.

    Raises:
        BundleError: it is damaged.
        EngineError: it has no such precision, or cannot run here.
    """
    bundle = read_bundle(folder)
    stages = load_stages(folder, bundle.manifest, "onnxruntime", precision=precision)
    # One function for each embedder, as a device has one: categories that share it are searched beside each other.
    functions = {
        stage: _stage_function(partial(_embed_whole, stage)) for stage in dict.fromkeys(stages.embedders.values())
    }
    embed = {category: functions[stage] for category, stage in stages.embedders.items()}
    embed_plain: dict[str, BatchFunction] = {
        category: _stage_function(partial(_embed_whole, stage, plain=True))
        for category, stage in stages.embedders.items()
        if stage.model.whitening is not None
    }
    margin = max((model.preprocess.crop_margin for model in bundle.manifest.embedders), default=0.0)
    open_sets = {name: rule for model in bundle.manifest.embedders for name, rule in model.open_set.items()}
    gathering = {category: stage.model.gathering for category, stage in stages.embedders.items()}
    coarse = stages.classifier
    classify, threshold = None, 0.0
    labels: tuple[str, ...] = ()
    if coarse is not None:
        classify = _stage_function(lambda image: coarse.classify(image, [_whole(image)], Timings())[0])
        labels, threshold = tuple(coarse.model.labels), coarse.model.threshold
    return ModelChain(
        name,
        labels,
        classify,
        embed,
        margin,
        threshold,
        open_sets,
        calibrated=True,
        gathering=gathering,
        embed_plain=embed_plain,
    )


def chain_of_trunk(name: str, backbone: str, weights: Path, categories: Sequence[str], size_px: int) -> ModelChain:
    """Build the chain of a pretrained trunk that averages its last map, without a classifier: a baseline.

    Raises:
        TrainError: unknown backbone, or weights that do not fit.
    """
    mean, std = published_mean_std(backbone)
    spec = Preprocess(width=size_px, height=size_px, resize="letterbox", interpolation="area", mean=mean, std=std)
    run = _torch_function(_Pooled(create_trunk(backbone, [], str(weights))).eval(), spec)
    return ModelChain(name, (), None, dict.fromkeys(categories, lambda images: unit_rows(run(images))))


def open_peer(name: str, where: str, categories: Sequence[str]) -> ModelChain:
    """Open a peer: a bundle, a folder of runs, an embedder's run, or `BACKBONE@WEIGHTS[@PIXELS]`.

    Raises:
        TrainError: it is none of these.
        FinesightError: it cannot be used.
    """
    if "@" in where:
        backbone, weights, *size = where.split("@")
        return chain_of_trunk(name, backbone, Path(weights), categories, int(size[0]) if size else 224)
    folder = Path(where)
    if (folder / "bundle.json").is_file():
        return chain_of_bundle(name, folder)
    if (folder / "model.json").is_file():
        return chain_of_runs(name, None, [folder])
    runs = [path.parent for path in sorted(folder.glob("*/model.json")) + sorted(folder.glob("*/*/model.json"))]
    kinds = {run: load_card(run).kind for run in runs}
    embedders = [run for run, kind in kinds.items() if kind == "embedder"]
    if not embedders:
        raise TrainError(f"--peer {name}: {folder} holds neither a bundle nor the run of an embedder")
    return chain_of_runs(name, next((run for run, kind in kinds.items() if kind == "classifier"), None), embedders)


def embed_references(chain: ModelChain, evaluation_set: EvaluationSet) -> dict[str, ReferenceGallery]:
    """Embed the gallery pictures by category.

    Raises:
        CaptureError: a picture cannot be read any more.
        EngineError: a model cannot run.
    """
    galleries = {}
    trimmed, margin = evaluation_set.trimmed, chain.crop_margin
    categories = np.array([sample.category for sample in evaluation_set.gallery])
    for category in chain.embed:
        chosen = [sample for sample in evaluation_set.gallery if sample.category == category]
        if not chosen:
            continue
        first = {sample.item: sample for sample in reversed(chosen)}
        vectors = _embed_gallery(chain, category, chosen, trimmed)
        items = tuple(sample.item for sample in chosen)
        gathering = chain.gathering.get(category, 0.0)
        galleries[category] = ReferenceGallery(
            shrink_to_centroid(vectors, items, gathering),
            items,
            partial(_read_first, first, trimmed, margin),
            evaluation_set.gallery_ids[categories == category],
            vectors if gathering else None,
            gathering,
            tuple(sample.camera for sample in chosen),
            _attributes(chosen),
        )
    return galleries


def _embed_gallery(chain: ModelChain, category: str, samples: Sequence[Sample], trimmed: Sequence[str]) -> FloatArray:
    """Embed the gallery pictures of a category, those on a plain background as such: (n, dim)."""
    of_side = {False: chain.embed[category], True: chain.embed_plain.get(category, chain.embed[category])}
    sides = iter([is_plain(sample, trimmed) for sample in samples])
    parts = []
    for images in read_images(samples, trimmed, chain.crop_margin):
        for plain, run in groupby(zip(images, islice(sides, len(images)), strict=True), key=itemgetter(1)):
            parts.append(of_side[plain]([image for image, _ in run]))
    return np.concatenate(parts)


def read_references(chain: ModelChain, bundle: Path, gallery: Path) -> dict[str, ReferenceGallery]:
    """Read the gallery generation of a folder, by category.

    Raises:
        BundleError: the bundle is damaged.
        GalleryError: the gallery is damaged, or of another embedding space.
    """
    manifest, generation = read_bundle(bundle, verify=False).manifest, read_gallery(gallery)
    galleries = {}
    for category in chain.embed:
        model = manifest.embedder_for(category)
        if model is None or category not in generation.categories:
            continue
        path = generation.path(category)
        stored = read_category(path, model.space_id, model.dim)
        if not len(stored.row_item):
            continue
        shrunk = shrink_items_to_centroid(stored, model.gathering)
        items = tuple(stored.item_ids[i] for i in stored.row_item)
        galleries[category] = ReferenceGallery(
            _vectors_of(shrunk),
            items,
            partial(_thumbnail, path),
            unshrunk=_vectors_of(stored),
            attributes=read_attributes(path),
        )
    return galleries


def read_images(samples: Sequence[Sample], trimmed: Sequence[str], margin: float) -> Iterator[list[Image]]:
    """Read the objects of samples, a few at a time: cut to their box, or trimmed in the splits `trimmed`.

    Raises:
        CaptureError: a picture cannot be read.
    """
    for start in range(0, len(samples), _CHUNK):
        pictures: dict[Path, Image] = {}  # holds the latest picture: the crops of one picture follow each other
        images = []
        for sample in samples[start : start + _CHUNK]:
            if sample.path not in pictures:
                pictures = {sample.path: read_picture(sample.path)[0]}
            images.append(cut_out_object(sample, pictures[sample.path], trimmed, margin))
        yield images


class _Pooled(nn.Module):
    """A trunk whose last map is averaged."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w) to (n, channels)."""
        return self.trunk(x)[-1].mean(dim=(2, 3))


def _torch_function(module: nn.Module, spec: Preprocess) -> BatchFunction:
    return lambda images: predict(module, np.stack([to_canvas(spec, image)[0] for image in images]), spec)


def _stage_function(one: Callable[[Image], FloatArray]) -> BatchFunction:
    return lambda images: np.stack([one(image) for image in images])


def _embed_whole(stage: Embedder, image: Image, *, plain: bool = False) -> FloatArray:
    return np.asarray(stage.embed(image, [_whole(image)], Timings(), plain=plain)[0], np.float32)


def _read_first(samples: dict[str, Sample], trimmed: Sequence[str], margin: float, item: str) -> Image:
    return next(read_images([samples[item]], trimmed, margin))[0]


def _attributes(samples: Sequence[Sample]) -> dict[str, Attributes]:
    by_item: dict[str, list[Sample]] = {}
    for sample in samples:
        by_item.setdefault(sample.item, []).append(sample)
    found = {item: dict(common_attributes(listed)) for item, listed in by_item.items()}
    return {item: attributes for item, attributes in found.items() if attributes}


def _vectors_of(stored: CategoryItems) -> FloatArray:
    return unit_rows(stored.vectors_i8.astype(np.float32) * stored.scales[:, None])


def _thumbnail(path: Path, item: str) -> Image | None:
    data = read_thumbnail(path, item)
    return decode_image(data, f"{path}: thumbnail of {item}") if data else None


def _require_kind(found: str, expected: str, folder: Path) -> None:
    if found != expected:
        raise TrainError(
            f"{folder}: this is a {found}; give the run folder of a{'n' * (expected[0] in 'aeiou')} {expected}"
        )


def _whole(image: Image) -> tuple[float, float, float, float]:
    return (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
