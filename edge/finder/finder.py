"""Find the object of query pictures in a scene: trunk on an engine, correlation in numpy, conversion on an engine.

The method is that of US 2018/0260664, in the family of US 10,019,655 (see NOTICE). A device runs it only if the bundle
has a finder and the configuration or the command line uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.engine_store.engine_store import EngineStore
from edge.engine_store.stored_engine import StoredEngine
from edge.errors import EngineError
from edge.finder.correlate import Query, build_query, heat_maps
from edge.finder.heat_map import VerifiedBox, connected_parts
from edge.finder.query import lay_out_query
from edge.finder.verify import verify_parts
from edge.inference.checked_run import run_checked
from edge.inference.engine import RUNS, Backend, Precision, open_engine
from edge.inference.engine_choice import EngineChoice, precision_of, resolve
from edge.inference.open_models import OpenOptions, open_resolved
from edge.inference.preprocess import Placement, to_batch, to_canvas
from edge.manifest.stages import FinderModel
from edge.telemetry.counters import Counters
from edge.telemetry.timing import Timings
from edge.types import Engine, FloatArray, Image, Mask, Runnable


@dataclass(frozen=True, slots=True)
class SceneFeatures:
    """The trunk's outputs for a scene. You can search them for any number of objects."""

    representation: FloatArray  # (channels, rows, columns)
    guide: FloatArray | None  # (channels, rows, columns) on the grid of the heat map
    placed: Placement
    image_rgb: Image


class Finder:
    """Finds objects from query pictures of them."""

    def __init__(self, model: FinderModel, trunk: Runnable, conversion: Runnable) -> None:
        self.model = model
        self._trunk = trunk
        self._conversion = conversion

    def make_query(self, image_rgb: Image, mask: Mask, timings: Timings) -> Query:
        """Compute the query for a picture of an object.

        Args:
            image_rgb: the picture.
            mask: (h, w), 1 on the object.
            timings: of the stages.

        Raises:
            PictureError: the mask is empty, or its size is not the picture's.
            EngineError: the trunk failed.
        """
        spec, shape = self.model.preprocess, self.model.shape
        canvas, coverage = lay_out_query(image_rgb, mask, shape, spec)
        return build_query(self._represent(canvas, timings)[0][0], coverage, shape, spec)

    def scene_features(self, image_rgb: Image, timings: Timings) -> SceneFeatures:
        """Run the trunk on a scene.

        Raises:
            EngineError: the trunk failed.
        """
        with timings.stage("preprocess"):
            canvas, placed = to_canvas(self.model.preprocess, image_rgb)
        outputs = self._represent(canvas, timings)
        return SceneFeatures(outputs[0][0], outputs[1][0] if self.model.guide else None, placed, image_rgb)

    def heat_map(self, features: SceneFeatures, queries: Sequence[Query], timings: Timings) -> FloatArray:
        """Return the heat map of one object in a scene, (rows, columns), about 1 on the object.

        With several queries, it is the mean of their maps.

        Raises:
            EngineError: the conversion failed.
        """
        shape, spec = self.model.shape, self.model.preprocess
        with timings.stage("correlate"):
            stacks = [heat_maps(features.representation, query, shape, spec) for query in queries]
            guide = [] if features.guide is None else [features.guide]
            maps = np.stack([np.concatenate([stack, *guide]) for stack in stacks])
        with timings.stage("convert"):
            return np.asarray(run_checked(self._conversion, maps, [(len(maps), *maps.shape[2:])])[0].mean(axis=0))

    def find_boxes(
        self,
        features: SceneFeatures,
        heat: FloatArray,
        queries: Sequence[Query],
        timings: Timings,
        min_score: float | None = None,
    ) -> list[VerifiedBox]:
        """Verify the parts of a heat map and return the boxes of the object, best first.

        Args:
            features: of the scene.
            heat: the heat map of these queries in the scene.
            queries: of one object.
            timings: of the stages.
            min_score: None: the model's threshold.

        Raises:
            EngineError: the trunk failed.
        """
        shape, min_score = self.model.shape, self.model.score_threshold if min_score is None else min_score
        # A part never scores more than its peak.
        parts = connected_parts(heat, features.placed, shape.map_stride, shape.levels, min_score)
        kernels = [query.verify_kernel for query in queries]
        with timings.stage("look_again"):
            scored = verify_parts(
                self._represent_canvas, features.image_rgb, parts, kernels, shape, self.model.preprocess
            )
        return [one for one in scored if one.score >= min_score]

    def _represent_canvas(self, canvas: Image) -> FloatArray:
        representation: FloatArray = self._represent(canvas, Timings())[0][0]
        return representation

    def _represent(self, canvas: Image, timings: Timings) -> list[FloatArray]:
        batch = to_batch(self.model.preprocess, [canvas])
        with timings.stage("represent"):
            return run_checked(self._trunk, batch, self.model.output_shapes(1))


def open_finder(
    folder: Path,
    model: FinderModel,
    backend: Backend = "auto",
    options: OpenOptions | None = None,
    choice: EngineChoice | None = None,
    store: EngineStore | None = None,
    *,
    precision: Precision = "shipped",
) -> Finder:
    """Load the finder of a bundle and run it once.

    Args:
        folder: of the bundle.
        model: of its manifest.
        backend: which library runs it.
        options: of its engines; the defaults when None.
        choice: of this machine for this bundle; None: the default.
        store: holds its engines, which stay loaded; None: one of its own.
        precision: as configured; a finder without such a form runs in FP32.

    Raises:
        EngineError: a network cannot be loaded or run, or its output shapes differ from the manifest; or the finder was
            trained before the verification step existed.
    """
    if model.map_threshold is not None:
        raise EngineError(f"{folder}: the finder has a map_threshold: it is too old to run; train it again")
    options = options or OpenOptions()
    resolved = resolve("finder", model, backend, precision_of(model, backend, precision), choice)
    # a plug-in takes the forms of a model; the conversion has only those in ONNX
    of_conversion = resolved[0].backend if resolved[0].backend in RUNS else "onnxruntime"

    def stored(name: str, path: Path, open_it: Callable[[], Engine]) -> StoredEngine:
        size = path.stat().st_size if path.is_file() else 0
        return engines.add(name, ("finder", path), open_it, where=str(path), file_bytes=size, is_pinned=True)

    engines = store or EngineStore(None, Counters())
    trunk, conversion = folder / model.every_file[resolved[0].form], folder / model.conversion_for(resolved[0].form)
    finder = Finder(
        model,
        stored("finder", trunk, lambda: open_resolved(folder, "finder", model, resolved, options)[1]),
        stored(
            "finder, conversion",
            conversion,
            lambda: open_engine(
                conversion, of_conversion, options.threads, cache=options.cache, tensorrt=options.tensorrt
            ),
        ),
    )
    grey = np.full((model.preprocess.height, model.preprocess.width, 3), model.preprocess.fill, np.uint8)
    try:
        query = finder.make_query(grey, np.ones(grey.shape[:2], np.uint8), Timings())
    except ValueError as error:
        raise EngineError(f"{folder}: {error}") from error
    finder.heat_map(finder.scene_features(grey, Timings()), [query], Timings())
    return finder
