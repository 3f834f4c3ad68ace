"""The parts that recipes of several kinds share: data, input, backbone, augmentation and optimiser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dataset_formats.records import Layout

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
LEAST_VISIBLE = 0.25


class RecipePart(BaseModel):
    """A part of a recipe: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Split(RecipePart):
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


class CropData(RecipePart):
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


class SceneData(RecipePart):
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


class MaskData(RecipePart):
    """Pictures of single objects with their true masks."""

    index: Path  # a CSV with path, mask, split; a mask is grey, or the alpha of a cut-out
    root: Path | None = None  # folder of the paths in the CSV; None: the CSV's folder
    train_splits: list[str] = ["train"]
    val_splits: list[str] = ["val"]


class Input(RecipePart):
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


class Backbone(RecipePart):
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


class Augment(RecipePart):
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


class Optimiser(RecipePart):
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


class BaseRecipe(RecipePart):
    """What the recipes of detector, classifier, embedder and finder share."""

    seed: int = 0
    quick: bool = False  # shortened by --quick, see trainer.quick
    input: Input = Input()
    backbone: Backbone = Backbone()
    augment: Augment = Augment()
    optimiser: Optimiser = Optimiser()

    @model_validator(mode="after")
    def _test_is_not_watched(self) -> BaseRecipe:
        data = getattr(self, "scenes", None) or getattr(self, "data", None)
        if self.optimiser.stop_after is not None and data is not None and "test" in data.val_splits:
            raise ValueError(
                f"optimiser.stop_after evaluates on {data.val_splits}; remove the test split from val_splits"
            )
        return self
