"""What a store knows of each engine, and the decision which ones to close so that another fits; pure functions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Literal

from edge.types import Engine

EngineStatus = Literal["loaded", "loading", "failed", "not_loaded"]

# Memory over file size on a CPU: 1.9 for the demo's fp32 files, 3.0 for ort-u8 (benchmarks/results/engine_memory.json)
_EXPANSION = 3.0


@dataclass(slots=True, eq=False)
class Held:
    """An engine of a store; the store's lock guards it."""

    open: Callable[[], Engine]
    where: str  # the model file
    names: list[str]  # of the models that it runs
    kind: Hashable  # engines of one kind use about the same memory for each byte of their files
    file_bytes: int
    is_pinned: bool
    engine: Engine | None = None
    library: str | None = None  # once loaded
    heap_bytes: int | None = None  # as measured at the start
    device_bytes: int = 0  # as the engine reports, once loaded
    running: int = 0  # calls that use it now
    last_used_s: float | None = None
    kept_until_s: float = float("-inf")  # for its first use, after a request
    retry_s: float = float("-inf")
    loads: int = 0
    evictions: int = 0
    failures: int = 0  # since the last load that succeeded
    error: str | None = None  # of the last load


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """One engine of a store, as health reports it."""

    names: tuple[str, ...]  # of the models that it runs
    status: EngineStatus
    memory_bytes: int  # on the heap and on its device: while loaded, or as expected
    is_measured: bool  # False: expected, by the size of its file
    idle_s: float | None  # since it was used last; None: never
    loads: int
    evictions: int
    error: str | None  # why the last load failed


def describe(held: Held, status: EngineStatus, size_bytes: int, now_s: float) -> EngineMemory:
    """Return what health reports of an engine."""
    return EngineMemory(
        tuple(held.names),
        status,
        size_bytes,
        held.heap_bytes is not None or held.device_bytes > 0,
        None if held.last_used_s is None else max(0.0, now_s - held.last_used_s),
        held.loads,
        held.evictions,
        held.error,
    )


def note_expansion(held: Held, least: dict[Hashable, float]) -> None:
    """Note the memory for each byte of a file, by kind: the least measured, because others include what all share."""
    if held.heap_bytes is not None and held.file_bytes:
        ratio = (held.heap_bytes + held.device_bytes) / held.file_bytes
        least[held.kind] = min(ratio, least.get(held.kind, ratio))


def memory_bytes(held: Held, expansion: dict[Hashable, float]) -> int:
    """Return the memory of an engine, or what to expect before it is measured."""
    if held.heap_bytes is not None:
        return held.heap_bytes + held.device_bytes
    if held.device_bytes:  # its weights are there
        return held.device_bytes
    return round(held.file_bytes * expansion.get(held.kind, _EXPANSION))


def to_close(
    wanted: Held,
    engines: Iterable[Held],
    size: Callable[[Held], int],
    budget_bytes: int | None,
    kept_at_s: float | None = None,
) -> list[Held] | None:
    """Return the engines to close so that another fits, the one that was used longest ago first.

    Args:
        wanted: the engine to load.
        engines: of the store.
        size: of an engine, in bytes.
        budget_bytes: for all that are loaded; None: no limit.
        kept_at_s: also leave those alone that are kept for their first use at this time; None: close them, too.

    Returns:
        None: it fits only after others, which are needed now, are closed.
    """
    if budget_bytes is None:
        return []
    loaded = [one for one in engines if one.engine is not None]
    excess = sum(map(size, loaded)) + size(wanted) - budget_bytes
    if excess <= 0:
        return []
    idle = [
        one
        for one in loaded
        if not (one.is_pinned or one.running or (kept_at_s is not None and kept_at_s < one.kept_until_s))
    ]
    closed = []
    for one in sorted(idle, key=lambda one: one.last_used_s or 0.0):
        if excess <= 0:
            break
        closed.append(one)
        excess -= size(one)
    needed = [one for one in loaded if not one.is_pinned and one not in closed]
    return None if excess > 0 and needed else closed
