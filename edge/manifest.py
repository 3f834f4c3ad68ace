"""The types of `bundle.json`, the manifest of a bundle.

Rules this module keeps:
1. No path leaves the bundle folder, and each file has one path, see edge.manifest_fields.
2. Everything a model needs (size, colour, layout, labels, thresholds) is here, never in code or device YAML.
3. Unknown keys are ignored, so that an older device can read a newer manifest (TUF ADR 0008).
4. Every list, text and number is bounded, so that no manifest makes a device run out of memory or time.
"""

# no `from __future__ import annotations`: pydantic would compile and evaluate each field's type again at every start

import hashlib
import json
import math
from collections import Counter
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from edge.errors import BundleError, first_validation_error
from edge.finder_shape import FinderShape
from edge.manifest_fields import (
    FormName,
    Fraction,
    IsoTime,
    Name,
    Real,
    RelativePath,
    Sha256,
    at_most,
    conflicting_paths,
    is_form_file,
)
from edge.strict_json import parse_json

SCHEMA = 1
MAX_MANIFEST_BYTES = 8 << 20
MAX_DIM = 16384  # numbers of a joint vector
MAX_ELEMENTS = 1 << 27  # of one input or output of a model: 512 MiB as float32
_MAX_FILES, _MAX_NAMES, _MAX_OUTPUTS = 16_384, 10_000, 16  # files: 1,000 embedders in many forms, with probes
Target = Literal["fp32", "ort-u8", "fp16", "openvino", "tensorrt-s8"]  # first the one that most engines run
_TARGETS: tuple[str, ...] = get_args(Target)


def _known_targets(given: Any) -> Any:
    """Leave out the targets of a newer version."""
    return [one for one in given if one in _TARGETS] if isinstance(given, list) else given


_Positive = Annotated[float, Field(ge=1e-6, le=1e6)]
_Cells = Annotated[int, Field(ge=1, le=1024)]
_Strides = Annotated[list[_Cells], Field(min_length=1, max_length=_MAX_OUTPUTS)]
_Channels = Annotated[int, Field(ge=0, le=MAX_DIM)]
_Vector = Annotated[list[Annotated[int, Field(ge=-128, le=127)]], Field(min_length=1, max_length=MAX_DIM)]
_Boxes = Annotated[list[tuple[Real, Real, Real, Real]], Field(max_length=1000)]
_Names = Annotated[list[Name], Field(max_length=_MAX_NAMES)]
_Runtimes = Annotated[list[Target], Field(max_length=len(_TARGETS)), BeforeValidator(_known_targets)]
_SOME_FILES = Field(min_length=1, max_length=_MAX_FILES)
_Labels = Annotated[list[Name], Field(min_length=1, max_length=_MAX_NAMES)]
_Prose = Annotated[str, Field(max_length=10_000)]


class _ManifestPart(BaseModel):
    # its validator is built once, inside that of the manifest; on its own when it is used alone
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=(), defer_build=True)


class FileEntry(_ManifestPart):
    """One file of the bundle."""

    path: RelativePath  # inside the bundle folder
    size: Annotated[int, Field(ge=0, le=1 << 40)]  # bytes
    sha256: Sha256  # of its content


class Preprocess(_ManifestPart):
    """How a crop or frame becomes the model's input. Normalisation is part of the graph."""

    width: Annotated[int, Field(ge=1, le=8192)]  # pixels
    height: Annotated[int, Field(ge=1, le=8192)]  # pixels
    resize: Literal["stretch", "letterbox"] = "stretch"  # letterbox: top-left aligned, rest filled
    fill: Annotated[int, Field(ge=0, le=255)] = 114  # grey level of the letterbox border
    interpolation: Literal["linear", "area"] = "linear"  # area: averages when shrinking, linear when growing
    layout: Literal["nhwc", "nchw"] = "nhwc"  # order of the axes
    dtype: Literal["uint8", "float32"] = "uint8"  # float32 carries 0..255
    colour: Literal["rgb", "bgr"] = "rgb"  # order of the channels
    crop_margin: Fraction = 0.0  # the box is enlarged by this fraction of its size on each side before cropping
    mean: tuple[Real, Real, Real] = (0.0, 0.0, 0.0)  # of pixels scaled to 0..1; the graph applies it
    std: tuple[_Positive, _Positive, _Positive] = (1.0, 1.0, 1.0)  # standard deviation, like mean


class Probe(_ManifestPart):
    """One golden crop and the answer that a healthy device gives."""

    path: RelativePath  # picture of the crop
    category: Name  # expected category
    item_id: Name  # the nearest item in the gallery used when packing
    embedding_i8: _Vector  # the joint vector times 127 over its largest component, rounded


class SceneProbe(_ManifestPart):
    """One golden picture and objects that the detector of a healthy device finds in it."""

    path: RelativePath  # the whole picture
    boxes_px: _Boxes  # x0 y0 x1 y1 of the objects that the packed detector is sure of
    labels: Annotated[list[Name], Field(max_length=1000)]  # of these boxes, in order

    @model_validator(mode="after")
    def _labels_fit(self) -> "SceneProbe":
        if len(self.labels) != len(self.boxes_px):
            raise ValueError(f"found {len(self.labels)} labels, expected {len(self.boxes_px)}, one for each box")
        return self


class _Model(_ManifestPart):
    files: dict[Target, RelativePath]  # ONNX file of each form; forms that this version does not know are ignored
    other_files: dict[FormName, RelativePath] = {}  # forms in `files` that only a plug-in may run
    input_name: Name  # in the ONNX graph
    output_names: Annotated[list[Name], Field(min_length=1, max_length=_MAX_OUTPUTS)]  # in the ONNX graph, in order
    preprocess: Preprocess  # how the input is prepared
    ship: Target = "ort-u8"  # the target chosen by accuracy and latency
    why: _Prose = ""  # why this target was chosen
    max_batch: Annotated[int, Field(ge=1, le=1024)] = 1  # most frames or crops in one run

    @model_validator(mode="before")
    @classmethod
    def _leave_out_unknown_forms(cls, given: Any) -> Any:
        """Keep the forms that this version knows, if there are any: a newer bundle may hold others, and ship one."""
        files = given.get("files") if isinstance(given, dict) else None
        if not isinstance(files, dict):
            return given
        known = {form: path for form, path in files.items() if form in _TARGETS}
        if not known or len(known) == len(files):
            return given
        others = {form: path for form, path in files.items() if form not in known and is_form_file(form, path)}
        ship = given.get("ship")
        if isinstance(ship, str) and ship in files and ship not in known:
            given = given | {"ship": min(known, key=_TARGETS.index)}
        return given | {"files": known, "other_files": others}

    @property
    def every_file(self) -> dict[str, str]:
        """The file of each form, also of those that only a plug-in may run."""
        return dict([*self.other_files.items(), *self.files.items()])

    @model_validator(mode="after")
    def _ship_exists(self) -> "_Model":
        if self.ship not in self.files:
            raise ValueError(f"ship is {self.ship!r}; choose one of {sorted(self.files)}")
        return self

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """Return the output shapes for a batch, in order."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _tensors_are_bounded(self) -> "_Model":
        spec, shapes = self.preprocess, self.output_shapes(self.max_batch)
        if len(set(self.output_names)) != len(shapes):
            raise ValueError(f"found output_names {self.output_names}, expected {len(shapes)} different names")
        for what, shape in [("input", (self.max_batch, spec.height, spec.width, 3)), *(("output", s) for s in shapes)]:
            if not 0 < math.prod(shape) <= MAX_ELEMENTS:
                raise ValueError(f"its {what} has the shape {list(shape)}, expected 1 to {MAX_ELEMENTS} numbers")
        return self


class DetectorModel(_Model):
    """Finds objects in a frame."""

    decoder: Literal["ltrb", "yolox"]  # form of the output: ltrb as in FCOS, yolox as in YOLOX
    strides: _Strides  # input pixels per cell of each output level
    labels: _Labels  # ["object"] when class-agnostic
    score_threshold: Annotated[float, Field(gt=0, lt=1)]  # lowest score of a detection; the decoder compares its logit
    iou_threshold: Fraction = 0.6  # overlap from which a better box of any reported label suppresses a box
    keep_labels: _Names | None = None  # report only these; boxes of others suppress nothing; None: all

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """Return the output shapes for a batch, in order, as the decoder expects them."""
        width, height = self.preprocess.width, self.preprocess.height
        if self.decoder == "yolox":
            cells = sum((height // stride) * (width // stride) for stride in self.strides)
            return [(rows, cells, 5 + len(self.labels))]
        return [(rows, 4 + len(self.labels), -(-height // stride), -(-width // stride)) for stride in self.strides]


class ClassifierModel(_Model):
    """Names the category of a crop."""

    labels: _Labels  # categories, in the order of the output
    temperature: Annotated[float, Field(ge=1e-4, le=1e4)] = 1.0  # logits are divided by it before softmax
    threshold: Real = 0.5  # below it the answer is unknown_category, unless a match confirms the category
    descriptor_dim: Annotated[int, Field(ge=0, le=MAX_DIM)] = 0  # length of its descriptor output; 0: it has none
    # Lowest largest logit of a crop that shows one of its categories; below it the crop is unfamiliar, and its
    # probabilities sum to a quarter only, see edge.inference.stages. None: every crop is familiar
    least_logit: Real | None = None

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """Return the output shapes for a batch, in order: one logit per label, then the descriptor if there is one."""
        descriptor = [(rows, self.descriptor_dim)] if self.descriptor_dim else []
        return [(rows, len(self.labels)), *descriptor]


class Head(_ManifestPart):
    """One part of the joint embedding."""

    # sum: the sum of the first three, which cannot be separated; classifier: the classifier's descriptor; whitened: all
    # parts of a joint vector after its whitening, which cannot be separated
    name: Literal["class", "local", "outline", "sum", "classifier", "whitened"]
    dim: Annotated[int, Field(ge=1, le=MAX_DIM)]  # numbers of the part


class OpenSet(_ManifestPart):
    """When the nearest item is accepted as a match."""

    threshold: Real = 0.5  # lowest cosine similarity of a match
    slope: Real = 20.0  # probability = sigmoid(slope * (score - midpoint))
    midpoint: Real = 0.5  # score at which the probability is one half
    min_margin: Real = 0.0  # least distance to the next item's score; below it the answer is low_margin
    false_accept: Fraction | None = None  # target share of unknown objects accepted by `threshold`; None: not used
    operating_points: Annotated[
        dict[Name, Real], Field(max_length=100)
    ] = {}  # thresholds for other shares: {"0.01": 0.83, ...}
    risk: Fraction | None = None  # target share of wrong names among all that `threshold` accepts; None: not used
    # Thresholds for shares of wrong names, {"0.01": 0.91, ...}, without those that the held-out pictures could not show
    risk_points: Annotated[dict[Name, Real], Field(max_length=100)] = {}
    # Whether slope and midpoint were fitted on enough held-out answers; if not, answers have no probability.
    calibrated: bool = True


class CompatibleGallery(_ManifestPart):
    """A gallery space of an older embedder that this one's queries may search, measured when the bundle was packed."""

    space_id: Sha256  # of the older embedder
    category: Name  # of the gallery
    open_set: OpenSet  # for queries of this embedder against vectors of the older one
    old_old: Fraction  # Recall@1 of the older embedder in its own gallery
    new_old: Fraction  # Recall@1 of this embedder in the older gallery
    new_new: Fraction  # Recall@1 of this embedder in its own gallery
    queries: Annotated[int, Field(ge=0)]  # number of queries measured
    change_95: tuple[Real, Real]  # 95 % interval of new_old - old_old
    # (new_old - old_old) / (new_new - old_old); 1: as good as re-embedding
    update_gain: Real | None = None


class SilhouetteRule(_ManifestPart):
    """The weight of an object's silhouette beside its vector, see edge.silhouettes.rerank.

    The score of such a category is the fused one, and the category's OpenSet applies to it.
    """

    # absolute: as in the crop; aligned: independent of position and size; iou_only: overlap alone, as published
    mode: Literal["absolute", "aligned", "iou_only"] = "absolute"
    weight: Annotated[float, Field(ge=0, le=1)] = 0.0  # weight of the overlap in the score; 0: not used

    @property
    def counts(self) -> bool:
        """Whether silhouettes are used."""
        return self.weight > 0 or self.mode == "iou_only"


class LocaliserModel(_Model):
    """Segments the object in a crop."""

    stride: _Cells = 2  # input pixels per cell of the mask
    # Window of the guided filter that refines a silhouette, as a fraction of the longer side of the crop; 0: no filter.
    guided_radius: Annotated[float, Field(ge=0, le=0.25)] = 0.0

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """Return the output shapes for a batch: object logits."""
        return [(rows, 1, self.preprocess.height // self.stride, self.preprocess.width // self.stride)]


class Whitening(_ManifestPart):
    """A linear map of joint vectors, fitted when the bundle was packed, see edge.inference.postprocess.

    Vectors after it have one head, `whitened`, so that a device that does not know the map refuses the bundle.
    """

    # float32, little-endian; for each number of the whitened vector, its row of the map, then its offset for photos and
    # for pictures on a plain background
    file: RelativePath
    parts: Annotated[list[Head], Field(min_length=1, max_length=_MAX_OUTPUTS)]  # of the vector that it maps

    @property
    def dim(self) -> int:
        """Length of the vector that it maps."""
        return sum(head.dim for head in self.parts)


class EmbedderModel(_Model):
    """Maps a crop of one of its categories to a unit vector."""

    categories: Annotated[list[Name], Field(max_length=_MAX_NAMES)]  # embedded by this model; usually one
    heads: Annotated[list[Head], Field(min_length=1, max_length=_MAX_OUTPUTS)]  # parts of the joint vector, in order
    space_id: Sha256  # hash of everything that determines the vectors
    open_set: Annotated[dict[Name, OpenSet], at_most(_MAX_NAMES)] = {}  # by category
    compatible: Annotated[
        list[CompatibleGallery], Field(max_length=_MAX_NAMES)
    ] = []  # older gallery spaces that it may search
    outline: Annotated[
        dict[Name, SilhouetteRule], Field(max_length=_MAX_NAMES)
    ] = {}  # by category; other categories use vectors alone
    # Share of the classifier's descriptor in a cosine; above 0 the descriptor is the last part of the joint vector.
    classifier_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gathering: Fraction = 0.0  # how far gallery vectors are shrunk to their item's centroid before search
    whitening: Whitening | None = None  # the last step of each vector; None: the joint vector is the vector

    @model_validator(mode="after")
    def _whitening_fits(self) -> "EmbedderModel":
        names = [head.name for head in self.heads]
        if self.whitening is None:
            if "whitened" in names:
                raise ValueError(f"found heads {names} without whitening; pack the bundle again")
            return self
        if names != ["whitened"] or "whitened" in [part.name for part in self.whitening.parts]:
            raise ValueError(f"found heads {names} with whitening, expected whitened alone, of other parts")
        if self.whitening.dim > MAX_DIM or self.dim * self.whitening.dim > MAX_ELEMENTS:
            raise ValueError(
                f"found whitening of {self.whitening.dim} numbers to {self.dim}, expected at most {MAX_DIM}, and "
                f"{MAX_ELEMENTS} numbers of the map"
            )
        return self

    @property
    def rules(self) -> dict[str, OpenSet]:
        """Return the rule of each category; that of a category without one has the default thresholds."""
        return {name: OpenSet() for name in self.categories} | self.open_set

    def compatible_gallery(self, category: str, space_id: str) -> CompatibleGallery | None:
        """Return how to search a gallery of another space; None if the spaces are not compatible."""
        return next((c for c in self.compatible if (c.category, c.space_id) == (category, space_id)), None)

    @model_validator(mode="after")
    def _dim_is_bounded(self) -> "EmbedderModel":
        if self.dim > MAX_DIM:
            raise ValueError(f"found heads of {self.dim} numbers together, expected {MAX_DIM} at most")
        return self

    @property
    def dim(self) -> int:
        """Length of the joint vector."""
        return sum(head.dim for head in self.heads)

    @property
    def own_dim(self) -> int:
        """Length of the part of the joint vector that this model outputs."""
        return sum(head.dim for head in self.parts if head.name != "classifier")

    @property
    def parts(self) -> list[Head]:
        """Parts of the joint vector, before its whitening if there is one."""
        return self.heads if self.whitening is None else self.whitening.parts

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """Return the output shapes for a batch: the model's part of the joint vector."""
        return [(rows, self.own_dim)]


class FinderModel(_Model):
    """Finds the object of a query picture in a scene; `files` holds its trunk."""

    shape: FinderShape  # scales, grids and levels
    channels: Annotated[int, Field(ge=1, le=MAX_DIM)]  # channels of the representation
    guide: _Channels  # channels of the scene that are input to the conversion, beside the heat maps
    conversion: RelativePath  # FP32 ONNX model: heat maps and guide in, one heat map out
    # INT8 model of the conversion, which runs beside an INT8 trunk; None: the FP32 one does
    conversion_int8: RelativePath | None = None
    score_threshold: Real = 0.6  # lowest score of a box: its peak in the heat map times its similarity
    # Only finders trained before the verification step have it. Their score means something else, so they are not run
    # (ADR 0010).
    map_threshold: Real | None = None

    @property
    def conversions(self) -> list[str]:
        """Paths of every form of the conversion."""
        return [self.conversion, *([self.conversion_int8] if self.conversion_int8 else [])]

    def conversion_for(self, form: str) -> str:
        """Return the path of the conversion that runs beside a form of the trunk."""
        return self.conversion_int8 if form == "ort-u8" and self.conversion_int8 else self.conversion

    def output_shapes(self, rows: int) -> list[tuple[int, ...]]:
        """Return the trunk's output shapes for a batch: the representation, then the guide if there is one."""
        width, height, shape = self.preprocess.width, self.preprocess.height, self.shape
        shapes: list[tuple[int, ...]] = [(rows, self.channels, height // shape.stride, width // shape.stride)]
        if self.guide:
            shapes.append((rows, self.guide, height // shape.map_stride, width // shape.map_stride))
        return shapes


class Budget(_ManifestPart):
    """What a bundle may need on a device; one that would need more refuses it before it serves."""

    p95_ms: Annotated[float, Field(gt=0, le=1e6)] | None = None  # one golden probe through its models, 95th percentile
    memory_mib: Annotated[int, Field(ge=1, le=1 << 30)] | None = None  # resident, with every model and the gallery


class Manifest(_ManifestPart):
    """A bundle: every model a device runs, and the probes that verify them."""

    model_config = ConfigDict(defer_build=False)

    schema_version: Literal[1] = Field(alias="schema")  # version of this format
    bundle_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}$")]  # name of the bundle, unique
    sequence: Annotated[int, Field(ge=0, le=(1 << 63) - 1)]  # a newer bundle has a larger one
    created_at: IsoTime  # ISO 8601, UTC
    runtimes: _Runtimes  # targets that at least one file of every model can run on
    files: Annotated[list[FileEntry], _SOME_FILES]  # every file of the bundle but the manifest
    detector: DetectorModel | None = None  # None: for cameras with framing: whole_frame only
    classifier: ClassifierModel | None = None  # None: the detector's label is the category
    embedders: Annotated[list[EmbedderModel], Field(max_length=_MAX_FILES)] = []  # each category has one at most
    localiser: LocaliserModel | None = None  # None: silhouettes are not used
    finder: FinderModel | None = None  # None: objects that the detector misses are not searched for
    probes: Annotated[list[Probe], Field(max_length=_MAX_FILES)] = []  # golden probes of the classifier and embedders
    scene_probes: Annotated[list[SceneProbe], Field(max_length=_MAX_FILES)] = []  # golden probes of the detector
    budget: Budget | None = None  # None: the device's own limits decide
    evaluation: dict[str, Any] = {}  # tables FP32 beside INT8, as measured when packed
    provenance: dict[str, Any] = {}  # seeds, data cards, tool versions
    waived: Annotated[list[_Prose], Field(max_length=_MAX_FILES)] = []  # gates that failed and were waived by name

    @model_validator(mode="after")
    def _files_are_listed(self) -> "Manifest":
        if conflict := conflicting_paths(entry.path for entry in self.files):
            raise ValueError(f"files: {conflict}")
        listed = {entry.path for entry in self.files}
        models: list[_Model] = [*self.embedders]
        single = (self.detector, self.classifier, self.localiser, self.finder)
        models += [model for model in single if model is not None]
        used = {path for model in models for path in model.every_file.values()}
        used |= {probe.path for probe in self.probes} | {probe.path for probe in self.scene_probes}
        used |= set(self.finder.conversions) if self.finder is not None else set()
        used |= {one.whitening.file for one in self.embedders if one.whitening is not None}
        if missing := sorted(used - listed):
            raise ValueError(f"files does not list {missing}; list every file that a model or probe names")
        embedded = [category for embedder in self.embedders for category in embedder.categories]
        if duplicates := sorted(category for category, count in Counter(embedded).items() if count > 1):
            raise ValueError(f"categories {duplicates} have two embedders; name each category in one embedder only")
        with_silhouettes = sorted(name for e in self.embedders for name, rule in e.outline.items() if rule.counts)
        if with_silhouettes and self.localiser is None:
            raise ValueError(f"silhouettes are used for {with_silhouettes}, but there is no localiser; add one")
        return self

    @model_validator(mode="after")
    def _descriptors_fit(self) -> "Manifest":
        for embedder in self.embedders:
            head_dims = [head.dim for head in embedder.parts if head.name == "classifier"]
            descriptor_dim = self.classifier.descriptor_dim if self.classifier is not None else 0
            if head_dims != ([descriptor_dim] if embedder.classifier_share else []):
                raise ValueError(
                    f"the embedder of {embedder.categories} has classifier_share {embedder.classifier_share} and "
                    f"classifier heads of {head_dims} numbers, but the classifier's descriptor has {descriptor_dim}"
                )
            margin = embedder.preprocess.crop_margin
            if head_dims and self.classifier and self.classifier.preprocess.crop_margin != margin:
                raise ValueError(
                    f"the embedder of {embedder.categories} uses the classifier's descriptor, so both need one "
                    f"crop_margin: found crop_margin {margin}, expected {self.classifier.preprocess.crop_margin}"
                )
        return self

    @model_validator(mode="after")
    def _probes_fit(self) -> "Manifest":
        dims = {category: embedder.dim for embedder in self.embedders for category in embedder.categories}
        for probe in self.probes:
            if (dim := dims.get(probe.category)) is None:
                raise ValueError(f"probe {probe.path} is of category {probe.category!r}, which no embedder has")
            if len(probe.embedding_i8) != dim or not any(probe.embedding_i8):
                raise ValueError(
                    f"probe {probe.path}: found an embedding of {len(probe.embedding_i8)} numbers, expected {dim}, "
                    "not all of them 0"
                )
        return self

    def embedder_for(self, category: str) -> EmbedderModel | None:
        """Return the embedder of a category; None if there is none."""
        return next((e for e in self.embedders if category in e.categories), None)


def embedding_space_id(
    fp32_sha256: str, preprocess: Preprocess, heads: list[Head], classifier: dict[str, Any] | None = None
) -> str:
    """Return the id of a model's embedding space: a hash of everything that determines its vectors.

    The hash uses the FP32 master, so that its INT8 forms, verified as equivalent when packed, share the space.

    Args:
        fp32_sha256: of the FP32 master.
        preprocess: of the embedder.
        heads: the parts of its vectors.
        classifier: the same for the classifier, and its share, if it contributes to the vectors.
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


def whitened_space_id(space_id: str, whitening_sha256: str) -> str:
    """Return the id of a space after its whitening.

    Args:
        space_id: of the joint vectors.
        whitening_sha256: of the file of the map.
    """
    return hashlib.sha256(f"{space_id} whitened {whitening_sha256}".encode()).hexdigest()


def parse_manifest(text: str | bytes, where: str) -> Manifest:
    """Parse `bundle.json`.

    Args:
        text: its content.
        where: the path to name in errors.

    Raises:
        BundleError: the text is not JSON, or not a manifest that this version supports.
    """
    try:
        return Manifest.model_validate(parse_json(text, MAX_MANIFEST_BYTES))
    except ValidationError as error:
        raise BundleError(f"{where}: {first_validation_error(error)}") from error
    except ValueError as error:
        raise BundleError(f"{where}: (top): {error}") from error
