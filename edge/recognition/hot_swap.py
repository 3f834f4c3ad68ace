"""The active bundle and gallery, and the swap to those that are activated while the device runs.

Rules:
1. A newly activated bundle and gallery are loaded in a thread of their own; the frame loop swaps between two frames.
2. If loading fails, the active ones stay. The failed ones are tried again only after the pointer named others.
3. An overlay (the items taught at a kiosk) is added to whatever is loaded, and can be refreshed from any thread.
"""

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
    """Holds the active models; the pipeline takes them over between two frames."""

    def __init__(
        self,
        state_dir: Path,
        load: Callable[[], LoadedModels],
        add_overlay: Callable[[LoadedModels], LoadedModels],
        counts: Counts,
    ) -> None:
        """Load the activated bundle and gallery.

        Args:
            state_dir: holds the pointer `current`.
            load: loads what it names.
            add_overlay: changes loaded models before they are used: a kiosk adds its taught items.
            counts: `activations` by result, `dress_failed`.

        Raises:
            FinesightError: the bundle, the gallery or an engine is unusable.
        """
        self._add_overlay, self._counts = add_overlay, counts
        self._lock = threading.Lock()  # of `models`
        self.models = add_overlay(load())
        self._reloader = ModelReloader(state_dir, lambda: add_overlay(load()), counts)

    def swap_if_ready(self) -> bool:
        """Swap in newly activated models once they are loaded; return whether it did. Only the frame loop calls it."""
        loaded = self._reloader.poll(self.models)
        if loaded is None:
            return False
        try:
            loaded = self._add_overlay(loaded)  # again: the overlay may have changed during a long load
        except FinesightError as error:
            self._counts.add("dress_failed")
            log.warning("%s; using the new bundle and gallery as they were loaded", error)
        with self._lock:
            self.models = loaded
        log.info("now using bundle %s, gallery %s", loaded.bundle_id, loaded.gallery_id)
        return True

    def refresh_overlay(self) -> None:
        """Add the current overlay to the active models, from the next frame on; call it from any thread."""
        while True:
            before = self.models
            refreshed = self._add_overlay(before)
            with self._lock:
                if self.models is before:  # else other models were swapped in meanwhile
                    self.models = refreshed
                    return


class ModelReloader:
    """Watches the pointer of a device's state folder and loads what it newly names."""

    def __init__(self, state_dir: Path, load: Callable[[], LoadedModels], counts: Counts) -> None:
        """Start watching.

        Args:
            state_dir: holds the pointer `current`.
            load: loads what it names; runs in a thread of its own.
            counts: `activations` by result.
        """
        self._state_dir = state_dir
        self._load = load
        self._counts = counts
        self._failed: _Ids | None = None
        self._pointer_error = ""  # the newest that was logged
        self._loaded: LoadedModels | None = None
        self._thread: threading.Thread | None = None

    def poll(self, active: LoadedModels) -> LoadedModels | None:
        """Return newly loaded models, without waiting; None while there are none."""
        if self._thread is not None:
            if self._thread.is_alive():
                return None
            self._thread = None
            loaded, self._loaded = self._loaded, None
            if loaded is not None and _ids_of(loaded) != _ids_of(active):
                self._counts.add("activations", result="serving")
                return loaded
        named = self._read_pointer()
        if named != self._failed:
            self._failed = None  # if repaired and activated again, it may be tried again
        if named is not None and named not in (_ids_of(active), self._failed):
            log.info("bundle %s and gallery %s were activated; loading them", *named)
            self._thread = threading.Thread(target=self._try_load, args=(named,), name="model-reloader", daemon=True)
            self._thread.start()
        return None

    def _read_pointer(self) -> _Ids | None:
        try:
            pointer = read_active_pointer(self._state_dir)
        except BundleError as error:
            if str(error) != self._pointer_error:
                self._pointer_error = str(error)
                log.error("%s; the active bundle and gallery stay", error)  # noqa: TRY400  the message says it all
            return None
        return (pointer.bundle_id, pointer.gallery) if pointer else None

    def _try_load(self, named: _Ids) -> None:
        try:
            self._loaded = self._load()
        except Exception as error:
            self._failed = named
            self._counts.add("activations", result="refused")
            # a FinesightError says which file and why; any other error needs its traceback
            is_ours = isinstance(error, FinesightError)
            log.error("%s; the active bundle and gallery stay", error, exc_info=not is_ours)  # noqa: TRY400


_Ids = tuple[str, str]  # bundle, gallery generation


def _ids_of(models: LoadedModels) -> _Ids:
    return models.bundle_id, models.gallery_id
