"""The pair of bundle and gallery that serves: succeeded by the one that is activated, dressed anew from any thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from edge.errors import FinesightError
from edge.serving import Serving
from edge.successor import Successor
from edge.types import Counts

log = logging.getLogger(__name__)


class Incumbent:
    """Holds the name `serving`; the pipeline follows it between two frames."""

    def __init__(
        self, state_dir: Path, load: Callable[[], Serving], dress: Callable[[Serving], Serving], counts: Counts
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
        self._dress, self._counts = dress, counts
        self._lock = threading.Lock()  # of the name
        self.serving = dress(load())
        self._successor = Successor(state_dir, lambda: dress(load()), counts)

    def succeed(self) -> bool:
        """Let serve what was activated since, once it is loaded; whether it does now. Only the frame loop calls it."""
        successor = self._successor.poll(self.serving)
        if successor is None:
            return False
        try:
            successor = self._dress(successor)  # once more: it may have been long in loading
        except FinesightError as error:
            self._counts.add("dress_failed")
            log.warning("%s; it serves as it was loaded", error)
        with self._lock:
            self.serving = successor
        log.info("serving bundle %s, gallery %s", successor.bundle_id, successor.gallery_id)
        return True

    def redress(self) -> None:
        """Serve the same pair, dressed anew, from the next frame on; from any thread."""
        while True:
            serving = self.serving
            dressed = self._dress(serving)
            with self._lock:
                if self.serving is serving:  # else another pair took over meanwhile
                    self.serving = dressed
                    return
