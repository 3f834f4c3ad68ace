"""Recipes: one YAML file becomes one frozen, typed tree. The only module of the trainer that reads YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from dataset_formats.records import Layout
from dataset_formats.text_files import read_text
from edge.errors import DataError, TrainError
from edge.finder_shape import FinderShape

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
LEAST_VISIBLE = 0.25


class _Tree(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Split(_Tree):
    """How to split a data set."""

    # stratified: pictures of every item in every split; class_disjoint: items that no other split has;
    # published: the class-disjoint protocol of the data set (CUB, Cars, Dogs, Aircraft, Flowers, Pets, SOP, VeRi,
    # VehicleID), of whose training classes `val` are held out
    how: Literal["stratified", "class_disjoint", "published"]
    val: Annotated[float, Field(ge=0, lt=1)] = 0.2  # fraction: of each item's pictures, or of each category's items
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: int = 0
    of: list[str] = ["train", "val", "test"]  # splits that are pooled first; others stay as they are
    # For stratified: keep pictures that look the same in one split, so that bursts and video frames do not leak.
    # Reads every picture once more.
    together: bool = False


class CropData(_Tree):
    """Pictures of single objects, named by category and item."""

    index: Path  # a CSV with path, split, category (or coarse), item (or fine); or a data set of any other layout
    root: Path | None = None  # folder of the paths in the CSV; None: the CSV's folder
    layout: Layout | None = None  # None: detected
    split: Split | None = None  # None: the data set's own splits
    cut_to_box: bool = False  # crop by the true boxes of CUB or Cars; objects of scenes are always cropped
    # Run folder of a localiser that cuts the background out of every crop. It becomes a part of the network, so that
    # galleries and devices cut it out, too. None: it stays.
    cut_to_mask: Path | None = None
    train_splits: list[str] = ["train"]
    val_splits: list[str] = ["val"]
    gallery_splits: list[str] = ["catalogue"]  # pictures for the gallery: one object each, on a plain background
    categories: list[str] | None = None  # None: all


class SceneData(_Tree):
    """Pictures of whole scenes with boxes."""

    train: Path  # COCO JSON, or a data set of any other layout with boxes
    val: Path | None = None  # None: the same as train
    layout: Layout | None = None  # None: detected
    split: Split | None = None  # stratified by the rarest class of each picture; None: the data set's own splits
    train_splits: list[str] = ["train"]  # images without a `split` belong to every split
    val_splits: list[str] = ["val"]
    root: Path | None = None  # folder of the file names; None: the JSON's folder
    class_agnostic: bool = True
    least_visible: Fraction = LEAST_VISIBLE  # annotations with a smaller `visible_fraction` are left out


class MaskData(_Tree):
    """Pictures of single objects with their true masks."""

    index: Path  # a CSV with path, mask, split; a mask is grey, or the alpha of a cut-out
    root: Path | None = None  # folder of the paths in the CSV; None: the CSV's folder
    train_splits: list[str] = ["train"]
    val_splits: list[str] = ["val"]


class Input(_Tree):
    """The input of the network."""

    width: Annotated[int, Field(ge=32)] = 96  # pixels
    height: Annotated[int, Field(ge=32)] = 96
    # Size of the training canvases; None: the same. Crops that zoom in show objects larger than on the device. A
    # smaller canvas makes up for that, and is faster (Touvron et al. 2019, the train-test resolution discrepancy).
    train_width: Annotated[int | None, Field(ge=32)] = None
    train_height: Annotated[int | None, Field(ge=32)] = None
    resize: Literal["letterbox", "stretch"] = "letterbox"
    interpolation: Literal["linear", "area"] = "area"
    crop_margin: Fraction = 0.1  # share of the box, for crops on the device
    mean: tuple[float, float, float] | None = None  # None: those of the published backbone
    std: tuple[float, float, float] | None = None
    grey: bool = False  # the network converts its input to grey, equal in all three channels


class Backbone(_Tree):
    """The trunk, and where its weights come from."""

    name: str = "mobilenetv4_conv_small"
    pretrained: str = "hub"  # none, hub, package (the extra `weights`), or the path of a safetensors file
    strides: list[int] | None = None  # strides of the maps to use; None: the last map of the whole network
    # Options for timm: output_stride, pad_type. Our own: patch_stem, a stem of 4x4 patches, faster in INT8.
    options: dict[str, Any] = {}
    # Batch norm keeps its statistics in training, in heads, too; useful for short fine-tuning. None: in embedders that
    # start from published weights.
    freeze_bn: bool | None = None
    # First stages of the trunk that are not trained; the stem is the first. They process the most pixels, and their
    # features suit any picture.
    frozen_stages: Annotated[int, Field(ge=0)] = 0


class Augment(_Tree):
    """How training pictures are augmented."""

    scale: tuple[float, float] = (0.85, 1.2)  # size of the crop, in picture sizes; below 1 zooms in
    shift: float = 0.08  # shift of the crop to either side, in picture sizes
    stretch: float = 0.05  # change of width and height, independently
    rotate_deg: float = 8.0
    perspective: float = 0.04  # corners move by this fraction of the size
    flip: bool = False  # left to right; off for pictures with text
    colour: Fraction = 0.25  # brightness, contrast, saturation, tint
    blur: Fraction = 0.2  # share of the pictures
    noise: float = 4.0  # grey levels, standard deviation at most
    erase: Fraction = 0.2  # share of the pictures that lose a rectangle
    mixup: Fraction = 0.0  # share of the batches (classifier)


class Optimiser(_Tree):
    """The optimiser, its schedule, and when to evaluate."""

    name: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # momentum of sgd
    nesterov: bool = True  # Nesterov's form of it
    epochs: Annotated[int, Field(ge=1)] = 30  # largest number, see stop_after
    batch: Annotated[int, Field(ge=2)] = 64
    lr: Annotated[float, Field(gt=0)] = 2e-3
    trunk_lr: Annotated[float, Field(ge=0)] = 1.0  # factor on lr for the trunk
    weight_decay: float = 0.02
    schedule: Literal["one_cycle", "cosine", "plateau", "constant"] = "one_cycle"
    warmup: Fraction = 0.1  # share of all steps; plateau and constant schedules have none
    patience: Annotated[int, Field(ge=1)] = 5  # plateau: evaluations without improvement before the rate falls
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.5  # plateau: factor on the rate
    ema: Annotated[float | None, Field(ge=0, lt=1)] = (
        0.99  # decay of the average of weights, which is saved; None: no average
    )
    clip: float = 5.0  # gradient norm
    evaluate_every: Annotated[int, Field(ge=1)] = 5  # epochs
    # A column of metrics.csv; larger is better, or smaller where it is a loss. None: mAP50-95, accuracy or MAP@R.
    watch: str | None = None
    # Stop after this many evaluations without a better one and save the best. None: never stop early, save the last.
    stop_after: Annotated[int | None, Field(ge=1)] = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # the trunk's, in training; auto: bf16 on a GPU, fp32 on a CPU
    threads: int | None = None  # None: the libraries' default
    # Processes that make batches; 0: a thread; None: all cores but one beside a GPU, else 0. The result is the same, so
    # that a run may go on with another number: it is no part of the recipe that a checkpoint keeps.
    workers: Annotated[int | None, Field(ge=0, exclude=True)] = None

    @model_validator(mode="after")
    def _watches(self) -> Optimiser:
        if self.watch is None and self.schedule == "plateau":
            raise ValueError("watch is null; a plateau schedule needs a column of metrics.csv to watch")
        return self


class _Recipe(_Tree):
    seed: int = 0
    quick: bool = False  # shortened by --quick, see trainer.quick
    input: Input = Input()
    backbone: Backbone = Backbone()
    augment: Augment = Augment()
    optimiser: Optimiser = Optimiser()

    @model_validator(mode="after")
    def _test_is_not_watched(self) -> _Recipe:
        data = getattr(self, "scenes", None) or getattr(self, "data", None)
        if self.optimiser.stop_after is not None and data is not None and "test" in data.val_splits:
            raise ValueError(
                f"optimiser.stop_after evaluates on {data.val_splits}; remove the test split from val_splits"
            )
        return self


class DetectorRecipe(_Recipe):
    """Recipe of a detector, which finds objects."""

    kind: Literal["detector"]
    scenes: SceneData
    width: int = 64  # channels of neck and head
    centre_radius: float = 1.5  # cells around the centre of a box that learn it
    init_from: Path | None = None  # run folder of a detector of the same shape, to start from


class ClassifierRecipe(_Recipe):
    """Recipe of a classifier, which names the category."""

    kind: Literal["classifier"]
    data: CropData
    width: Annotated[int, Field(ge=0)] = 128  # first hidden layer of the decision module; 0: none
    further_widths: list[Annotated[int, Field(ge=1)]] = []  # hidden layers after it
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3  # after the first
    # The softmax counts only the largest logits after this share of the training (HCL; HDCL 2021, Table 7); 1: never
    hcl_from: Fraction = 1.0
    hcl_hardest: Annotated[int, Field(ge=2)] = 2
    auxiliary_items: bool = True  # also train the trunk by an item loss; its layer is not saved
    auxiliary_grid: Annotated[int, Field(ge=1)] = (
        3  # cells along each axis that this loss sees, so that it knows where a detail is
    )
    label_smoothing: Fraction = 0.05
    teachers: list[Path] = []  # run folders of classifiers of the same categories, to distil from as an ensemble
    distil: float = 1.0  # weight of the distillation loss
    # Length of the descriptor: principal components of the pooled trunk, which describe a crop beside its category, for
    # embedders that use them (edge-quantize pack --classifier-share). 0: none.
    descriptor_dim: Annotated[int, Field(ge=0)] = 0


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


class CategoryOverrides(_Tree):
    """Overrides for the embedder of one category."""

    input: EmbedderInput | None = None  # for objects of another shape
    epochs: Annotated[int | None, Field(ge=1)] = None  # for a category that is harder or easier to learn


class EmbedderRecipe(_Recipe):
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
    each: dict[str, CategoryOverrides] = {}  # overrides by category
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
    heads: list[Literal["class", "local", "outline"]] = ["class"]
    joint: Literal["concat", "sum"] = "concat"  # how the heads are joined into one vector
    # Vector length of each head. 0: the pooled feature itself, without a fully-connected layer (HDCL 2021).
    dim: Annotated[int, Field(ge=0)] = 256
    # Train on all that the projection would see, and fit the projection afterwards, by principal components. None: for
    # one head without a convolution on a published trunk. Measured in docs/results/embedding-methods.md.
    fit_projection: bool | None = None
    shorter_dims: list[
        Annotated[int, Field(ge=1)]
    ] = []  # shorter lengths of each head that must work, too (Matryoshka)
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
    hdcl_hardest: Annotated[int, Field(ge=2)] = 4
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


class LocaliserRecipe(_Tree):
    """Recipe of a localiser, which finds the pixels of the object in a crop."""

    kind: Literal["localiser"]
    data: MaskData
    seed: int = 0
    quick: bool = False  # shortened by --quick, see trainer.quick
    input: Input = Input(width=96, height=96, resize="stretch")  # mean and std default to 0.5
    augment: Augment = Augment(flip=True, erase=0.0)
    optimiser: Optimiser = Optimiser()
    # A published trunk for the encoder, such as mobilenetv2_100, instead of the small U2-Net; needs fewer masks of
    # photos. It gives no `strides`: every map is read.
    backbone: Backbone | None = None
    init_from: Path | None = None  # run folder of a localiser of the same shape, to start from
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 12  # channels of the finest stage, or of a backbone's decoder
    paste: Fraction = 0.3  # share of the pictures whose object is pasted on another picture


class FinderWorld(_Tree):
    """The scenes that a finder is trained on, with exact masks: rendered, or pasted from your own cut-outs."""

    seed: int = 0
    cutouts: Path | None = None  # your own things, as `edge-train expand` takes them; None: the built-in catalogue
    root: Path | None = None  # folder of the paths in a JSON or CSV of cut-outs; None: its own folder
    splits: list[str] = []  # use only cut-outs of these splits; empty: all
    per_item: Annotated[int, Field(ge=1)] = 30  # most cut-outs of each item
    backgrounds: Path | None = None  # folder of photos to paste on; None: drawn backgrounds
    without: list[str] = []  # distortions of `edge-train expand` to leave out
    rendered: Fraction = 0.0  # share of the scenes that is rendered from the built-in catalogue, beside your own
    scenes: Annotated[int, Field(ge=2)] = 700
    val_scenes: Annotated[int, Field(ge=1)] = 60  # other scenes of the same items
    looks: Annotated[int, Field(ge=1)] = 8  # cut-outs of each item, used as queries
    held_out: list[str] = []  # items and categories that appear in no scene


class Shape(FinderShape):
    """The shape of a finder. Unlike in a bundle, an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class FinderRecipe(_Recipe):
    """Recipe of a finder, which locates the object of a query picture in a scene."""

    kind: Literal["finder"]
    world: FinderWorld = FinderWorld()
    shape: Shape = Shape()
    channels: Annotated[int, Field(ge=1)] = 64  # channels of the representations
    guide: Annotated[int, Field(ge=0)] = (
        12  # channels of the scene that the conversion network also sees; 0: as published
    )
    width: Annotated[int, Field(ge=1)] = 20  # channels of the conversion network
    shared_trunk: bool = True  # one representation generator for queries and scenes
    loss: Literal["double_margin", "l2"] = "double_margin"
    edge_band: Annotated[int, Field(ge=0)] = 0  # cells beside an object's edge that the double margin ignores
    recolour: Fraction = 0.5  # share of the objects that are recoloured, in query and scene alike


TrunkRecipe = DetectorRecipe | ClassifierRecipe | EmbedderRecipe | FinderRecipe
AnyRecipe = DetectorRecipe | ClassifierRecipe | EmbedderRecipe | LocaliserRecipe | FinderRecipe
Recipe = Annotated[AnyRecipe, Field(discriminator="kind")]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the keys and values of a YAML file.

    Raises:
        TrainError: the file cannot be read or is not a mapping.
    """
    try:
        tree = yaml.safe_load(read_text(path))
    except DataError as error:
        raise TrainError(str(error)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: an invalid date or number
        raise TrainError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise TrainError(f"{path} holds a {type(tree).__name__}; write keys and values")
    return tree


def load_recipe(path: Path, overrides: list[str] | None = None) -> AnyRecipe:
    """Read a recipe.

    Args:
        path: the YAML file.
        overrides: each `key.key=value`, with the value in YAML.

    Raises:
        TrainError: the file cannot be read, or a key or value is wrong; the message names file and key.
    """
    tree = read_yaml(path)
    for override in overrides or []:
        _override(tree, override)
    try:
        recipe: AnyRecipe = TypeAdapter(Recipe).validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part != tree.get("kind")) or "(top)"
        raise TrainError(f"{path}: {key}: {first['msg']}, found {first['input']!r:.80}") from error
    return recipe


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise TrainError(f"--set {override}: write it as key=value")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise TrainError(f"--set {override}: {parent} holds a value, not keys")
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise TrainError(f"--set {override}: the value is not valid YAML: {value}") from error
