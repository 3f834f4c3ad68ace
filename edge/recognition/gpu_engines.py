"""Loads a bundle for the GPU or, while that cannot run it, for the CPU, and has missing engines built meanwhile.

Rules:
1. Until the engines of a bundle are built, the CPU serves it; then it is loaded again.
2. A build that fails costs only itself: the CPU goes on. The next start tries again.
3. A GPU that is lost stays lost for this process: what it ran is loaded again for the CPU.
4. Whenever the CPU runs what the GPU should, `fallback` says why.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from edge.bundle.bundle import Bundle
from edge.bundle.engine_builds import BuildOptions, Models, OnProgress, build_engines, describe, engines_missing
from edge.config.schema import EngineConfig
from edge.errors import EngineError, FinesightError, GpuError
from edge.types import BuildProgress, Counts

log = logging.getLogger(__name__)

_LOG_EVERY_S = 60.0
_BUILDING = "the engines of the GPU are being built"

_Loaded = TypeVar("_Loaded")


class GpuEngines:
    """Decides for each bundle that is loaded; from any thread."""

    def __init__(
        self,
        config: EngineConfig,
        options: BuildOptions,
        models_of: Callable[[Bundle], Models],
        counts: Counts,
        *,
        every_form_of: Callable[[Bundle], Models] = lambda _: (),
        missing: Callable[[Models, BuildOptions], Models] = engines_missing,
        build: Callable[[Models, BuildOptions, OnProgress], None] = build_engines,
    ) -> None:
        """Build nothing yet.

        Args:
            config: as configured.
            options: how engines are built.
            models_of: the models of a bundle that TensorRT should run; none: it is not used.
            counts: `engine_builds` by result, `gpu_failures` by reason.
            every_form_of: the files of a bundle that TensorRT may run, for a trial of the engines.
            missing: which of them are not built.
            build: builds them.
        """
        self._config, self._options, self._models_of, self._counts = config, options, models_of, counts
        self._every_form_of, self._missing, self._build = every_form_of, missing, build
        self._builds = threading.Lock()  # one at a time
        self._lock = threading.Lock()  # of everything below
        self._tried: dict[str, str | None] = {}  # why the engines of a bundle could not be built; None: they were
        self._queued: set[str] = set()  # bundles whose engines are built, or wait for that
        self._progress: BuildProgress | None = None
        self._lost: str | None = None
        self._problem: str | None = None  # of the bundle that was loaded last
        self._generation = 0

    def load(self, bundle: Bundle, load_with: Callable[[EngineConfig], _Loaded]) -> _Loaded:
        """Load a bundle, for the GPU if that can run it now.

        Args:
            bundle: to load.
            load_with: loads it with a configuration.

        Raises:
            EngineError: neither can run it.
        """
        models = self._models_of(bundle)
        try:
            problem = self._why_not_yet(bundle.manifest.bundle_id, models) if models else self._lost
            if problem is None:
                loaded = load_with(self._config)
                self._set_problem(None)
                return loaded
        except GpuError as error:
            self._note_loss(error)
            problem = str(error)
        except EngineError as error:
            if not models:  # not a matter of TensorRT: a file, a package, or another engine
                raise
            self._counts.add("gpu_failures", reason="load")
            log.error("%s; the CPU runs the models", error)  # noqa: TRY400  the message says it all
            problem = str(error)
        if problem != _BUILDING:  # noted when the build began, and perhaps over by now
            self._set_problem(problem)
        return load_with(self._config.model_copy(update={"backend": "onnxruntime"}))

    def lose(self, error: GpuError) -> None:
        """The GPU is lost, for this process: what it runs must be loaded again."""
        if self._note_loss(error):
            with self._lock:
                self._generation += 1

    def prepare_trial(self, bundle: Bundle) -> None:
        """Build every form of a bundle that TensorRT may run, and return when that is done or failed."""
        try:
            missing = self._missing(models, self._options) if (models := self._every_form_of(bundle)) else ()
            self._build_now(missing)
        except EngineError as error:
            log.warning("%s", error)

    @property
    def generation(self) -> int:
        """A number that changes when what serves must be loaded again."""
        return self._generation

    @property
    def progress(self) -> BuildProgress | None:
        """How far the engines are built; None: none are being built."""
        return self._progress

    @property
    def fallback(self) -> str | None:
        """Why the CPU runs models that the GPU should; None: it does not."""
        progress, problem = self._progress, self._problem
        return describe(progress) if problem == _BUILDING and progress is not None else problem

    def _set_problem(self, problem: str | None) -> None:
        with self._lock:
            self._problem = problem

    def _why_not_yet(self, bundle_id: str, models: Models) -> str | None:
        """Return why the GPU cannot run a bundle yet; start to build its engines if they are missing.

        Raises:
            GpuError: the GPU is missing, or its driver is too old.
            EngineError: TensorRT is not usable, or a file cannot be read.
        """
        with self._lock:
            if self._lost is not None or bundle_id in self._tried:
                return self._lost or self._tried[bundle_id]
        missing = self._missing(models, self._options)
        if not missing:
            return None
        with self._lock:
            self._problem = _BUILDING
            if bundle_id not in self._queued:
                self._queued.add(bundle_id)
                arguments = (bundle_id, missing)
                threading.Thread(target=self._run, args=arguments, name="engine-builder", daemon=True).start()
        return _BUILDING

    def _run(self, bundle_id: str, missing: Models) -> None:
        problem = None
        try:
            self._build_now(missing)
        except Exception as error:
            # a FinesightError says what failed and why; any other error needs its traceback
            is_ours = isinstance(error, FinesightError)
            problem = str(error) if is_ours else f"building engines: {type(error).__name__}: {error}"
            log.error("%s; the CPU runs the models", problem, exc_info=not is_ours)  # noqa: TRY400
        with self._lock:
            self._queued.discard(bundle_id)
            self._tried[bundle_id] = problem
            self._problem = problem if self._problem == _BUILDING else self._problem
            self._generation += problem is None

    def _build_now(self, missing: Models) -> None:
        """Build some engines, after those that are being built.

        Raises:
            EngineError: one cannot be built.
        """
        if not missing:
            return
        result = "failed"
        with self._builds:
            self._progress = BuildProgress(0, len(missing), missing[0][0].name, 0.0, None)
            try:
                self._build(missing, self._options, _ProgressLog(self._note))
                result = "built"
            finally:
                self._progress = None
                self._counts.add("engine_builds", result=result)

    def _note(self, progress: BuildProgress) -> None:
        self._progress = progress

    def _note_loss(self, error: GpuError) -> bool:
        """Note that the GPU is lost; return whether that is new."""
        with self._lock:
            is_new, self._lost = self._lost is None, str(error)
            self._problem = self._lost
        if is_new:
            self._counts.add("gpu_failures", reason="lost")
            log.error("%s; the CPU runs the models until the next start", error)
        return is_new


class _ProgressLog:
    """Passes progress on, and logs each new engine, and once a minute."""

    def __init__(self, note: OnProgress) -> None:
        self._note = note
        self._model, self._next_s = "", 0.0

    def __call__(self, progress: BuildProgress) -> None:
        self._note(progress)
        if progress.model != self._model or time.monotonic() >= self._next_s:
            self._model, self._next_s = progress.model, time.monotonic() + _LOG_EVERY_S
            log.info("%s", describe(progress))
