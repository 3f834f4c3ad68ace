"""Recipes: one YAML file, one frozen typed tree; the YAML door of the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from edge.errors import TrainError
from edge.finder_shape import FinderShape
from trainer.sample import Layout
from trainer.text_files import read_text

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
LEAST_VISIBLE = 0.25


class _Tree(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Split(_Tree):
    """How a data set is divided anew."""

    # stratified: pictures of every item in every split; class_disjoint: items that no other split has;
    # published: the class-disjoint protocol of CUB, Cars or SOP, of whose training classes `val` are held out
    how: Literal["stratified", "class_disjoint", "published"]
    val: Annotated[float, Field(ge=0, lt=1)] = 0.2  # fraction: of each item's pictures, or of each category's items
    test: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: int = 0
    of: list[str] = ["train", "val", "test"]  # the splits that are thrown together first; others stay as they are
    # Of stratified: pictures that look the same come into one split, so that bursts and frames of a video do not leak.
    # Costs reading every picture once more.
    together: bool = False


class CropData(_Tree):
    """Pictures of single objects, named by meta-category and sub-category."""

    index: Path  # a CSV with path, split, category (or coarse), item (or fine); or a data set of any other layout
    root: Path | None = None  # of the paths in the CSV; None: the CSV's folder
    layout: Layout | None = None  # None: found out
    split: Split | None = None  # None: as the data set has it
    cut_to_box: bool = False  # cut single objects out by the true boxes of CUB or Cars; those of scenes always are
    train_splits: list[str] = ["train"]
    val_splits: list[str] = ["val"]
    gallery_splits: list[str] = ["catalogue"]  # that a gallery is made of: one object each on a plain ground
    categories: list[str] | None = None  # None: all


class SceneData(_Tree):
    """Pictures of whole scenes with boxes."""

    train: Path  # COCO JSON, or a data set of any other layout with boxes
    val: Path | None = None  # None: the same one
    layout: Layout | None = None  # None: found out
    split: Split | None = None  # stratified by the rarest class of each picture; None: as the data set has it
    train_splits: list[str] = ["train"]  # of images that carry a `split`; one without belongs to every split
    val_splits: list[str] = ["val"]
    root: Path | None = None  # of the file names; None: the JSON's folder
    class_agnostic: bool = True
    least_visible: Fraction = LEAST_VISIBLE  # annotations whose `visible_fraction` is less are left out


class MaskData(_Tree):
    """Pictures of single objects with their true masks."""

    index: Path  # a CSV with path, mask, split; a mask is grey, or the alpha of a cut-out
    root: Path | None = None  # of the paths in the CSV; None: the CSV's folder
    train_splits: list[str] = ["train"]
    val_splits: list[str] = ["val"]


class Input(_Tree):
    """What the network sees."""

    width: Annotated[int, Field(ge=32)] = 96  # pixels
    height: Annotated[int, Field(ge=32)] = 96
    # Of the canvases it learns from; None: the same. Crops that zoom in show objects larger than the device sees them,
    # which a smaller canvas makes up for, and is faster (Touvron et al. 2019, the train-test resolution discrepancy).
    train_width: Annotated[int | None, Field(ge=32)] = None
    train_height: Annotated[int | None, Field(ge=32)] = None
    resize: Literal["letterbox", "stretch"] = "letterbox"
    interpolation: Literal["linear", "area"] = "area"
    crop_margin: Fraction = 0.1  # of the box, for crops on the device
    mean: tuple[float, float, float] | None = None  # None: what the backbone was published with
    std: tuple[float, float, float] | None = None
    grey: bool = False  # the network turns its input grey, the same in all three channels: colour says nothing


class Backbone(_Tree):
    """Which trunk, and from where."""

    name: str = "mobilenetv4_conv_small"
    pretrained: str = "hub"  # none, hub, or the path of a safetensors file
    strides: list[int] | None = None  # of the maps that are used; None: the whole network's last map
    options: dict[str, Any] = {}  # for timm: output_stride, pad_type
    # Batch norm keeps its statistics in training, in heads too: for short fine-tunes.
    freeze_bn: bool = False
    # Of the trunk's stages, counted from the picture, that do not learn: the stem is the first. They see the most
    # pixels, and what they know serves any picture.
    frozen_stages: Annotated[int, Field(ge=0)] = 0


class Augment(_Tree):
    """How a training picture is varied."""

    scale: tuple[float, float] = (0.85, 1.2)  # of the part that is cut out, in picture sizes; below 1 zooms in
    shift: float = 0.08  # of that part, in picture sizes, to either side
    stretch: float = 0.05  # of width and height, each on its own
    rotate_deg: float = 8.0
    perspective: float = 0.04  # corners move by this fraction of the size
    flip: bool = False  # left to right; off where pictures carry text
    colour: Fraction = 0.25  # brightness, contrast, saturation, tint
    blur: Fraction = 0.2  # of the pictures
    noise: float = 4.0  # grey levels, standard deviation at most
    erase: Fraction = 0.2  # of the pictures lose a rectangle
    mixup: Fraction = 0.0  # of the batches (classifier)


class Optimiser(_Tree):
    """How long and how fast."""

    name: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of sgd, Nesterov's
    epochs: Annotated[int, Field(ge=1)] = 30  # at most
    batch: Annotated[int, Field(ge=2)] = 64
    lr: Annotated[float, Field(gt=0)] = 2e-3
    trunk_lr: Annotated[float, Field(ge=0)] = 1.0  # factor on lr for the trunk
    weight_decay: float = 0.02
    schedule: Literal["one_cycle", "cosine", "plateau"] = "one_cycle"
    warmup: Fraction = 0.1  # of all steps; a plateau schedule has none
    patience: Annotated[int, Field(ge=1)] = 5  # plateau: examinations without a better value before the rate falls
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.5  # plateau: by this factor
    ema: Annotated[float | None, Field(ge=0, lt=1)] = 0.99  # decay of the weight average that is shipped; None: none
    clip: float = 5.0  # gradient norm
    evaluate_every: Annotated[int, Field(ge=1)] = 5  # epochs
    # A column of metrics.csv, better when larger, or smaller where it is a loss; None: mAP50-95, accuracy or MAP@R.
    watch: str | None = None
    # Examinations without a better one, after which it ends; the best is shipped. None: never, the last is shipped.
    stop_after: Annotated[int | None, Field(ge=1)] = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of the trunk in training; auto: bf16 on a GPU, fp32 on a CPU
    threads: int | None = None  # None: as the libraries choose

    @model_validator(mode="after")
    def _watches(self) -> Optimiser:
        if self.watch is None and self.schedule == "plateau":
            raise ValueError("watch is null, expected the value that the schedule goes by")
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
            raise ValueError(f"optimiser.stop_after watches {data.val_splits}, expected no test pictures among them")
        return self


class DetectorRecipe(_Recipe):
    """Finds objects."""

    kind: Literal["detector"]
    scenes: SceneData
    width: int = 64  # channels of neck and head
    centre_radius: float = 1.5  # cells around a box's centre that learn it
    init_from: Path | None = None  # a detector's run folder of the same build, to go on from its weights


class ClassifierRecipe(_Recipe):
    """Names the meta-category."""

    kind: Literal["classifier"]
    data: CropData
    width: int = 128  # first hidden layer of the decision module
    further_widths: list[Annotated[int, Field(ge=1)]] = []  # hidden layers after it
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3  # after the first
    auxiliary_items: bool = True  # a sub-category loss sharpens the trunk; dropped when saved
    auxiliary_grid: Annotated[int, Field(ge=1)] = 3  # cells along each axis that it sees: where a detail is
    label_smoothing: Fraction = 0.05
    teachers: list[Path] = []  # run folders of classifiers of the same categories, to distil from together
    distil: float = 1.0  # weight of what they say
    # Numbers that describe a crop beside its category, for embedders that take them (edge-quantize pack
    # --classifier-share): principal components of the pooled trunk. 0: none.
    descriptor_dim: Annotated[int, Field(ge=0)] = 0


class Own(_Tree):
    """What the embedder of one category does differently."""

    input: Input | None = None  # where the shape of its objects wants another
    epochs: Annotated[int | None, Field(ge=1)] = None  # where it is harder or easier to learn


class EmbedderRecipe(_Recipe):
    """Tells sub-categories of one or several meta-categories apart."""

    kind: Literal["embedder"]
    data: CropData
    one_per_category: bool = False  # train one embedder for each, into a folder of its name
    each: dict[str, Own] = {}  # what some of these have of their own
    # A classifier's run folder, for the trunk; or an embedder's of the same shape, for trunk, heads and centres, or a
    # folder of such runs by category.
    init_from: Path | None = None
    # The run folder, or folder of runs by category, of the embedder that galleries in the field were made with: the new
    # one's vectors shall be searched among them. It is also what it starts from.
    compatible_with: Path | None = None
    old_classes: float = 1.0  # weight of naming items by their mean old embeddings
    old_pull: float = 4.0  # weight of 1 - cos to the old vector of the same picture
    teacher: Path | None = None  # an embedder's run folder, to distil from; of other heads through a projection
    distil: float = 1.0  # weight of what the teacher says
    # One head by default: at equal compute three did no better (benchmarks/results/methods.json).
    heads: list[Literal["class", "local", "outline"]] = ["class"]
    joint: Literal["concat", "sum"] = "concat"  # how the heads make one vector
    dim: Annotated[int, Field(ge=1)] = 192  # of each head
    shorter_dims: list[Annotated[int, Field(ge=1)]] = []  # of each head, that have to serve too (Matryoshka)
    width: Annotated[int, Field(ge=0)] = 128  # of each head's convolution; 0: none, for one head on a trunk kept whole
    grid: Annotated[int, Field(ge=1)] = 3  # cells along each axis that a head's fully-connected layer sees
    pool: Literal["average", "max_average"] = "average"  # max_average: it also sees the largest of each channel
    mode: Literal["literal", "guarded"] = (
        "guarded"  # of the outline head's negatives, see trainer.losses.classification_and_metric
    )
    classes_per_batch: Annotated[int, Field(ge=2)] = 14
    images_per_class: Annotated[int, Field(ge=2)] = 4
    batches_per_epoch: int | None = None  # None: as many as show every picture once
    scale: float = 16.0  # alpha of the cosine softmax
    decorrelation: float = 0.1  # lambda of the centres
    anchor: float = 1.0  # weight of the cosine softmax; 0 trains on the pairs alone, which collapses from scratch
    pairs: float = 0.0  # weight of the pairwise losses at full ramp
    pair_ramp: tuple[Fraction, Fraction] = (0.3, 0.6)  # of the training, where they come in
    hdcl_from: Fraction = 1.0  # of the training, where the softmax turns hard; 1: never
    hdcl_hardest: Annotated[int, Field(ge=2)] = 4
    blocks: int = 4  # region confusion: along each axis
    neighbourhood: int = 1

    @model_validator(mode="before")
    @classmethod
    def _no_peer(cls, data: Any) -> Any:
        if isinstance(data, dict) and "peer" in data:
            raise ValueError("peer: no longer a recipe key; to compare with peer losses, run benchmarks/methods.py")
        return data

    @model_validator(mode="after")
    def _heads_fit(self) -> EmbedderRecipe:
        if "class" not in self.heads or len(set(self.heads)) != len(self.heads):
            raise ValueError(f"heads are {self.heads}, expected class and others, each once")
        if wrong := [dim for dim in self.shorter_dims if dim >= self.dim]:
            raise ValueError(f"shorter_dims: found {wrong}, expected less than dim {self.dim}")
        return self

    def own(self, category: str) -> EmbedderRecipe:
        """The recipe of one category's embedder."""
        own = self.each.get(category, Own())
        optimiser = self.optimiser.model_copy(update={"epochs": own.epochs or self.optimiser.epochs})
        return self.model_copy(update={"input": own.input or self.input, "optimiser": optimiser})

    @property
    def confused(self) -> bool:
        """Whether any head looks at region-confusion images."""
        return bool({"local", "outline"} & set(self.heads))


class LocaliserRecipe(_Tree):
    """Finds the object in a crop, pixel by pixel."""

    kind: Literal["localiser"]
    data: MaskData
    seed: int = 0
    quick: bool = False  # shortened by --quick, see trainer.quick
    input: Input = Input(width=96, height=96, resize="stretch")  # mean and std are a half where it says nothing
    augment: Augment = Augment(flip=True, erase=0.0)
    optimiser: Optimiser = Optimiser()
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 12  # channels of the finest stage
    paste: Fraction = 0.3  # of the pictures, whose object is cut out and laid on another picture


class FinderWorld(_Tree):
    """The synthetic scenes that a finder learns from, rendered when it is trained; all with exact masks."""

    seed: int = 0
    scenes: Annotated[int, Field(ge=2)] = 700
    val_scenes: Annotated[int, Field(ge=1)] = 60  # other scenes of the same items
    looks: Annotated[int, Field(ge=1)] = 8  # cut-outs of each item, to search by
    held_out: list[str] = []  # items and categories that are in no scene


class Shape(FinderShape):
    """The shape of a finder; bundles may say more than is known here, a recipe with a strange key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class FinderRecipe(_Recipe):
    """Finds the object of a query picture, whatever it is."""

    kind: Literal["finder"]
    world: FinderWorld = FinderWorld()
    shape: Shape = Shape()
    channels: Annotated[int, Field(ge=1)] = 64  # of the representations
    guide: Annotated[int, Field(ge=0)] = 12  # channels of the scene that the conversion sees, too; 0: as published
    width: Annotated[int, Field(ge=1)] = 20  # of the conversion
    shared_trunk: bool = True  # one representation generator for queries and scenes
    loss: Literal["double_margin", "l2"] = "double_margin"
    edge_band: Annotated[int, Field(ge=0)] = 0  # cells beside an object's edge that the double margin leaves out
    recolour: Fraction = 0.5  # of the objects are learned in another colour, in query and scene alike


AnyRecipe = DetectorRecipe | ClassifierRecipe | EmbedderRecipe | LocaliserRecipe | FinderRecipe
Recipe = Annotated[AnyRecipe, Field(discriminator="kind")]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the keys and values of a YAML file.

    Raises:
        TrainError: unreadable, or of another form.
    """
    try:
        tree = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise TrainError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise TrainError(f"{path}: found {type(tree).__name__}, expected keys and values")
    return tree


def load_recipe(path: Path, overrides: list[str] | None = None) -> AnyRecipe:
    """Read a recipe.

    Args:
        path: of the YAML file.
        overrides: `key.key=value`, the value in YAML.

    Raises:
        TrainError: unreadable, an unknown key or a wrong value; names file and key.
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
        raise TrainError(f"--set {override}: found no '=', expected key=value")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise TrainError(f"--set {override}: {parent} holds a value, expected keys below it")
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise TrainError(f"--set {override}: no YAML: {value}") from error
