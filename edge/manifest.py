"""The typed tree of `bundle.json`.

Rules this module keeps:
1. No path leaves the bundle folder: relative, forward slashes, no `..`, no link.
2. Everything a model needs (size, colour, layout, labels, thresholds) is here, never in code or device YAML.
3. Unknown keys are kept out of the way and ignored, so that an older device reads a newer manifest (TUF ADR 0008).
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.errors import BundleError, first_fault
from edge.finder_shape import FinderShape

SCHEMA = 1
Target = Literal["fp32", "ort-u8", "openvino", "tensorrt-s8"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
_ALLOWED_SUFFIXES = {".onnx", ".json", ".npy", ".bin", ".png", ".jpg"}


def _inside_folder(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or re.match(r"^[A-Za-z]:", path):
        raise ValueError(f"path {path!r} leaves the bundle folder, expected a relative path inside it")
    if pure.suffix not in _ALLOWED_SUFFIXES:
        raise ValueError(f"path {path!r} has suffix {pure.suffix!r}, expected one of {sorted(_ALLOWED_SUFFIXES)}")
    return path


RelativePath = Annotated[str, AfterValidator(_inside_folder)]


class _Tree(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class FileEntry(_Tree):
    """One file of the bundle."""

    path: RelativePath
    size: Annotated[int, Field(ge=0)]  # bytes
    sha256: Sha256


class Preprocess(_Tree):
    """How a crop or frame becomes the model's input. Normalisation itself is folded into the graph."""

    width: Annotated[int, Field(ge=1)]  # pixels
    height: Annotated[int, Field(ge=1)]
    resize: Literal["stretch", "letterbox"] = "stretch"  # letterbox: top-left aligned, rest filled
    fill: int = 114  # grey level of the letterbox border
    interpolation: Literal["linear", "area"] = "linear"  # area: averages when shrinking, linear when growing
    layout: Literal["nhwc", "nchw"] = "nhwc"
    dtype: Literal["uint8", "float32"] = "uint8"  # float32 carries 0..255
    colour: Literal["rgb", "bgr"] = "rgb"
    crop_margin: float = 0.0  # the box grows by this fraction of its size on each side before it is cut
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of pixels scaled to 0..1; a record of what the graph does
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Probe(_Tree):
    """One golden crop and what a healthy device answers."""

    path: RelativePath
    category: str
    item_id: str  # the nearest item of the gallery that was packed against
    embedding_i8: list[int]  # the joint vector times 127 over its largest component, rounded


class _Model(_Tree):
    files: dict[Target, RelativePath]  # at least one
    input_name: str
    output_names: list[str]
    preprocess: Preprocess
    ship: Target = "ort-u8"  # the target that won accuracy and latency
    why: str = ""  # why `ship` is what it is
    max_batch: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _ship_exists(self) -> _Model:
        if self.ship not in self.files:
            raise ValueError(f"ship is {self.ship!r}, expected one of {sorted(self.files)}")
        return self


class DetectorModel(_Model):
    """Finds objects in a frame."""

    decoder: Literal["ltrb", "yolox"]  # see edge.inference.postprocess
    strides: list[int]
    labels: list[str]  # ["object"] when class-agnostic
    score_threshold: Annotated[float, Field(gt=0, lt=1)]  # the decoder takes its logit
    iou_threshold: float = 0.6  # non-maximum suppression
    keep_labels: list[str] | None = None  # report only these; None: all

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """What its decoder reads from a batch of so many rows: the outputs, in order."""
        width, height = self.preprocess.width, self.preprocess.height
        if self.decoder == "yolox":
            cells = sum((height // stride) * (width // stride) for stride in self.strides)
            return [(rows, cells, 5 + len(self.labels))]
        return [(rows, 4 + len(self.labels), -(-height // stride), -(-width // stride)) for stride in self.strides]


class ClassifierModel(_Model):
    """Names the meta-category of a crop."""

    labels: list[str]
    temperature: Annotated[float, Field(gt=0)] = 1.0  # logits are divided by it before softmax
    threshold: float = 0.5  # below it the answer is unknown_category, unless a match confirms the category
    descriptor_dim: Annotated[int, Field(ge=0)] = 0  # numbers by which it describes a crop, too; 0: it does not

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """The outputs of a batch of so many rows, in order: one logit per label; the descriptor where it has one."""
        described = [(rows, self.descriptor_dim)] if self.descriptor_dim else []
        return [(rows, len(self.labels)), *described]


class Head(_Tree):
    """One part of the joint embedding."""

    # sum: of the first three, which cannot be taken apart; classifier: the classifier's descriptor
    name: Literal["class", "local", "outline", "sum", "classifier"]
    dim: int


class OpenSet(_Tree):
    """When a nearest item counts as the item."""

    threshold: float = 0.5  # cosine similarity
    slope: float = 20.0  # probability = sigmoid(slope * (score - midpoint))
    midpoint: float = 0.5
    min_margin: float = 0.0  # below it the answer is low_margin
    false_accept: float | None = None  # share of unknown objects that `threshold` is to accept; None: not chosen by it
    operating_points: dict[str, float] = {}  # thresholds for other shares: {"0.01": 0.83, ...}


class CompatibleGallery(_Tree):
    """Galleries of an older embedder that this one's queries may search, as measured when the bundle was packed."""

    space_id: Sha256  # of the older embedder
    category: str
    open_set: OpenSet  # for queries of this embedder among vectors of that one
    old_old: Fraction  # Recall@1 of the older one's queries in its own gallery
    new_old: Fraction  # of this one's queries in the older one's gallery
    new_new: Fraction  # of this one's queries in its own gallery
    queries: int  # that these were measured on
    change_95: tuple[float, float]  # interval of new_old - old_old
    update_gain: float | None = None  # (new_old - old_old) / (new_new - old_old): 1 is as good as embedding anew


class SilhouetteRule(_Tree):
    """How much the outline of an object counts beside its vector, see edge.gallery.rerank.

    The score of such a category is the fused one, of which its OpenSet speaks.
    """

    # absolute: as it lies in its crop; aligned: whatever its place and size; iou_only: by overlap alone, as published
    mode: Literal["absolute", "aligned", "iou_only"] = "absolute"
    weight: Annotated[float, Field(ge=0, le=1)] = 0.0  # of the overlap; 0: outlines are not looked at

    @property
    def counts(self) -> bool:
        """Whether outlines are looked at."""
        return self.weight > 0 or self.mode == "iou_only"


class LocaliserModel(_Model):
    """Finds the object in a crop, pixel by pixel."""

    stride: Annotated[int, Field(ge=1)] = 2  # input pixels per cell of the mask
    # Of the window of the guided filter that an outline is refined with, in longer sides of the crop; 0: it is not.
    guided_radius: Annotated[float, Field(ge=0, le=0.25)] = 0.0

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """The outputs of a batch of so many rows, in order: logits of the object."""
        return [(rows, 1, self.preprocess.height // self.stride, self.preprocess.width // self.stride)]


class EmbedderModel(_Model):
    """Maps a crop of certain categories to a unit vector."""

    categories: list[str]  # served by this model; usually one
    heads: list[Head]
    space_id: Sha256  # see embedding_space_id
    open_set: dict[str, OpenSet] = {}  # by category
    compatible: list[CompatibleGallery] = []
    outline: dict[str, SilhouetteRule] = {}  # by category; a category that is missing goes by its vectors alone
    # Of a cosine, what the classifier's descriptor counts; above 0 it is the last part of the joint vector.
    classifier_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gathering: Fraction = 0.0  # how far its galleries' vectors are moved to their item's mean to be searched

    def compatible_gallery(self, category: str, space_id: str) -> CompatibleGallery | None:
        """What is known of searching another space's gallery; None: it must not be done."""
        return next((c for c in self.compatible if (c.category, c.space_id) == (category, space_id)), None)

    @property
    def dim(self) -> int:
        """Length of the joint vector."""
        return sum(head.dim for head in self.heads)

    @property
    def own_dim(self) -> int:
        """Length of the part of it that is this model's output."""
        return sum(head.dim for head in self.heads if head.name != "classifier")

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """The outputs of a batch of so many rows, in order: the model's part of the joint vector."""
        return [(rows, self.own_dim)]


class FinderModel(_Model):
    """Finds the object of a query picture in a scene; `files` are its trunk."""

    shape: FinderShape
    channels: Annotated[int, Field(ge=1)]  # of the representation
    guide: Annotated[int, Field(ge=0)]  # channels of the scene that the conversion sees beside the heat maps
    conversion: RelativePath  # FP32 ONNX: heat maps and guide to one heat map
    score_threshold: float = 0.6  # of a box: the heat map's peak within, times the likeness of the second look
    # Only finders of before the second look have it; their score_threshold is of another score: not run, see ADR 0010
    map_threshold: float | None = None

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """The trunk's outputs of a batch of so many rows, in order: representation, and guide where there is one."""
        width, height, shape = self.preprocess.width, self.preprocess.height, self.shape
        shapes: list[tuple[int, ...]] = [(rows, self.channels, height // shape.stride, width // shape.stride)]
        if self.guide:
            shapes.append((rows, self.guide, height // shape.map_stride, width // shape.map_stride))
        return shapes


class Manifest(_Tree):
    """A bundle: every model a device runs, and the proof that it is healthy."""

    schema_version: Literal[1] = Field(alias="schema")
    bundle_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,80}$")]
    sequence: Annotated[int, Field(ge=0)]  # a newer bundle has a larger one
    created_at: str  # ISO 8601, UTC
    runtimes: list[Target]  # what at least one file of every model can run on
    files: list[FileEntry]
    detector: DetectorModel | None = None  # None: kiosk framing only
    classifier: ClassifierModel | None = None  # None: the detector's label is the category
    embedders: list[EmbedderModel] = []
    localiser: LocaliserModel | None = None  # None: outlines are not looked at
    finder: FinderModel | None = None  # None: what the detector misses is not looked for
    probes: list[Probe] = []
    evaluation: dict[str, Any] = {}  # tables FP32 beside INT8, as measured when packed
    provenance: dict[str, Any] = {}  # seeds, data cards, tool versions
    waived: list[str] = []  # gates that failed and were waived by name

    @model_validator(mode="after")
    def _files_are_listed(self) -> Manifest:
        listed = {entry.path for entry in self.files}
        models: list[_Model] = [*self.embedders]
        single = (self.detector, self.classifier, self.localiser, self.finder)
        models += [model for model in single if model is not None]
        used = {path for model in models for path in model.files.values()} | {probe.path for probe in self.probes}
        used |= {self.finder.conversion} if self.finder is not None else set()
        if missing := sorted(used - listed):
            raise ValueError(f"files lists no {missing}, expected every file that a model or probe names")
        served = [category for embedder in self.embedders for category in embedder.categories]
        if doubled := sorted({category for category in served if served.count(category) > 1}):
            raise ValueError(f"categories {doubled} are served by two embedders, expected one")
        outlined = sorted(name for e in self.embedders for name, rule in e.outline.items() if rule.counts)
        if outlined and self.localiser is None:
            raise ValueError(f"outlines count in {outlined}, found no localiser, expected one")
        return self

    @model_validator(mode="after")
    def _descriptors_fit(self) -> Manifest:
        for embedder in self.embedders:
            told = [head.dim for head in embedder.heads if head.name == "classifier"]
            given = self.classifier.descriptor_dim if self.classifier is not None else 0
            if told != ([given] if embedder.classifier_share else []):
                raise ValueError(
                    f"the embedder of {embedder.categories} takes {embedder.classifier_share} of a cosine from the "
                    f"classifier and has parts {told} for it, found a classifier that describes by {given} numbers"
                )
            if told and self.classifier and self.classifier.preprocess.crop_margin != embedder.preprocess.crop_margin:
                raise ValueError(
                    f"the embedder of {embedder.categories} takes a part of its vectors from the classifier, found "
                    f"crop_margin {embedder.preprocess.crop_margin}, expected {self.classifier.preprocess.crop_margin}"
                )
        return self

    def embedder_for(self, category: str) -> EmbedderModel | None:
        """The embedder that serves a category."""
        return next((e for e in self.embedders if category in e.categories), None)


def embedding_space_id(
    fp32_sha256: str, preprocess: Preprocess, heads: list[Head], classifier: dict[str, Any] | None = None
) -> str:
    """Name the space that a model's vectors live in: the hash of all that shapes them.

    The FP32 master names it, so that its INT8 forms, proven equivalent when packed, share the space.

    Args:
        fp32_sha256: of the FP32 master.
        preprocess: of the embedder.
        heads: the parts of its vectors.
        classifier: the same of the classifier, and its share, where it has a part in the vectors.
    """
    parts = {
        "fp32": fp32_sha256,
        "preprocess": preprocess.model_dump(mode="json"),
        "heads": [head.model_dump(mode="json") for head in heads],
        "metric": "cosine",
    }
    if classifier is not None:
        parts["classifier"] = classifier
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def parse_manifest(text: str, where: str) -> Manifest:
    """Parse `bundle.json`.

    Args:
        text: its content.
        where: named in errors.

    Raises:
        BundleError: not JSON, or not a manifest this version understands.
    """
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(f"{where}: {first_fault(error)}") from error
