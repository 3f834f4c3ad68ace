"""What `edge-sync agent status` shows: read from files alone, so that it works with and without a running agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge.bundle.pairs import read_pointer_or_none
from edge.errors import FinesightError
from edge.telemetry.agent_report import NAME, read_agent_report
from edge.telemetry.health_report import AgentReport
from edge.telemetry.vital_signs import STALE_S, machine_boot_id, monotonic_s, read_vital_signs
from gallery_sync.agent.doors import local_time
from gallery_sync.agent.journal import Journal, read_journal
from gallery_sync.agent.report import read_fleet, read_rollout
from gallery_sync.device.identity import identity_of
from gallery_sync.device.security_floor import read_security_floor
from gallery_sync.transport.byte_budget import day_of
from gallery_sync.trust.enrolment_file import read_enrolment

_MOST_SHOWN = 10


def read_status(state_dir: Path, own_labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the state of a device and its agent; where something cannot be read, the reason stands in its place.

    Args:
        state_dir: of the device.
        own_labels: of its agent.yaml; None: there are none.
    """
    active, problem = read_pointer_or_none(state_dir)
    release = active.release if active else None
    exists = (state_dir / NAME).exists()
    report = read_agent_report(state_dir / NAME) if exists else AgentReport("absent", "no agent ran here yet")
    return {
        "runs": _runs(state_dir),
        "active": None
        if active is None
        else {
            "bundle": active.bundle_id,
            "gallery": active.gallery,
            "release": release.sequence if release else None,
            "gallery_sequence": release.gallery_sequence if release else None,
            "line": release.line if release else None,
            "trial": active.trial,
        },
        "problem": problem,
        "security_floor": read_security_floor(state_dir, release.line) if release else 0,
        "agent": {
            "state": report.state,
            "reason": report.reason,
            "written_at": time_of(report.written_at),
            "metadata_expires_at": time_of(report.expires_at),
            "metadata_warn_at": time_of(report.warn_at),
        },
        "fleet": read_fleet(state_dir),
        "rollout": _rollout(state_dir, release.line if release else None, own_labels),
        **_of_journal(state_dir),
    }


def _rollout(state_dir: Path, line: str | None, own_labels: Mapping[str, str] | None) -> dict[str, Any]:
    """Return what rollouts select the device by, and what they say of it."""
    plan, waits = read_rollout(state_dir)
    try:
        enrolment = read_enrolment(state_dir)
    except FinesightError as error:
        return {"plan": plan, "waits": waits, "labels": {}, "problem": str(error)}
    followed = enrolment.line if enrolment else line
    labels = identity_of(enrolment, followed, own_labels).labels if followed else {}
    return {"plan": plan, "waits": waits, "labels": dict(labels)}


def _runs(state_dir: Path) -> dict[str, Any] | None:
    """Return what the running device says that it serves; None: it does not run."""
    try:
        signs = read_vital_signs(state_dir)
    except FinesightError as error:
        return {"problem": str(error)}
    age_s = signs.age_s(monotonic_s(), machine_boot_id()) if signs else None
    if signs is None or age_s is None or age_s > STALE_S:
        return None
    return {
        "bundle": signs.pair.bundle_id,
        "gallery": signs.pair.gallery,
        "release": signs.release.sequence if signs.release else None,
        "trial": signs.trial,
        "fallback": signs.fallback,
        "frames_per_s": round(signs.fps, 1),
        "taught_items_waiting": signs.taught.waiting if signs.taught else 0,
    }


def _of_journal(state_dir: Path) -> dict[str, Any]:
    try:
        journal = read_journal(state_dir)
        if journal is None:
            return {"journal": "there is none yet"}
        try:
            return _read(journal)
        finally:
            journal.close()
    except FinesightError as error:
        return {"journal": str(error)}


def _read(journal: Journal) -> dict[str, Any]:
    task = journal.task()
    return {
        "task": {"state": task.state.value, "since": time_of(task.since), "stores": task.stores, "boots": task.boots},
        "quarantine": [asdict(held) | {"until": time_of(held.until)} for held in journal.all_held()],
        "history": [asdict(past) | {"at": time_of(past.at)} for past in journal.history(_MOST_SHOWN)],
        "receipts": [asdict(one) | {"at": time_of(one.at)} for one in journal.receipts(_MOST_SHOWN)],
        "bytes_today": journal.spent(day_of(local_time())),
    }


def time_of(at: float | None) -> str | None:
    """Return a time in Unix seconds as ISO 8601, UTC; None if there is none, or no date has it."""
    try:
        return None if not at else datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return None


def lines(status: dict[str, Any]) -> list[str]:
    """Return a status as lines for people."""
    active, runs, agent = status["active"], status["runs"], status["agent"]
    found = ["active: nothing" if active is None else f"active: {_pair(active)}"]
    found.append("running: edge does not run" if runs is None else f"running: {runs.get('problem') or _pair(runs)}")
    found += [f"problem: {status['problem']}"] if status["problem"] else []
    found.append(f"agent: {agent['state']}" + (f", {agent['reason']}" if agent["reason"] else ""))
    found += _rollout_lines(status["rollout"])
    if runs is not None and runs.get("taught_items_waiting"):
        found.append(f"taught items: {runs['taught_items_waiting']} wait to be embedded again")
    found.append(f"security floor: {status['security_floor']}")
    found += [f"fleet: {status['fleet']}"] if status["fleet"] else []
    if agent["metadata_expires_at"]:
        found.append(
            f"signed metadata: until {agent['metadata_expires_at']}, look at it by {agent['metadata_warn_at']}"
        )
    if "journal" in status:
        return [*found, f"journal: {status['journal']}"]
    found.append(f"downloaded today: {status['bytes_today']} bytes")
    for held in status["quarantine"]:
        found.append(f"quarantine: release {held['sequence']} until {held['until'] or 'a newer one'}: {held['reason']}")
    for past in status["history"]:
        found.append(f"{past['at']}: release {past['sequence']} {past['outcome']}: {past['reason'] or 'no fault'}")
    for one in status["receipts"]:
        found.append(f"erased: {one['items']} items of {one['category']} by gallery {one['sequence']} at {one['at']}")
    return found


def _rollout_lines(rollout: dict[str, Any]) -> list[str]:
    labels = ", ".join(f"{key}={value}" for key, value in sorted(rollout["labels"].items()))
    found = [f"labels: {labels}"] if labels else []
    found += [f"rollout: {rollout['plan']}"] if rollout["plan"] else []
    found += [f"waits: {rollout['waits']}"] if rollout["waits"] else []
    return found + ([f"enrolment: {rollout['problem']}"] if rollout.get("problem") else [])


def _pair(pair: dict[str, Any]) -> str:
    release = f"release {pair['release']}, " if pair["release"] is not None else ""
    trial = f", on trial {pair['trial']}" if pair["trial"] else ""
    fallback = f", in place of the active pair: {pair['fallback']}" if pair.get("fallback") else ""
    return f"{release}bundle {pair['bundle']} with gallery {pair['gallery']}{trial}{fallback}"
