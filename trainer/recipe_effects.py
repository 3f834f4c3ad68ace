"""Keys of a recipe that its other keys leave without an effect, though whoever wrote one expects it to do something.

A key counts as written if its value is neither its default nor off (0, null, empty). Weights and limits of something
that a recipe may add later, such as `distil` for a teacher, may stay. Sizes and rates are a warning, because a command
may set them for recipes of every kind.

tests/trainer/test_recipe_effects.py trains with and without the keys of each rule: a rule that is not true fails there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Needs:
    """Keys that have an effect only under a condition."""

    keys: Sequence[str]  # dotted
    holds: Callable[[Any], bool]  # of the recipe
    otherwise: str  # when they have none
    of_size: bool = False  # they state sizes and rates; they ask for no method that is then missing


def _never(_: Any) -> bool:
    return False


def _has_softmax(recipe: Any) -> bool:
    return bool(recipe.loss == "softmax" and recipe.anchor > 0)


def _has_centres(recipe: Any) -> bool:
    return _has_softmax(recipe) or recipe.loss in {"crl", "proxy_anchor"}


def _batch_counts(recipe: Any) -> bool:
    return not recipe.uses_pairs or recipe.optimiser.batch == recipe.classes_per_batch * recipe.images_per_class


def _has_outline_pairs(recipe: Any) -> bool:
    return bool("outline" in recipe.heads and (recipe.pairs > 0 or not recipe.anchor))


def _is_not_split(how: str, recipe: Any) -> bool:
    return bool(recipe.data.split.how != how)


_SHARED = (
    Needs(["optimiser.momentum"], lambda r: r.optimiser.name == "sgd", "without name sgd", of_size=True),
    Needs(
        ["optimiser.patience", "optimiser.decay"],
        lambda r: r.optimiser.schedule == "plateau",
        "without schedule plateau",
        of_size=True,
    ),
    Needs(
        ["optimiser.warmup"],
        lambda r: r.optimiser.schedule in {"one_cycle", "cosine"},
        "without schedule one_cycle or cosine",
        of_size=True,
    ),
    Needs(
        ["optimiser.watch"],
        lambda r: r.optimiser.stop_after is not None or r.optimiser.schedule == "plateau",
        "without stop_after or schedule plateau",
        of_size=True,
    ),
    Needs(["augment.mixup"], lambda r: r.kind == "classifier", "outside a classifier"),
)
IDLE_IN_SPLIT = {"published": ("test", "of", "together"), "class_disjoint": ("together",)}  # by how it is split
_SPLIT = tuple(
    Needs([f"data.split.{key}" for key in keys], partial(_is_not_split, how), f"with how {how}")
    for how, keys in IDLE_IN_SPLIT.items()
)
_CROPS_ONLY = (
    Needs(
        ["augment.shift", "augment.stretch", "augment.rotate_deg", "augment.perspective"],
        _never,
        "in training on whole scenes",
        of_size=True,
    ),
    Needs(["input.resize"], _never, "in training on whole scenes, which keep their shape"),
)
_ONE_SIZE = Needs(["input.train_width", "input.train_height"], _never, "outside a classifier or embedder")
_OF_KIND: dict[str, Sequence[Needs]] = {
    "detector": _CROPS_ONLY,
    "classifier": (
        Needs(["hcl_hardest"], lambda r: r.hcl_from < 1, "without hcl_from below 1"),
        Needs(["auxiliary_grid"], lambda r: r.auxiliary_items, "without auxiliary_items", of_size=True),
    ),
    "embedder": (
        Needs(["hdcl_hardest"], lambda r: r.hdcl_from < 1, "without hdcl_from below 1"),
        Needs(["each"], lambda r: r.one_per_category, "without one_per_category"),
        Needs(["mode"], _has_outline_pairs, "without pairs and the head outline"),
        Needs(["pair_ramp"], lambda r: r.pairs > 0 and r.anchor > 0, "without pairs beside the softmax", of_size=True),
        Needs(
            ["blocks", "neighbourhood"],
            lambda r: r.uses_region_confusion,
            "without the head local or outline",
            of_size=True,
        ),
        Needs(
            ["classes_per_batch", "images_per_class"],
            lambda r: r.uses_pairs,
            "without pairs or a loss that compares pictures",
            of_size=True,
        ),
        Needs(
            ["optimiser.batch"],
            _batch_counts,
            "with a loss that compares pictures; it draws classes_per_batch times images_per_class",
            of_size=True,
        ),
        Needs(["scale", "label_smoothing", "dropout"], _has_softmax, "without the softmax", of_size=True),
        Needs(["centre_lr"], _has_centres, "with a loss that has no centres", of_size=True),
    ),
    "localiser": (
        Needs(["optimiser.trunk_lr"], lambda r: r.backbone is not None, "without a backbone", of_size=True),
        Needs(["input.grey"], _never, "in a localiser"),
        _ONE_SIZE,
    ),
    "finder": (
        Needs(
            [f"world.{key}" for key in ("root", "splits", "backgrounds", "without", "rendered")],
            lambda r: r.world.cutouts is not None,
            "without world.cutouts",
        ),
        Needs(["world.per_item"], lambda r: r.world.cutouts is not None, "without world.cutouts", of_size=True),
        Needs(["input.grey"], _never, "in a finder"),
        Needs(["edge_band"], lambda r: r.loss == "double_margin", "without loss double_margin"),
        _ONE_SIZE,
        *_CROPS_ONLY,
    ),
}


@dataclass(frozen=True, slots=True)
class Idle:
    """A written key that has no effect."""

    otherwise: str  # when it has none
    of_size: bool


def rules_of(recipe: Any) -> Sequence[Needs]:
    """Return the rules for a recipe of this kind; those of a new split only if it has one."""
    split = getattr(getattr(recipe, "data", None), "split", None)
    return (*_OF_KIND[recipe.kind], *_SHARED, *(_SPLIT if split else ()))


def idle_keys(recipe: Any) -> dict[str, Idle]:
    """Return the written keys of a recipe that have no effect."""
    return {
        key: Idle(rule.otherwise, rule.of_size)
        for rule in rules_of(recipe)
        for key in rule.keys
        if _is_written(recipe, key) and not rule.holds(recipe)
    }


def describe_idle(idle: Mapping[str, Idle]) -> str:
    """Say which keys have no effect, and when."""
    by_condition: dict[str, list[str]] = {}
    for key, one in idle.items():
        by_condition.setdefault(one.otherwise, []).append(key)
    said = [
        f"{' and '.join(keys)} {'has' if len(keys) == 1 else 'have'} no effect {otherwise}"
        for otherwise, keys in by_condition.items()
    ]
    return "; ".join(said)


def _is_written(recipe: BaseModel, key: str) -> bool:
    *parents, last = key.split(".")
    part: Any = recipe
    for parent in parents:
        part = getattr(part, parent)
    default = type(part).model_fields[last].get_default(call_default_factory=True)
    value = getattr(part, last)
    return bool(value) and value != default
