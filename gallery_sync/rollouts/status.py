"""What a rollout is and how far it is, for people and programs. Needs no key, and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from gallery_sync.formats.reports import DeviceRow
from gallery_sync.formats.rollouts import Pin, Plan
from gallery_sync.repository.published import Published
from gallery_sync.rollouts import audit
from gallery_sync.rollouts.changes import approved_digests
from gallery_sync.rollouts.gates import BLIND, WaveCount, count, decide, judge, soak_left, why_not_confirmed
from gallery_sync.rollouts.plans import drafts

Row = dict[str, Any]
_MOST_NAMED = 10  # devices that failed or are silent


def status(published: Published, now: datetime, rows: Sequence[DeviceRow] | None, *, unreadable: int = 0) -> Row:
    """Return what is under way.

    Args:
        published: what the repository has.
        now: the time, in UTC.
        rows: what is known of the devices; None: nothing.
        unreadable: rows that were left out.

    Raises:
        SyncError: the audit log cannot be read.
    """
    rollouts = published.rollouts
    done, _ = audit.read_history(published.repo, rollouts)
    approved = approved_digests(done)
    found: Row = {
        "line": published.line,
        "base": published.release.sequence if published.release else None,
        "revision": rollouts.revision if rollouts else 0,
        "rollout": None,
        "held": [one.sequence for one in rollouts.held] if rollouts else [],
        "groups": {str(one.selector): one.release.sequence for one in rollouts.groups} if rollouts else {},
        "pins": len(rollouts.pins) if rollouts else 0,
        "drafts": [one.id for one in drafts(published.repo) if one.digest() not in approved],
    }
    if rollouts is not None and rollouts.plan is not None:
        found["rollout"] = _of_plan(rollouts.plan, rollouts.pins, now, rows)
        found["rollout"]["blind"] = _is_blind(rollouts.plan, done)
        if rows is not None:
            found["rollout"]["unreadable_rows"] = unreadable
    return found


def _is_blind(plan: Plan, done: Sequence[Row]) -> bool:
    """Return whether the controller opened the last wave without a look at devices."""
    opened = [one for one in done if (one.get("rollout"), one.get("what")) == (plan.id, "open")]
    return bool(opened) and str(opened[-1].get("reason")).startswith(BLIND)


def _of_plan(plan: Plan, pins: Sequence[Pin], now: datetime, rows: Sequence[DeviceRow] | None) -> Row:
    """Return how far a rollout is; see `status`."""
    moment = now.timestamp()
    counts = count(plan, rows, moment, pins) if rows is not None else None
    found: Row = {
        "id": plan.id,
        "release": plan.release.sequence,
        "bundle": plan.release.bundle_id,
        "gallery": plan.release.gallery_sequence,
        "state": plan.state,
        "reason": plan.reason,
        "select": str(plan.selector) or "all devices",
        "exclude": [str(one) for one in plan.exclude],
        "open_waves": plan.open_waves,
        "opened_at": plan.opened_at,
        "soak_left_s": round(soak_left(plan, moment)),
        "deadline": plan.deadline,
        "max_unavailable": plan.max_unavailable,
        "abort_to": plan.abort_to,
        "planned_by": plan.planned_by,
        "approved_by": plan.approved_by,
        "approved_at": plan.approved_at,
        "waves": [_wave(plan, number, counts[number] if counts else None) for number in range(len(plan.waves))],
    }
    if rows is not None and counts is not None:
        decision = decide(plan, counts, moment)
        found |= {"next": decision.action, "why": decision.reason, "troubled": _troubled(plan, pins, moment, rows)}
    return found


def _troubled(plan: Plan, pins: Sequence[Pin], moment: float, rows: Sequence[DeviceRow]) -> list[Row]:
    """Return the first devices that failed or are silent, and why."""
    states = ((row, judge(plan, row, moment, pins)) for row in sorted(rows, key=lambda row: row.device))
    found = [(row, state) for row, state in states if state in ("failed", "silent")]
    return [
        {"device": row.device, "state": state, "reason": why_not_confirmed(plan, row)}
        for row, state in found[:_MOST_NAMED]
    ]


def _wave(plan: Plan, number: int, found: WaveCount | None) -> Row:
    wave = plan.waves[number]
    row: Row = {
        "wave": number + 1,
        "percent": wave.buckets / 100,
        "open": number < plan.open_waves,
        "min_confirmed": wave.min_confirmed,
        "soak_s": wave.soak_s,
    }
    return row | (asdict(found) if found is not None else {})


def print_status(found: Row) -> list[str]:
    """Return the lines that people read."""
    base = f"release {found['base']}" if found["base"] else "nothing"
    lines = [f"line {found['line']}: all devices run {base}"]
    lines += [f"devices of {select}: release {number}" for select, number in found["groups"].items()]
    if found["held"]:
        lines.append(f"held back: {', '.join(map(str, found['held']))}")
    if found["pins"]:
        lines.append(f"pinned: {found['pins']} selectors, see edge-sync rollout pins")
    plan = found["rollout"]
    if plan is None:
        waiting = f"; drafts: {', '.join(found['drafts'])}" if found["drafts"] else ""
        return [*lines, f"no rollout is under way{waiting}"]
    why = f": {plan['reason']}" if plan["reason"] else ""
    lines.append(f"rollout {plan['id']} of release {plan['release']} for {plan['select']}: {plan['state']}{why}")
    lines.append(f"planned by {plan['planned_by']}, approved by {plan['approved_by']} at {plan['approved_at']}")
    lines += [_wave_line(wave) for wave in plan["waves"]]
    lines += [f"{one['device']} {one['state']}: {one['reason']}" for one in plan.get("troubled", ())]
    if plan["blind"]:
        lines.append("opened blind: without a look at the devices")
    if plan["soak_left_s"]:
        lines.append(f"soak: {plan['soak_left_s']} s left")
    if "next" in plan:
        lines.append(f"next: {plan['next']} ({plan['why']})")
    return [*lines, f"deadline: {plan['deadline']}"]


def _wave_line(wave: Row) -> str:
    head = f"wave {wave['wave']} ({wave['percent']:g} %, {'open' if wave['open'] else 'not open'})"
    if "devices" not in wave:
        return head
    counts = ", ".join(
        f"{wave[name]} {name.replace('_', ' ')}"
        for name in ("confirmed", "failed", "silent", "away", "in_progress", "waiting")
        if wave[name]
    )
    return f"{head}: {wave['devices']} devices" + (f": {counts}" if counts else "")
