"""Finds the object of query pictures in a scene, whatever it is: trunk by an engine, correlation in numpy, conversion.

The method is that of US 2018/0260664, in the family of US 10,019,655 (see NOTICE). A device runs it only where a bundle
brings a finder and it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.errors import EngineError
from edge.finder.correlate import Query, heat_maps, query_of
from edge.finder.heat_map import FoundBox, connected_parts
from edge.finder.query import lay_out_query
from edge.finder.verify import verify_parts
from edge.inference.engine import Backend, choose_backend, choose_target, open_engine
from edge.inference.preprocess import Placement, to_batch, to_canvas
from edge.inference.stages import run_checked
from edge.manifest import FinderModel
from edge.telemetry.timing import Timings
from edge.types import Engine, FloatArray, Image, Mask


@dataclass(frozen=True, slots=True)
class SceneFeatures:
    """A scene as the trunk sees it, to be searched for any number of objects."""

    representation: FloatArray  # (channels, rows, columns)
    guide: FloatArray | None  # (channels, rows, columns) of the heat map's grid
    placed: Placement
    image_rgb: Image


class Finder:
    """Finds objects by pictures of them."""

    def __init__(self, model: FinderModel, trunk: Engine, conversion: Engine) -> None:
        self.model = model
        self._trunk = trunk
        self._conversion = conversion

    def make_query(self, image_rgb: Image, mask: Mask, timings: Timings) -> Query:
        """What a picture of an object is searched by.

        Args:
            image_rgb: the picture.
            mask: (h, w), 1 on the object.
            timings: of the stages.

        Raises:
            PictureError: the mask is empty, or of another size.
            EngineError: the trunk failed.
        """
        spec, shape = self.model.preprocess, self.model.shape
        canvas, coverage = lay_out_query(image_rgb, mask, shape, spec)
        return query_of(self._represent(canvas, timings)[0][0], coverage, shape, spec)

    def scene_features(self, image_rgb: Image, timings: Timings) -> SceneFeatures:
        """Look at a scene.

        Raises:
            EngineError: the trunk failed.
        """
        with timings.stage("preprocess"):
            canvas, placed = to_canvas(self.model.preprocess, image_rgb)
        outputs = self._represent(canvas, timings)
        return SceneFeatures(outputs[0][0], outputs[1][0] if self.model.guide else None, placed, image_rgb)

    def heat_map(self, view: SceneFeatures, queries: Sequence[Query], timings: Timings) -> FloatArray:
        """The heat map of one object in a scene, (rows, columns), about 1 on it: the mean over its pictures.

        Raises:
            EngineError: the conversion failed.
        """
        shape, spec = self.model.shape, self.model.preprocess
        with timings.stage("correlate"):
            stacks = [heat_maps(view.representation, query, shape, spec) for query in queries]
            guide = [] if view.guide is None else [view.guide]
            maps = np.stack([np.concatenate([stack, *guide]) for stack in stacks])
        with timings.stage("convert"):
            return np.asarray(run_checked(self._conversion, maps, [(len(maps), *maps.shape[2:])])[0].mean(axis=0))

    def find_boxes(
        self, view: SceneFeatures, heat: FloatArray, queries: Sequence[Query], timings: Timings, least: float | None = None
    ) -> list[FoundBox]:
        """Look again at the parts of a heat map: those that are the object, best first.

        Args:
            view: of the scene.
            heat: of these queries in it.
            queries: pictures of one object.
            timings: of the stages.
            least: score; None: the model's threshold.

        Raises:
            EngineError: the trunk failed.
        """
        shape, least = self.model.shape, self.model.score_threshold if least is None else least
        # no part scores more than its peak
        parts = connected_parts(heat, view.placed, shape.map_stride, shape.levels, least)
        looks = [query.verify_kernel for query in queries]
        with timings.stage("look_again"):
            scored = verify_parts(self._seen, view.image_rgb, parts, looks, shape, self.model.preprocess)
        return [one for one in scored if one.score >= least]

    def _seen(self, canvas: Image) -> FloatArray:
        representation: FloatArray = self._represent(canvas, Timings())[0][0]
        return representation

    def _represent(self, canvas: Image, timings: Timings) -> list[FloatArray]:
        batch = to_batch(self.model.preprocess, [canvas])
        with timings.stage("represent"):
            return run_checked(self._trunk, batch, self.model.output_shapes(1))


def open_finder(
    folder: Path, model: FinderModel, backend: Backend = "auto", threads: int = 1, cache: Path | None = None
) -> Finder:
    """Load the finder of a bundle, in its FP32 form, and try it.

    Args:
        folder: of the bundle.
        model: of its manifest.
        backend: which library runs it.
        threads: inside one operator, on a CPU.
        cache: folder of engines built on this machine; in the bundle when None.

    Raises:
        EngineError: a network cannot be loaded or run, or answers in other shapes than the manifest says; or the finder
            is of before the second look.
    """
    if model.map_threshold is not None:
        raise EngineError(f"{folder}: found a finder with a map_threshold, expected one trained since there is none")
    backend = choose_backend(backend)
    form = model.files[choose_target(dict(model.files), model.ship, backend, "fp32")]
    trunk, conversion = (open_engine(folder / path, backend, threads, cache=cache) for path in (form, model.conversion))
    finder = Finder(model, trunk, conversion)
    grey = np.full((model.preprocess.height, model.preprocess.width, 3), model.preprocess.fill, np.uint8)
    try:
        query = finder.make_query(grey, np.ones(grey.shape[:2], np.uint8), Timings())
    except ValueError as error:
        raise EngineError(f"{folder}: {error}") from error
    finder.heat_map(finder.scene_features(grey, Timings()), [query], Timings())
    return finder
