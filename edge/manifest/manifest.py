"""`bundle.json`: the models, files, golden probes and evaluation of a bundle.

Rules this module keeps:
1. No path leaves the bundle folder, and each file has one path, see edge.manifest.fields.
2. Everything a model needs is in its part, see edge.manifest.model, stages and embedder, never in code or device YAML.
3. Unknown keys are ignored, so that an older device can read a newer manifest (TUF ADR 0008).
4. Every list, text and number is bounded, so that no manifest makes a device run out of memory or time.
"""

# ruff: noqa: RUF012  pydantic gives each model its own copy of a default
# no `from __future__ import annotations`: pydantic would compile and evaluate each field's type again at every start

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from edge.errors import BundleError, first_validation_error
from edge.manifest.embedder import EmbedderModel
from edge.manifest.fields import IsoTime, Name, Real, RelativePath, Sha256, conflicting_paths
from edge.manifest.model import MAX_DIM, TARGETS, ManifestPart, Model, Prose, Target
from edge.manifest.stages import ClassifierModel, DetectorModel, FinderModel, LocaliserModel
from edge.strict_json import parse_json

MAX_MANIFEST_BYTES = 8 << 20
_MAX_FILES = 16_384  # 1,000 embedders in many forms, with probes


def _known_targets(given: Any) -> Any:
    """Leave out the targets of a newer version."""
    return [one for one in given if one in TARGETS] if isinstance(given, list) else given


_Vector = Annotated[list[Annotated[int, Field(ge=-128, le=127)]], Field(min_length=1, max_length=MAX_DIM)]
_Boxes = Annotated[list[tuple[Real, Real, Real, Real]], Field(max_length=1000)]
_Runtimes = Annotated[list[Target], Field(max_length=len(TARGETS)), BeforeValidator(_known_targets)]
_SOME_FILES = Field(min_length=1, max_length=_MAX_FILES)


class FileEntry(ManifestPart):
    """One file of the bundle."""

    path: RelativePath  # inside the bundle folder
    size: Annotated[int, Field(ge=0, le=1 << 40)]  # bytes
    sha256: Sha256  # of its content


class Probe(ManifestPart):
    """One golden crop and the answer that a healthy device gives."""

    path: RelativePath  # picture of the crop
    category: Name  # expected category
    item_id: Name  # the nearest item in the gallery used when packing
    embedding_i8: _Vector  # the joint vector times 127 over its largest component, rounded


class SceneProbe(ManifestPart):
    """One golden picture and objects that the detector of a healthy device finds in it."""

    path: RelativePath  # the whole picture
    boxes_px: _Boxes  # x0 y0 x1 y1 of the objects that the packed detector is sure of
    labels: Annotated[list[Name], Field(max_length=1000)]  # of these boxes, in order

    @model_validator(mode="after")
    def _labels_fit(self) -> "SceneProbe":
        if len(self.labels) != len(self.boxes_px):
            raise ValueError(f"found {len(self.labels)} labels, expected {len(self.boxes_px)}, one for each box")
        return self


class Budget(ManifestPart):
    """What a bundle may need on a device; one that would need more refuses it before it serves."""

    p95_ms: Annotated[float, Field(gt=0, le=1e6)] | None = None  # one golden probe through its models, 95th percentile
    memory_mib: Annotated[int, Field(ge=1, le=1 << 30)] | None = None  # resident, with every model and the gallery


class Manifest(ManifestPart):
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
    waived: Annotated[list[Prose], Field(max_length=_MAX_FILES)] = []  # gates that failed and were waived by name

    @model_validator(mode="after")
    def _files_are_listed(self) -> "Manifest":
        if conflict := conflicting_paths(entry.path for entry in self.files):
            raise ValueError(f"files: {conflict}")
        listed = {entry.path for entry in self.files}
        models: list[Model] = [*self.embedders]
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
