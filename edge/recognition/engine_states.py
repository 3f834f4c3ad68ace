"""What runs each model of the loaded bundle, as health reports it."""

from __future__ import annotations

from dataclasses import replace

from edge.inference.stages import Stages
from edge.telemetry.health_report import EngineState, EngineTotals

_MOST = 64  # models in a health report; a bundle may have thousands
_MIB = 2**20


def engine_states(stages: Stages) -> dict[str, EngineState]:
    """Return the engine of each model by name; of too many, first those that failed, that stay, that ran last."""
    memory = {name: one for one in (stages.store.memory() if stages.store else ()) for name in one.names}

    def urgency(name: str) -> tuple[bool, bool, float]:
        held = memory.get(name)
        idle_s = held.idle_s if held and held.idle_s is not None else float("inf")
        return not (held and held.error), name.startswith("embedder "), idle_s

    names = list(stages.engines)
    shown = set(names if len(names) <= _MOST else sorted(names, key=urgency)[:_MOST])
    states = {}
    for name in names:
        if name not in shown:
            continue
        one = stages.engines[name]
        state = EngineState(one.backend, one.form, one.ms, one.since, one.reason)
        if held := memory.get(name):
            state = replace(
                state,
                status=held.status,
                memory_mib=round(held.memory_bytes / _MIB, 2),
                idle_s=None if held.idle_s is None else round(held.idle_s, 1),
                loads=held.loads,
                evictions=held.evictions,
                error=held.error,
            )
        states[name] = state
    return states


def engine_totals(stages: Stages) -> EngineTotals | None:
    """Return the memory of all engines; None if they are in no store."""
    if stages.store is None:
        return None
    engines, budget_bytes = stages.store.memory(), stages.store.budget_bytes
    loaded = [one for one in engines if one.status == "loaded"]
    used_mib = round(sum(one.memory_bytes for one in loaded) / _MIB, 1)
    return EngineTotals(
        len(loaded), len(engines), used_mib, None if budget_bytes is None else round(budget_bytes / _MIB, 1)
    )
