"""Finds the object of a query picture in a scene: with the bundle's finder, or by the similarity of windows.

The finder is what `edge find` runs. The similarity map is the console's own: it slides windows over the scene, embeds
each with the bundle's embedder, and shows how near each is to the query. It needs no finder, and finds less.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from console.models.models import LoadedPair, Models
from console.search.heat import draw_heat
from console.search.similarity import map_similarity
from edge.bundle.bundle import read_bundle
from edge.errors import ConsoleError
from edge.finder.find_in_file import QueryFile, find
from edge.finder.finder import Finder, open_finder
from edge.imaging import image
from edge.manifest.stages import FinderModel
from edge.types import Box, FloatArray, Image

Way = Literal["finder", "similarity"]
NO_FINDER = (
    "this bundle has no finder; train one with edge-train finder and pack it into the bundle, or take the similarity "
    "map"
)
_LONGEST_PX = 1600  # of a scene as it is searched and shown
_SPENT_S = 1.0  # on the windows of a similarity map


@dataclass(frozen=True, slots=True)
class ScenePlace:
    """Where the object is in the scene."""

    box_px: Box  # in the scene as it is shown
    score: float  # of the finder, 0..1, or the similarity, -1..1


@dataclass(frozen=True, slots=True)
class SceneResult:
    """A scene with its heat map."""

    pair: LoadedPair
    way: Way
    shown: bytes  # JPEG
    width: int  # of what is shown, pixels
    height: int
    found: tuple[ScenePlace, ...]  # best first
    windows: int  # that were compared; 0: the finder has none
    smallest_px: int  # longer side of the smallest ones; smaller objects are missed
    category: str | None  # whose embedder compared them
    took_ms: float


def find_in_scene(
    models: Models,
    query_rgb: Image,
    scene_rgb: Image,
    choice_id: str,
    way: Way | None,
    open_it: Callable[[LoadedPair], Finder | None] | None = None,
    spend_s: float = _SPENT_S,
) -> SceneResult:
    """Find the object that fills a query picture, or stands out from its plain background, in a scene.

    Args:
        models: of the console.
        query_rgb: the query.
        scene_rgb: the scene; a large one is searched smaller.
        choice_id: bundle and gallery.
        way: how; None: with the finder, if the bundle has one.
        open_it: opens the finder of a pair; None: `finder_of`.
        spend_s: on a similarity map, about; with more it is finer.

    Raises:
        ConsoleError: there is no such choice, or no finder.
        FinesightError: a model failed.
    """

    def act(pair: LoadedPair) -> SceneResult:
        started = time.perf_counter()
        scene = image.shrink(scene_rgb, _LONGEST_PX)
        finder = None if way == "similarity" else (open_it or finder_of)(pair)
        if finder is not None:
            heat, found = _by_finder(finder, query_rgb, scene)
            windows, smallest_px, category = 0, 0, None
        elif way == "finder":
            raise ConsoleError("missing", NO_FINDER)
        else:
            similar = map_similarity(pair, query_rgb, scene, spend_s)
            heat, found = similar.heat, (ScenePlace(similar.box_px, similar.similarity),)
            windows, smallest_px, category = similar.windows, similar.smallest_px, similar.category
        return SceneResult(
            pair, "similarity" if finder is None else "finder", draw_heat(scene, heat),
            scene.shape[1], scene.shape[0], found, windows, smallest_px, category,
            1000 * (time.perf_counter() - started),
        )  # fmt: skip

    return models.run(choice_id, act)


def has_finder(pair: LoadedPair) -> bool:
    """Return whether the bundle has a finder that can run."""
    return _finder_model(pair) is not None


def finder_of(pair: LoadedPair) -> Finder | None:
    """Load the finder of a bundle; None if it has none.

    Raises:
        EngineError: it cannot be loaded.
    """
    model = _finder_model(pair)
    return None if model is None else open_finder(pair.choice.bundle, model, "onnxruntime")


def _finder_model(pair: LoadedPair) -> FinderModel | None:
    """Return the finder of a bundle; None if it has none, or one that is too old to run."""
    model = read_bundle(pair.choice.bundle, verify=False).manifest.finder
    return None if model is None or model.map_threshold is not None else model


def _by_finder(finder: Finder, query: Image, scene: Image) -> tuple[FloatArray, tuple[ScenePlace, ...]]:
    with tempfile.TemporaryDirectory(prefix="finesight-find-") as name:
        folder = Path(name)
        for file, picture in (("query.png", query), ("scene.png", scene)):
            (folder / file).write_bytes(image.encode_image(picture, ".png"))
        result = find(finder, [QueryFile(folder / "query.png")], folder / "scene.png", folder / "out")
        coloured = image.read_image(Path(result["heat_map"]))
    heat = coloured.astype(np.float32).sum(axis=2) / 765.0  # black, red, yellow, white: a third of the range each
    found = [ScenePlace(tuple(one["box_px"]), float(one["score"])) for one in result["found"]]
    return heat, tuple(found)
