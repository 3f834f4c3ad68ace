"""Loads the models and galleries of a device, as its configuration says."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from edge.bundle.bundle import Bundle, check_compatible, read_bundle
from edge.bundle.engine_builds import BuildOptions, Models
from edge.bundle.pairs import Pair
from edge.bundle.prove import Prove, prover
from edge.bundle.slots import read_active
from edge.bundle.starts import Starts
from edge.config.schema import DeviceConfig, EngineConfig, GalleryConfig
from edge.engine_store.engine_store import EngineStore
from edge.engine_store.process_memory import default_budget_bytes
from edge.errors import FinesightError
from edge.finder.finder import open_finder
from edge.gallery.attributes import joined
from edge.gallery.generation import Gallery, read_gallery
from edge.gallery.index_cache import CACHE_NAME, IndexCache
from edge.gallery.loaded_gallery import LoadedGallery, load_gallery
from edge.gallery.search import IndexKind
from edge.inference.engine import BUILDING_BACKENDS, RUNS, Precision, has_precision, unusable
from edge.inference.engine_choice import Model, choice_path, models_of, precision_of, read_choice, resolve
from edge.inference.open_models import OpenOptions
from edge.inference.stages import load_stages
from edge.manifest.stages import FinderModel
from edge.process import Call
from edge.recognition.best_pair import Serving, load_best_pair
from edge.recognition.chosen_engines import WantedEngines, distrust_engines, proof_options
from edge.recognition.gpu_engines import GpuEngines
from edge.recognition.hot_swap import ActiveModels
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.operating_point import at_operating_point
from edge.telemetry.counters import Counters
from edge.types import Counts

log = logging.getLogger(__name__)

_HEAD_START_S = 1.0
_TRUSTED_STARTS = 3  # that may end within a minute before the chosen engines are suspected


class ModelLoading:
    """Loads the best bundle and gallery of a device in a thread; the caller imports and opens other parts meanwhile."""

    def __init__(
        self,
        config: DeviceConfig,
        counters: Counters | None = None,
        add_overlay: Callable[[LoadedModels], LoadedModels] = lambda models: models,
    ) -> None:
        """Start to load.

        Args:
            config: the device.
            counters: created if None.
            add_overlay: changes loaded models before they are used: a kiosk adds its taught items.
        """
        self.counters = counters or Counters()
        self.starts = Starts(config.state_dir)
        self.gpu = build_gpu_engines(config, self.counters)
        self._config, self._add_overlay = config, add_overlay
        self._verified = threading.Event()
        self._call = Call(self._load)

    def wait_for_verification(self) -> None:
        """Wait, but not long, until the files are verified: Python code side by side with that would delay both.

        The engines, which are opened next, leave the interpreter to other threads.
        """
        self._verified.wait(_HEAD_START_S)

    def wait(self, stop: threading.Event | None = None) -> ActiveModels:
        """Return the models once they are loaded.

        Args:
            stop: set by a signal; ends the waiting, not the loading.

        Raises:
            FinesightError: no bundle and gallery of the device can be used.
            StoppedError: `stop` was set meanwhile.
        """
        return self._call.result(stop)

    def _load(self) -> ActiveModels:
        config, wanted = self._config, WantedEngines(self._config)
        try:
            return ActiveModels(
                config.state_dir,
                partial(load_best_models, config, self.counters, self.starts, self.gpu, self._verified.set),
                partial(load_pair, config, self.counters, gpu=self.gpu),
                self._add_overlay,
                self.counters,
                lambda bundle: (wanted(bundle), self.gpu.generation),
            )
        finally:
            self._verified.set()


def load_active_models(config: DeviceConfig) -> LoadedModels:
    """Load a device's active bundle and gallery.

    Raises:
        BundleError: none is activated, or one is damaged.
        EngineError: a model cannot run here.
    """
    return load_pair(config, Counters(), *read_active(config.state_dir))


def load_best_models(
    config: DeviceConfig,
    counts: Counts,
    starts: Starts,
    gpu: GpuEngines,
    on_verified: Callable[[], None] = lambda: None,
) -> Serving:
    """Load a device's active bundle and gallery or, if they cannot be used, the best that is left on it.

    Args:
        config: of the device.
        counts: of the engines.
        starts: counts the start.
        gpu: chooses between GPU and CPU.
        on_verified: called when the files of a pair are verified, before its engines are opened.

    Raises:
        BundleError: nothing on the device can be used.
    """
    prove = device_prover(config, gpu)

    def load(bundle: Bundle, gallery: Gallery) -> LoadedModels:
        on_verified()
        pair = Pair(bundle.folder.name, bundle.manifest.bundle_id, gallery.generation)
        if starts.of(pair) > _TRUSTED_STARTS:
            distrust_engines(config.state_dir, bundle, starts.of(pair) - 1)
        return load_pair(config, counts, bundle, gallery, gpu=gpu)

    return load_best_pair(config.state_dir, load, prove, starts)


def device_prover(config: DeviceConfig, gpu: GpuEngines) -> Prove:
    """Return what proves bundles for a device, and that they keep the promise of its configuration.

    What TensorRT builds for minutes is built first, and logged.
    """
    prove = prover(proof_options(config.engine, config.state_dir), config.state_dir)

    def build_and_prove(bundle: Path, gallery: Path | None) -> list[str]:
        whole = read_bundle(bundle, verify=False)  # whoever proves it verified it
        for embedder in whole.manifest.embedders:
            at_operating_point(embedder.rules, config.gallery)
        if config.engine.backend in BUILDING_BACKENDS:
            gpu.prepare_trial(whole)
        return prove(bundle, gallery)

    return build_and_prove


def build_gpu_engines(config: DeviceConfig, counts: Counts) -> GpuEngines:
    """Return what chooses between GPU and CPU for the bundles of a device."""
    options = BuildOptions(config.state_dir / "cache", config.engine.tensorrt)

    def wanted(bundle: Bundle) -> Models:
        choice = read_choice(choice_path(config.state_dir, bundle.manifest))
        return tensorrt_files(
            bundle,
            config,
            lambda name, model, precision: [
                one.form
                for one in resolve(name, model, config.engine.backend, precision, choice)[:1]
                if one.backend == "tensorrt"
            ],
        )

    def every_form(bundle: Bundle) -> Models:
        if config.engine.backend not in ("auto", "tensorrt") or unusable("tensorrt"):
            return ()
        return tensorrt_files(
            bundle,
            config,
            lambda _, model, precision: [
                form for form in RUNS["tensorrt"] if form in model.files and has_precision(form, precision)
            ],
        )

    return GpuEngines(config.engine, options, wanted, counts, every_form_of=every_form)


def tensorrt_files(
    bundle: Bundle, config: DeviceConfig, forms_of: Callable[[str, Model, Precision], Iterable[str]]
) -> Models:
    """Return the files of a bundle's models that TensorRT should run, each with the rows of its largest batch.

    Args:
        bundle: that holds them.
        config: of the device.
        forms_of: the forms of a model, by its name, for a precision.
    """
    found: dict[tuple[Path, int], None] = {}
    for name, model in models_of(bundle.manifest).items():
        is_finder = isinstance(model, FinderModel)
        if is_finder and config.recognition.seek is None:
            continue
        for form in forms_of(name, model, precision_of(model, "tensorrt", config.engine.precision)):
            found[bundle.folder / model.every_file[form], model.max_batch] = None
            if isinstance(model, FinderModel):
                found[bundle.folder / model.conversion_for(form), 1] = None
    return list(found)


def load_pair(
    config: DeviceConfig,
    counts: Counts,
    bundle: Bundle,
    gallery: Gallery,
    previous: LoadedGallery | None = None,
    gpu: GpuEngines | None = None,
) -> LoadedModels:
    """Load a verified bundle and gallery of a device.

    Args:
        config: of the device.
        counts: of the engines.
        bundle: to load.
        gallery: to load.
        previous: what is loaded already, to take over what both galleries hold.
        gpu: chooses between GPU and CPU; None: only what is configured will do.

    Raises:
        GalleryError: the gallery is wrong inside.
        BundleError: it has no threshold for what the configuration promises.
        EngineError: a model cannot run here.
    """

    def load_with(engine: EngineConfig) -> LoadedModels:
        return _load_with_finder(config.model_copy(update={"engine": engine}), counts, bundle, gallery, previous)

    return load_with(config.engine) if gpu is None else gpu.load(bundle, load_with)


def _load_with_finder(
    config: DeviceConfig, counts: Counts, bundle: Bundle, gallery: Gallery, previous: LoadedGallery | None
) -> LoadedModels:
    models = _load(bundle, gallery, config.engine, config.state_dir, counts, previous, config.gallery.index)
    models = replace(models, open_sets=at_operating_point(models.open_sets, config.gallery))
    if config.recognition.seek is None:
        return models
    model = bundle.manifest.finder
    if model is None or model.map_threshold is not None:
        why = "no finder" if model is None else "a finder of an older format (ADR 0010)"
        log.warning("bundle %s has %s: recognition.seek has no effect", models.bundle_id, why)
        return models
    options = _open_options(config.engine, config.state_dir)
    choice = read_choice(choice_path(config.state_dir, bundle.manifest))
    engine = config.engine
    finder = open_finder(
        bundle.folder, model, engine.backend, options, choice, models.stages.store, precision=engine.precision
    )
    return replace(models, finder=finder)


def load_state(state_dir: Path, engine: EngineConfig, gallery: GalleryConfig | None = None) -> LoadedModels:
    """Load the active bundle and gallery of a state folder, without a finder.

    Args:
        state_dir: the folder.
        engine: how to run the models.
        gallery: how sure a match must be; None: as the bundle says.

    Raises:
        BundleError: none is activated, one is damaged, or the bundle has no threshold for what `gallery` promises.
        EngineError: a model cannot run here.
    """
    models = _load(*read_active(state_dir), engine, state_dir)
    return models if gallery is None else replace(models, open_sets=at_operating_point(models.open_sets, gallery))


def load_models(bundle_folder: Path | None, gallery_folder: Path | None, engine: EngineConfig) -> LoadedModels:
    """Load a bundle and a gallery from folders, without a device; no gallery means an empty one.

    Raises:
        BundleError: the bundle is damaged or missing, or the gallery is of another embedding space.
        GalleryError: the gallery is damaged.
    """
    if bundle_folder is None:
        raise FinesightError("a gallery folder needs a bundle folder; give both")
    bundle, gallery = read_bundle(bundle_folder), read_gallery(gallery_folder) if gallery_folder else None
    if gallery is not None:
        check_compatible(bundle, gallery)
    return _load(bundle, gallery, engine)


def _open_options(engine: EngineConfig, state_dir: Path | None) -> OpenOptions:
    return OpenOptions(engine.threads, state_dir and state_dir / "cache", engine.tensorrt)


def _load(
    bundle: Bundle,
    gallery: Gallery | None,
    engine: EngineConfig,
    state_dir: Path | None = None,
    counts: Counts | None = None,
    previous: LoadedGallery | None = None,
    index: IndexKind = "auto",
) -> LoadedModels:
    choice = read_choice(choice_path(state_dir, bundle.manifest)) if state_dir else None
    budget_bytes = default_budget_bytes() if engine.memory_mib is None else engine.memory_mib * 2**20
    store = EngineStore(budget_bytes, counts or Counters())
    options = _open_options(engine, state_dir)
    stages = load_stages(bundle.folder, bundle.manifest, engine.backend, options, engine.precision, choice, store)
    cache = IndexCache(state_dir / "cache" / CACHE_NAME, counts or Counters()) if state_dir else None
    loaded = load_gallery(bundle.manifest, gallery, previous, cache, index)
    return LoadedModels(
        bundle.manifest.bundle_id,
        gallery.generation if gallery else "none",
        stages,
        dict(loaded.indexes),
        loaded.open_sets,
        frozenset(loaded.compatible_categories),
        gallery.created_at if gallery else None,
        loaded.silhouettes,
        spaces=dict(loaded.spaces),
        gallery=loaded,
        attributes=joined(loaded.attributes),
    )
