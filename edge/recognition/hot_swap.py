"""The pair of bundle and gallery that serves: succeeded by the one that is activated, dressed anew from any thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from edge.bundle.active_pointer import read_active_pointer
from edge.errors import BundleError, FinesightError
from edge.recognition.loaded_models import LoadedModels
from edge.types import Counts

log = logging.getLogger(__name__)


class ActiveModels:
    """Holds the name `serving`; the pipeline follows it between two frames."""

    def __init__(
        self, state_dir: Path, load: Callable[[], LoadedModels], add_overlay: Callable[[LoadedModels], LoadedModels], counts: Counts
    ) -> None:
        """Load the pair that is activated.

        Args:
            state_dir: holds the pointer `current`.
            load: loads what it names.
            dress: what a pair is changed to before it serves: a kiosk adds what it was taught.
            counts: `activations` by result, `dress_failed`.

        Raises:
            FinesightError: the bundle, the gallery or an engine is unusable.
        """
        self._dress, self._counts = add_overlay, counts
        self._lock = threading.Lock()  # of the name
        self.models = add_overlay(load())
        self._successor = ModelReloader(state_dir, lambda: add_overlay(load()), counts)

    def swap_if_ready(self) -> bool:
        """Let serve what was activated since, once it is loaded; whether it does now. Only the frame loop calls it."""
        successor = self._successor.poll(self.models)
        if successor is None:
            return False
        try:
            successor = self._dress(successor)  # once more: it may have been long in loading
        except FinesightError as error:
            self._counts.add("dress_failed")
            log.warning("%s; it serves as it was loaded", error)
        with self._lock:
            self.models = successor
        log.info("serving bundle %s, gallery %s", successor.bundle_id, successor.gallery_id)
        return True

    def refresh_overlay(self) -> None:
        """Serve the same pair, dressed anew, from the next frame on; from any thread."""
        while True:
            models = self.models
            dressed = self._dress(models)
            with self._lock:
                if self.models is models:  # else another pair took over meanwhile
                    self.models = dressed
                    return


_Pair = tuple[str, str]  # bundle, gallery generation


class ModelReloader:
    """Watches the pointer of a device's state folder."""

    def __init__(self, state_dir: Path, load: Callable[[], LoadedModels], counts: Counts) -> None:
        """Watch.

        Args:
            state_dir: holds the pointer `current`.
            load: what it names, loaded; runs in a thread of its own.
            counts: `activations` by result.
        """
        self._state_dir = state_dir
        self._load = load
        self._counts = counts
        self._refused: _Pair | None = None
        self._complaint = ""
        self._loaded: LoadedModels | None = None
        self._loader: threading.Thread | None = None

    def poll(self, models: LoadedModels) -> LoadedModels | None:
        """Ask for the pair that is to serve instead, without waiting; None while there is none."""
        if self._loader is not None:
            if self._loader.is_alive():
                return None
            self._loader = None
            loaded, self._loaded = self._loaded, None
            if loaded is not None and _pair_of(loaded) != _pair_of(models):
                self._counts.add("activations", result="serving")
                return loaded
        named = self._named()
        if named != self._refused:
            self._refused = None  # mended and activated again, it may be tried again
        if named is not None and named not in (_pair_of(models), self._refused):
            log.info("bundle %s, gallery %s was activated: loading it", *named)
            self._loader = threading.Thread(target=self._try, args=(named,), name="successor", daemon=True)
            self._loader.start()
        return None

    def _named(self) -> _Pair | None:
        try:
            pointer = read_active_pointer(self._state_dir)
        except BundleError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.error("%s; what serves goes on", error)  # noqa: TRY400  the message says it all
            return None
        return (pointer.bundle_id, pointer.gallery) if pointer else None

    def _try(self, named: _Pair) -> None:
        try:
            self._loaded = self._load()
        except Exception as error:
            self._refused = named
            self._counts.add("activations", result="refused")
            # ours says which thing and why; any other needs its traceback
            log.error("%s; what serves goes on", error, exc_info=not isinstance(error, FinesightError))  # noqa: TRY400


def _pair_of(models: LoadedModels) -> _Pair:
    return models.bundle_id, models.gallery_id
