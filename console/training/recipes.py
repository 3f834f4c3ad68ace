"""Trains single models by the shipped recipes: which there are, their keys, and what they need."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from console.settings import Settings
from console.storage.database import Database
from console.training.data_set import (
    COCO,
    Counts,
    Purpose,
    count_boxes,
    count_crops,
    file_of,
    hold_out,
    named_crops,
    write_boxes,
    write_crops,
)
from console.training.job import Job
from console.training.jobs import Jobs
from console.training.learning import DATA, TRAIN, checked_weights, require_trainer
from edge.errors import ConsoleError, TrainError
from edge.shipped.examples import shipped
from trainer.recipe import load_recipe, read_yaml

_KINDS: Mapping[str, Purpose] = {"embedder": "items", "classifier": "items", "detector": "boxes", "localiser": "boxes"}
_WHAT = {
    "embedder": "tells the items of each category apart",
    "classifier": "names the category of an object",
    "detector": "finds objects in a picture",
    "localiser": "finds the pixels of the object in a crop",
}
_RUN, _RECIPE = "run", "recipe.yaml"
_LEAST_BOXES = 20  # pictures
_LEAST_PER_ITEM = 4
_PACKAGED = "tf_efficientnet_lite0"  # whose weights the Python package holds


@dataclass(frozen=True, slots=True)
class RecipeFile:
    """One shipped recipe."""

    name: str  # of its file, without .yaml
    kind: str
    does: str
    note: str  # its first comment
    epochs: int
    batch: int
    lr: float
    pretrained: str

    @property
    def purpose(self) -> Purpose:
        """What it learns from."""
        return _KINDS[self.kind]


@dataclass(frozen=True, slots=True)
class RecipeRequest:
    """What a person asked for."""

    recipe: str
    set_ids: tuple[int, ...]
    name: str
    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    pretrained: str = ""
    more: tuple[str, ...] = ()  # KEY=VALUE


@cache
def list_recipes() -> tuple[RecipeFile, ...]:
    """Return the shipped recipes that train on one's own pictures; they are read once."""
    found = []
    for path in sorted((shipped("configs") / "train").glob("*.yaml")):
        tree = read_yaml(path)
        if tree.get("kind") not in _KINDS or path.stem.startswith("demo-"):
            continue
        recipe: Any = load_recipe(path)
        text = path.read_text(encoding="utf-8").splitlines()
        note = " ".join(line.lstrip("# ") for line in text if line.startswith("#"))
        backbone = getattr(recipe, "backbone", None)
        found.append(
            RecipeFile(
                path.stem, recipe.kind, _WHAT[recipe.kind], note, recipe.optimiser.epochs, recipe.optimiser.batch,
                recipe.optimiser.lr, backbone.pretrained if backbone else "",
            )
        )  # fmt: skip
    return tuple(found)


def problem_of(kind: str, counts: Counts) -> str:
    """Say why there is too little for a recipe; empty: there is enough."""
    if kind == "localiser":
        return (
            "a localiser needs true masks, which sets do not have; make some (edge-train synthesize --masks), and name "
            "them: data.index=FILE"
        )
    if kind == "detector":
        few = f"{counts.pictures} pictures have confirmed boxes; a detector needs {_LEAST_BOXES}: confirm more"
        none = "" if counts.objects else "no confirmed picture has a box; draw some"
        return few if counts.pictures < _LEAST_BOXES else none
    if counts.problem:
        return counts.problem
    if kind == "classifier" and counts.categories < 2:
        return "there is one category; a classifier tells categories apart, so two are needed"
    if counts.median < _LEAST_PER_ITEM:
        return (
            f"the middle item has {counts.median:g} pictures; a recipe needs {_LEAST_PER_ITEM}. “Learn” makes do with "
            "fewer, because it can use published features"
        )
    return ""


def start_recipe(settings: Settings, database: Database, jobs: Jobs, request: RecipeRequest, by: str) -> Job:
    """Queue the job.

    Raises:
        ConsoleError: there is no such recipe, a key or value is wrong, there is too little to learn from, training is
            not installed, or the disk failed.
    """
    require_trainer()
    path = shipped("configs") / "train" / f"{request.recipe}.yaml"
    recipe = next((one for one in list_recipes() if one.name == request.recipe), None)
    if recipe is None:
        raise ConsoleError("not_found", f"there is no recipe {request.recipe!r}")
    has_masks = recipe.kind == "localiser" and any(one.startswith("data.index=") for one in request.more)
    with database.read() as rows:
        of_boxes = recipe.purpose == "boxes"
        counts = (count_boxes if of_boxes else count_crops)(rows, request.set_ids)
        crops = [] if of_boxes else hold_out(list(named_crops(rows, request.set_ids)))
    if (problem := problem_of(recipe.kind, counts)) and not has_masks:
        raise ConsoleError("invalid", problem)
    overrides = _overrides(recipe, request, COCO if of_boxes else file_of(crops))
    if request.pretrained and recipe.pretrained:
        allowed = (*settings.folders, settings.data)
        weights = request.pretrained if request.pretrained == "none" else checked_weights(request.pretrained, allowed)
        packaged = [f"backbone.name={_PACKAGED}"] if weights == "package" else []
        overrides = [f"backbone.pretrained={weights}", *packaged, *overrides]
    try:
        checked = load_recipe(path, overrides)
    except TrainError as error:
        raise ConsoleError("invalid", str(error).removeprefix(f"{path}: ")) from error

    def prepare(folder: Path) -> None:
        (folder / DATA).mkdir()
        shutil.copyfile(path, folder / _RECIPE)
        if of_boxes:
            with database.read() as rows:
                write_boxes(rows, request.set_ids, folder / DATA)
        else:
            write_crops(crops, folder / DATA)

    argv = [*TRAIN, recipe.kind, "--config", _RECIPE, "--out", _RUN]
    argv += [part for override in overrides for part in ("--set", override)]
    about = {
        "sets": list(request.set_ids), "recipe": request.recipe, "counts": asdict(counts),
        "keys": flattened(checked.model_dump(mode="json")),
    }  # fmt: skip
    return jobs.start("recipe", request.name, argv, by, about=about, prepare=prepare)


def flattened(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return the values of a tree by their full key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= flattened(value, f"{above}{key}.")
        else:
            found[f"{above}{key}"] = value
    return found


def _overrides(recipe: RecipeFile, request: RecipeRequest, file: str) -> list[str]:
    """Return what is set in the recipe, the person's own lines last."""
    found: list[str] = []
    if recipe.kind != "localiser":
        place = "scenes" if recipe.kind == "detector" else "data"
        found.append(f"{place}.{'train' if recipe.kind == 'detector' else 'index'}={DATA}/{file}")
    if recipe.purpose == "items":
        found.append("data.gallery_splits=[]")
    numbers: Sequence[tuple[str, float | None]] = (
        ("epochs", request.epochs), ("batch", request.batch), ("lr", request.lr)
    )  # fmt: skip
    found += [f"optimiser.{key}={value:.10g}" for key, value in numbers if value is not None]
    return [*found, *request.more]
