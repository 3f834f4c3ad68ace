"""Recipes: one YAML file becomes one frozen, typed tree. The only module of the trainer that reads YAML."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from dataset_formats.text_files import read_text
from edge.errors import DataError, TrainError
from edge.finder_shape import FinderShape
from trainer.embedder_recipe import EmbedderRecipe
from trainer.recipe_effects import Idle, describe_idle, idle_keys
from trainer.recipe_parts import (
    Augment,
    Backbone,
    BaseRecipe,
    CropData,
    Fraction,
    Input,
    MaskData,
    Optimiser,
    RecipePart,
    SceneData,
)

log = logging.getLogger(__name__)


class DetectorRecipe(BaseRecipe):
    """Recipe of a detector, which finds objects."""

    kind: Literal["detector"]
    scenes: SceneData
    width: int = 64  # channels of neck and head
    centre_radius: float = 1.5  # cells around the centre of a box that learn it
    init_from: Path | None = None  # run folder of a detector of the same shape, to start from


class ClassifierRecipe(BaseRecipe):
    """Recipe of a classifier, which names the category."""

    kind: Literal["classifier"]
    data: CropData
    width: Annotated[int, Field(ge=0)] = 128  # first hidden layer of the decision module; 0: none
    further_widths: list[Annotated[int, Field(ge=1)]] = Field(default=[])  # hidden layers after it
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3  # after the first
    # The softmax counts only the largest logits after this share of the training (HCL; HDCL 2021, Table 7); 1: never
    hcl_from: Fraction = 1.0
    hcl_hardest: Annotated[int | None, Field(ge=2)] = None  # None: 2
    auxiliary_items: bool = True  # also train the trunk by an item loss; its layer is not saved
    auxiliary_grid: Annotated[int, Field(ge=1)] = (
        3  # cells along each axis that this loss sees, so that it knows where a detail is
    )
    label_smoothing: Fraction = 0.05
    # Run folders of classifiers of the same categories, to distil from as an ensemble.
    teachers: list[Path] = Field(default=[])
    distil: float = 1.0  # weight of the distillation loss
    # Length of the descriptor: principal components of the pooled trunk, which describe a crop beside its category, for
    # embedders that use them (edge-quantize pack --classifier-share). 0: none.
    descriptor_dim: Annotated[int, Field(ge=0)] = 0


class LocaliserRecipe(RecipePart):
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


class FinderWorld(RecipePart):
    """The scenes that a finder is trained on, with exact masks: rendered, or pasted from your own cut-outs."""

    seed: int = 0
    cutouts: Path | None = None  # your own things, as `edge-train expand` takes them; None: the built-in catalogue
    root: Path | None = None  # folder of the paths in a JSON or CSV of cut-outs; None: its own folder
    splits: list[str] = Field(default=[])  # use only cut-outs of these splits; empty: all
    per_item: Annotated[int, Field(ge=1)] = 30  # most cut-outs of each item
    backgrounds: Path | None = None  # folder of photos to paste on; None: drawn backgrounds
    without: list[str] = Field(default=[])  # distortions of `edge-train expand` to leave out
    rendered: Fraction = 0.0  # share of the scenes that is rendered from the built-in catalogue, beside your own
    scenes: Annotated[int, Field(ge=2)] = 700
    val_scenes: Annotated[int, Field(ge=1)] = 60  # other scenes of the same items
    looks: Annotated[int, Field(ge=1)] = 8  # cut-outs of each item, used as queries
    held_out: list[str] = Field(default=[])  # items and categories that appear in no scene


class Shape(FinderShape):
    """The shape of a finder. Unlike in a bundle, an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class FinderRecipe(BaseRecipe):
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
        TrainError: the file cannot be read, or a key or value is wrong or does nothing; the message names file and key.
    """
    tree = read_yaml(path)
    written = copy.deepcopy(tree)
    for override in overrides or []:
        _override(tree, override)
    recipe = _validated(path, tree)
    idle = idle_keys(recipe)
    if idle and overrides:
        idle = _not_switched_off(idle, written, overrides)
    if missing := {key: one for key, one in idle.items() if not one.of_size}:
        raise TrainError(f"{path}: {describe_idle(missing)}; remove what does nothing, or set what it needs")
    if idle:
        log.warning("%s: %s", path, describe_idle(idle))
    return recipe


def _validated(path: Path, tree: dict[str, Any]) -> AnyRecipe:
    try:
        recipe: AnyRecipe = TypeAdapter(Recipe).validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part != tree.get("kind"))
        if first["type"] == "value_error":  # our own: it says all
            raise TrainError(": ".join([str(path), *filter(None, [key]), str(first["ctx"]["error"])])) from error
        raise TrainError(f"{path}: {key or '(top)'}: {first['msg']}, found {first['input']!r:.80}") from error
    return recipe


def _not_switched_off(idle: dict[str, Idle], written: dict[str, Any], overrides: list[str]) -> dict[str, Idle]:
    """Return the idle keys without those that work in the file alone: an override switched off what they belong to."""
    try:
        before = idle_keys(TypeAdapter(Recipe).validate_python(written))
    except ValidationError:  # the file needs its overrides
        return idle
    overridden = [override.partition("=")[0] for override in overrides]
    return {
        key: found
        for key, found in idle.items()
        if key in before or any(key == one or key.startswith(f"{one}.") for one in overridden)
    }


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
