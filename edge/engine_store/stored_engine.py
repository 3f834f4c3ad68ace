"""A model whose engine is loaded when it is needed, and may be closed in between."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.engine_store.memory_plan import Held
from edge.types import Engine

Readiness = Literal["ready", "loading", "failed"]


class _Store(Protocol):
    """Loads and closes engines: edge.engine_store.engine_store."""

    def take(self, held: Held) -> Engine:
        """Return an engine for a run, and keep it until `give_back`; load it if it is not loaded."""

    def give_back(self, held: Held) -> None:
        """End a run."""

    def readiness(self, held: Held) -> Readiness:
        """Return whether an engine is loaded; if not, request it."""


class StoredEngine:
    """A model of a store: it runs like an engine, and is loaded whenever that is needed."""

    def __init__(self, store: _Store, held: Held) -> None:
        self._store, self._held = store, held
        self.where = held.where

    @property
    def library(self) -> str:
        """The library that ran it last; an engine that was never loaded is loaded now.

        Raises:
            NotLoadedError: it cannot be loaded.
        """
        if self._held.library is None:
            self._store.take(self._held)
            self._store.give_back(self._held)
        return self._held.library or ""

    @property
    def was_loaded(self) -> bool:
        """Whether `library` is known without a load."""
        return self._held.library is not None

    def run(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Run the model; load it first if it is not loaded.

        Raises:
            NotLoadedError: it cannot be loaded.
            EngineError: it cannot run the batch.
        """
        engine = self._store.take(self._held)
        try:
            return engine.run(batch)
        finally:
            self._store.give_back(self._held)

    def readiness(self) -> Readiness:
        """Return whether it can run without waiting. If not, it is loaded in the background; this never waits.

        `failed`: it could not be loaded, and it is too early to try again.
        """
        return self._store.readiness(self._held)
