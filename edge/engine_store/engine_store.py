"""The engines of a bundle: opened when they are needed, and closed again to stay within a budget of memory.

Rules:
1. Pinned engines are opened at the start and stay. The others are opened at the start if all of them fit, else each
   when it is first needed.
2. To make room, the engine that was used longest ago is closed. An engine that runs is never closed.
3. The budget holds, but for one engine beside the pinned ones: without it nothing could be recognised.
4. One engine opens at a time. Threads that need the same one wait for the same load. A request in the background closes
   no engine that somebody else requested and has not used yet.
5. An engine that cannot be opened is left alone for 5 s, then twice as long after each failure, at most 5 minutes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable

from edge.engine_store.memory_plan import (
    EngineMemory,
    EngineStatus,
    Held,
    describe,
    memory_bytes,
    note_expansion,
    to_close,
)
from edge.engine_store.process_memory import heap_bytes, release_heap
from edge.engine_store.stored_engine import Readiness, StoredEngine
from edge.errors import EngineError, GpuError, NotLoadedError
from edge.types import Counts, Engine

log = logging.getLogger(__name__)

_KEEP_S = 2.0  # how long an engine that was requested waits for its first use
_MIN_PAUSE_S, _MAX_PAUSE_S = 5.0, 300.0  # after a load that failed


def _start_thread(target: Callable[[], None]) -> None:
    threading.Thread(target=target, name="engine-loader", daemon=True).start()


class EngineStore:
    """The engines of one bundle; every method but `add` and `start` is safe from any thread."""

    def __init__(
        self,
        budget_bytes: int | None,
        counts: Counts,
        *,
        clock: Callable[[], float] = time.monotonic,
        heap: Callable[[], int | None] = heap_bytes,
        start_thread: Callable[[Callable[[], None]], None] = _start_thread,
    ) -> None:
        """Start empty: `add` the engines, then `start`.

        Args:
            budget_bytes: memory for all engines together; None: no limit.
            counts: `engine_loads` by result, `engine_evictions`.
            clock: monotonic seconds.
            heap: measures the memory of this process.
            start_thread: starts a thread that loads what is requested; it ends when nothing is.
        """
        self.budget_bytes = budget_bytes
        self.counts, self._clock, self._heap, self._start_thread = counts, clock, heap, start_thread
        self._changed = threading.Condition()  # guards everything below
        self._held: dict[Hashable, Held] = {}
        self._expansion: dict[Hashable, float] = {}
        self._loading: Held | None = None
        self._requested: dict[Held, None] = {}  # in order
        self._has_thread = False

    def add(
        self,
        name: str,
        key: Hashable,
        open_engine: Callable[[], Engine],
        *,
        where: str,
        file_bytes: int,
        kind: Hashable = None,
        is_pinned: bool = False,
    ) -> StoredEngine:
        """Add an engine, or share the one with the same key.

        Args:
            name: of the model that it runs.
            key: equal for models that one engine can run.
            open_engine: opens it and runs it once; raises EngineError.
            where: names the model file in errors.
            file_bytes: size of that file.
            kind: library and form: such engines use about the same memory for each byte of their files.
            is_pinned: it stays loaded.
        """
        held = self._held.setdefault(key, Held(open_engine, where, [], kind, file_bytes, is_pinned))
        held.names.append(name)
        held.is_pinned |= is_pinned
        return StoredEngine(self, held)

    def start(self) -> None:
        """Load the pinned engines, then the others if all fit into the budget.

        Memory is measured: little else should run meanwhile. Two engines of a kind that was not measured yet are
        loaded for that: the first also allocates what all share.

        Raises:
            EngineError: one cannot be loaded.
        """
        pinned = [held for held in self._held.values() if held.is_pinned]
        others = [held for held in self._held.values() if not held.is_pinned]
        for held in pinned:
            self._load_and_measure(held)
        trials = 0 if others and others[0].kind in self._expansion else 2
        for number, held in enumerate(others):
            if number >= trials and self.budget_bytes is not None:
                needed = sum(map(self._size, self._held.values()))
                if needed > self.budget_bytes:
                    self._explain(needed, others)
                    return
            self._load_and_measure(held)

    def open_each(self) -> None:
        """Load every engine once, within the budget.

        Raises:
            EngineError: one cannot be loaded.
        """
        for held in self._held.values():
            if not held.loads:
                self._load(held)

    def take(self, held: Held) -> Engine:
        """Return an engine for a run, and keep it until `give_back`; load it if it is not loaded.

        Raises:
            NotLoadedError: it cannot be loaded.
        """
        try:
            return self._load(held, take=True)
        except (GpuError, NotLoadedError):
            raise
        except Exception as error:
            self._log_failure(held, error)
            raise NotLoadedError(f"{held.names[0]}: {error}") from error

    def give_back(self, held: Held) -> None:
        """End a run."""
        with self._changed:
            held.running -= 1
            held.last_used_s, held.kept_until_s = self._clock(), float("-inf")
            self._changed.notify_all()

    def readiness(self, held: Held) -> Readiness:
        """Return whether an engine is loaded; if not, request it."""
        with self._changed:
            if held.engine is not None:
                return "ready"
            if self._clock() < held.retry_s:
                return "failed"
            self._requested[held] = None
            starts, self._has_thread = not self._has_thread, True
        if starts:
            self._start_thread(self._load_requested)
        return "loading"

    def used_bytes(self) -> int:
        """Return the memory of the loaded engines."""
        with self._changed:
            return sum(self._size(held) for held in self._held.values() if held.engine is not None)

    def memory(self) -> list[EngineMemory]:
        """Return what is known of each engine, in the order in which they were added."""
        with self._changed:
            now_s = self._clock()
            return [describe(held, self._status(held), self._size(held), now_s) for held in self._held.values()]

    def _status(self, held: Held) -> EngineStatus:
        if held.engine is not None:
            return "loaded"
        if held is self._loading or held in self._requested:
            return "loading"
        return "failed" if held.error is not None else "not_loaded"

    def _size(self, held: Held) -> int:
        return memory_bytes(held, self._expansion)

    def _load_requested(self) -> None:
        """Load what is requested, until nothing is."""
        while True:
            with self._changed:
                held = next(iter(self._requested), None)
                if held is None:
                    self._has_thread = False
                    return
            try:
                self._load(held, is_request=True)
            except Exception as error:  # noqa: BLE001  whatever the library raises, other engines are still loaded
                self._log_failure(held, error)
            with self._changed:
                self._requested.pop(held, None)

    def _load_and_measure(self, held: Held) -> None:
        before = self._heap()
        self._load(held)
        after = self._heap()
        if before is not None and after is not None:
            with self._changed:
                least = 0 if held.device_bytes else held.file_bytes  # what others left may hold its weights
                held.heap_bytes = max(after - before, least)
                note_expansion(held, self._expansion)

    def _load(self, held: Held, *, take: bool = False, is_request: bool = False) -> Engine:
        """Return a loaded engine; load it if necessary.

        Args:
            held: the engine.
            take: count it as running.
            is_request: nobody waits: let engines that were requested earlier be used first, and keep this one for that.

        Raises:
            NotLoadedError: the last load failed, and it is too early to try again.
            Exception: this load failed.
        """
        with self._changed:
            closed = self._wait_for_room(held, is_request=is_request)
            if held.engine is not None:
                held.running += take
                return held.engine
            if (pause_s := held.retry_s - self._clock()) > 0:
                raise NotLoadedError(f"{held.names[0]}: {held.error}; it is loaded again in {pause_s:.0f} s")
            self._loading = held
            engines = [one.engine for one in closed]  # freed without the lock
            for one in closed:
                one.engine = None
                one.evictions += 1
        if closed:
            engines.clear()
            self.counts.add("engine_evictions", len(closed))
            release_heap()
        try:
            engine = held.open()
        except BaseException as error:
            self._note_failure(held, error)
            raise
        with self._changed:
            now_s = self._clock()
            held.engine, held.library = engine, engine.library
            held.device_bytes = int(getattr(engine, "memory_bytes", 0))
            held.loads, held.failures, held.error = held.loads + 1, 0, None
            held.last_used_s, held.running = now_s, held.running + take
            held.kept_until_s = now_s + _KEEP_S if is_request else float("-inf")
            self._loading = None
            self._changed.notify_all()
        self.counts.add("engine_loads", result="loaded")
        return engine

    def _wait_for_room(self, held: Held, *, is_request: bool) -> list[Held]:
        """Wait until an engine is loaded, or can be; return what to close for that."""
        while held.engine is None:
            if self._loading is None:
                kept_at_s = self._clock() if is_request else None
                closed = to_close(held, self._held.values(), self._size, self.budget_bytes, kept_at_s)
                if closed is not None:
                    return closed
            self._changed.wait(_KEEP_S)
        return []

    def _note_failure(self, held: Held, error: BaseException) -> None:
        with self._changed:
            pause_s = min(_MIN_PAUSE_S * 2.0**held.failures, _MAX_PAUSE_S)
            held.failures, held.error = min(held.failures + 1, 16), str(error) or type(error).__name__
            held.retry_s = self._clock() + pause_s
            self._loading = None
            self._changed.notify_all()
        self.counts.add("engine_loads", result="failed")

    @staticmethod
    def _log_failure(held: Held, error: Exception) -> None:
        """Log a failed load; a bug needs its traceback."""
        if not isinstance(error, NotLoadedError):
            is_ours = isinstance(error, EngineError)
            log.warning("%s: not loaded, tried again later: %s", held.names[0], error, exc_info=not is_ours)

    def _explain(self, needed_bytes: int, others: list[Held]) -> None:
        budget_mib, needed_mib = (self.budget_bytes or 0) / 2**20, needed_bytes / 2**20
        least_mib = (self.used_bytes() + max(map(self._size, others))) / 2**20
        message = "the models need %.0f MiB, and engine.memory_mib is %.0f: embedders are loaded when they are needed"
        log.info(message, needed_mib, budget_mib)
        if least_mib > budget_mib:
            message = "engine.memory_mib is too little: one embedder beside the models that stay loaded needs %.0f MiB"
            log.warning(message, least_mib + 1)
