"""The recipe of an embedder: its heads, its losses, and its own defaults of the shared parts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trainer.recipe_parts import Augment, BaseRecipe, CropData, Fraction, Input, Optimiser, RecipePart


class EmbedderInput(Input):
    """The input of an embedder: a crop fills it, so that no cell sees a border."""

    resize: Literal["letterbox", "stretch"] = "stretch"


class EmbedderAugment(Augment):
    """How an embedder's training pictures are augmented: mostly by cutting a part out."""

    scale: tuple[float, float] = (0.65, 1.0)
    shift: float = 0.12
    stretch: float = 0.1
    rotate_deg: float = 5.0
    perspective: float = 0.02
    flip: bool = True
    blur: Fraction = 0.1
    erase: Fraction = 0.0


class EmbedderOptimiser(Optimiser):
    """The optimiser of an embedder, for fine-tuning published weights."""

    batch: Annotated[int, Field(ge=2)] = 32
    lr: Annotated[float, Field(gt=0)] = 6e-4
    warmup: Fraction = 0.3


class CategoryOverrides(RecipePart):
    """Overrides for the embedder of one category."""

    input: EmbedderInput | None = None  # for objects of another shape
    epochs: Annotated[int | None, Field(ge=1)] = None  # for a category that is harder or easier to learn


class EmbedderRecipe(BaseRecipe):
    """Recipe of an embedder, which tells the items of one or several categories apart.

    The defaults fine-tune a whole trunk from published weights. benchmarks/yardstick.py compares them with a plain
    fine-tuning on data sets that differ.
    """

    kind: Literal["embedder"]
    data: CropData
    input: EmbedderInput = EmbedderInput()
    augment: EmbedderAugment = EmbedderAugment()
    optimiser: EmbedderOptimiser = EmbedderOptimiser()
    one_per_category: bool = False  # train one embedder for each category, into a folder of its name
    each: dict[str, CategoryOverrides] = Field(default={})  # overrides by category
    # A classifier's run folder, for the trunk; or an embedder's of the same shape, for trunk, heads and centres, or a
    # folder of such runs by category.
    init_from: Path | None = None
    # The run folder, or folder of runs by category, of the embedder that made the galleries in the field. The new
    # vectors will be searched among the old ones. Training also starts from it.
    compatible_with: Path | None = None
    old_classes: float = 1.0  # weight of classifying items by their mean old embeddings
    old_pull: float = 4.0  # weight of 1 - cos to the old vector of the same picture
    teacher: Path | None = None  # run folder of an embedder to distil from; through a projection if its heads differ
    distil: float = 1.0  # weight of the distillation loss
    # One head by default: at equal compute three did no better (benchmarks/results/methods.json).
    heads: list[Literal["class", "local", "outline"]] = Field(default=["class"])
    joint: Literal["concat", "sum"] = "concat"  # how the heads are joined into one vector
    # Vector length of each head. 0: the pooled feature itself, without a fully-connected layer (HDCL 2021).
    dim: Annotated[int, Field(ge=0)] = 256
    # Train on all that the projection would see, and fit the projection afterwards, by principal components. None: for
    # one head without a convolution on a published trunk. Measured in docs/results/embedding-methods.md.
    fit_projection: bool | None = None
    # Shorter lengths of each head that must work, too (Matryoshka).
    shorter_dims: list[Annotated[int, Field(ge=1)]] = Field(default=[])
    # Channels of each head's convolution. 0: none, for one head on a whole trunk. A cut trunk needs some, such as 128.
    width: Annotated[int, Field(ge=0)] = 0
    # Cells along each axis that a head's fully-connected layer sees; 1: the average. 3 suits a cut trunk.
    grid: Annotated[int, Field(ge=1)] = 1
    pool: Literal["average", "max_average"] = "average"  # max_average: also the maximum of each channel
    # softmax: also HCL, DGCRL and HDCL, by the keys decorrelation, hdcl_from and hdcl_hardest, and the pairwise losses.
    # The others replace all of these, see trainer.losses.metric_losses; crl: the centralized ranking loss.
    loss: Literal["softmax", "contrastive", "triplet", "crl", "proxy_anchor"] = "softmax"
    margin: Annotated[float | None, Field(gt=0)] = None  # of another loss than softmax; None: its usual one
    # Negatives of the outline head, see trainer.losses.embedding_losses.
    mode: Literal["literal", "guarded"] = "guarded"
    # Batches for pairwise losses; the softmax alone shows every picture once an epoch, `optimiser.batch` at a time.
    classes_per_batch: Annotated[int, Field(ge=2)] = 14
    images_per_class: Annotated[int, Field(ge=2)] = 4
    batches_per_epoch: Annotated[int | None, Field(ge=1)] = None  # None: as many pictures as there are
    scale: float = 20.0  # alpha of the cosine softmax
    label_smoothing: Fraction = 0.05
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2  # of the unit vectors, before the softmax
    centre_lr: Annotated[float, Field(ge=0)] = 100.0  # factor on lr for the centres, whose numbers start at about one
    decorrelation: float = 0.0  # lambda of the centres
    anchor: float = 1.0  # weight of the cosine softmax; 0 trains on the pairs alone, which collapses from scratch
    pairs: float = 0.0  # weight of the pairwise losses at full ramp
    pair_ramp: tuple[Fraction, Fraction] = (0.3, 0.6)  # share of the training over which they are ramped in
    hdcl_from: Fraction = 1.0  # share of the training after which the softmax turns hard; 1: never
    hdcl_hardest: Annotated[int | None, Field(ge=2)] = None  # None: 4
    blocks: int = 4  # region confusion: blocks along each axis
    neighbourhood: int = 1

    @model_validator(mode="before")
    @classmethod
    def _no_peer(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "peer" not in data:
            return data
        if data["peer"] is not None:  # recipes of older runs say null
            raise ValueError("peer: no longer a recipe key; write `loss:` instead, such as loss: triplet")
        return {key: value for key, value in data.items() if key != "peer"}

    @model_validator(mode="after")
    def _heads_fit(self) -> EmbedderRecipe:
        if "class" not in self.heads or len(set(self.heads)) != len(self.heads):
            raise ValueError(f"heads are {self.heads}; give class once, and each other head at most once")
        if self.dim == 0 and (self.shorter_dims or self.fit_projection or (self.width == 0 and len(self.heads) > 1)):
            raise ValueError(
                "dim 0 has no projection: it needs no shorter_dims or fit_projection, and one head or width"
            )
        if wrong := [dim for dim in self.shorter_dims if dim >= self.dim]:
            raise ValueError(f"shorter_dims: {wrong} are not less than dim {self.dim}")
        if self.pair_ramp[0] > self.pair_ramp[1]:
            raise ValueError(f"pair_ramp: found {list(self.pair_ramp)}; the first share comes before the second")
        after = self.shorter_dims or self.compatible_with or self.teacher
        if self.fit_projection and (self.heads != ["class"] or self.width or after):
            raise ValueError(
                "fit_projection needs heads [class] and width 0, and no shorter_dims, compatible_with or teacher"
            )
        return self

    @model_validator(mode="after")
    def _loss_stands_alone(self) -> EmbedderRecipe:
        others = {"heads": ["class"], "shorter_dims": [], "pairs": 0.0, "anchor": 1.0}
        others |= {"decorrelation": 0.0, "hdcl_from": 1.0}
        if self.loss == "softmax":
            if self.margin is not None:
                raise ValueError("margin: loss softmax has none; remove it, or choose another loss")
            if not self.anchor and (self.decorrelation or self.hdcl_from < 1):
                raise ValueError(
                    "anchor 0 trains without the softmax; remove decorrelation and hdcl_from, or set anchor"
                )
        elif wrong := [key for key, value in others.items() if getattr(self, key) != value]:
            raise ValueError(
                f"loss {self.loss} replaces the softmax and the pairwise losses; remove {', '.join(wrong)}"
            )
        return self

    def for_category(self, category: str) -> EmbedderRecipe:
        """Return the recipe for the embedder of one category."""
        own = self.each.get(category, CategoryOverrides())
        optimiser = self.optimiser.model_copy(update={"epochs": own.epochs or self.optimiser.epochs})
        return self.model_copy(update={"input": own.input or self.input, "optimiser": optimiser})

    @property
    def uses_pairs(self) -> bool:
        """Return whether the batches hold several pictures of each item, for losses that compare pictures."""
        return self.pairs > 0 or self.anchor == 0 or self.loss in {"contrastive", "triplet"}

    @property
    def starts_from_features(self) -> bool:
        """Return whether the centres start at the means of published features instead of random numbers."""
        return self.backbone.pretrained != "none" and self.width == 0

    @property
    def fits_projection(self) -> bool:
        """Return whether the projection is fitted after training instead of trained."""
        if self.fit_projection is not None:
            return self.fit_projection
        trained = self.dim == 0 or self.shorter_dims or self.teacher or self.compatible_with or self.uses_pairs
        return self.starts_from_features and self.heads == ["class"] and not trained

    @property
    def freezes_bn(self) -> bool:
        """Return whether batch norm keeps its statistics, which training would move away from the published weights."""
        given = self.backbone.freeze_bn
        return self.backbone.pretrained != "none" if given is None else given

    @property
    def uses_region_confusion(self) -> bool:
        """Return whether any head learns from region-confusion images."""
        return bool({"local", "outline"} & set(self.heads))
