"""The embedder of a bundle: parts of its vectors, when the nearest item is a match, which galleries it may search.

Rule this module keeps: thresholds travel with the model that they were fitted for, never in code or device YAML.
"""

# ruff: noqa: RUF012  pydantic gives each model its own copy of a default
# no `from __future__ import annotations`: pydantic would compile and evaluate each field's type again at every start

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edge.manifest.fields import Fraction, Name, Real, RelativePath, Sha256, at_most
from edge.manifest.model import MAX_DIM, MAX_ELEMENTS, MAX_NAMES, MAX_OUTPUTS, ManifestPart, Model


class Head(ManifestPart):
    """One part of the joint embedding."""

    # sum: the sum of the first three, which cannot be separated; classifier: the classifier's descriptor; whitened: all
    # parts of a joint vector after its whitening, which cannot be separated
    name: Literal["class", "local", "outline", "sum", "classifier", "whitened"]
    dim: Annotated[int, Field(ge=1, le=MAX_DIM)]  # numbers of the part


class OpenSet(ManifestPart):
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


class CompatibleGallery(ManifestPart):
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


class SilhouetteRule(ManifestPart):
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


class Whitening(ManifestPart):
    """A linear map of joint vectors, fitted when the bundle was packed, see edge.inference.postprocess.

    Vectors after it have one head, `whitened`, so that a device that does not know the map refuses the bundle.
    """

    # float32, little-endian; for each number of the whitened vector, its row of the map, then its offset for photos and
    # for pictures on a plain background
    file: RelativePath
    parts: Annotated[list[Head], Field(min_length=1, max_length=MAX_OUTPUTS)]  # of the vector that it maps

    @property
    def dim(self) -> int:
        """Length of the vector that it maps."""
        return sum(head.dim for head in self.parts)


class EmbedderModel(Model):
    """Maps a crop of one of its categories to a unit vector."""

    categories: Annotated[list[Name], Field(max_length=MAX_NAMES)]  # embedded by this model; usually one
    heads: Annotated[list[Head], Field(min_length=1, max_length=MAX_OUTPUTS)]  # parts of the joint vector, in order
    space_id: Sha256  # hash of everything that determines the vectors
    open_set: Annotated[dict[Name, OpenSet], at_most(MAX_NAMES)] = {}  # by category
    compatible: Annotated[
        list[CompatibleGallery], Field(max_length=MAX_NAMES)
    ] = []  # older gallery spaces that it may search
    outline: Annotated[
        dict[Name, SilhouetteRule], Field(max_length=MAX_NAMES)
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
