"""How far a rollout is, by wave and gate, as pages show it. Pure: of a plan, the rows of devices and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from console.fleet.signed import unix
from console.fleet.texts import clean
from gallery_sync.fleet_client.client import Rows
from gallery_sync.formats.rollouts import Pin, Plan
from gallery_sync.rollouts import gates
from gallery_sync.rollouts.gates import WaveCount, count, decide, judge, soak_left, why_not_confirmed

_MOST_NAMED = 10
PARTS = ("confirmed", "in_progress", "waiting", "away", "silent", "failed")  # of the devices of a wave


@dataclass(frozen=True, slots=True)
class Part:
    """The devices of a wave that are alike, and where their bar is."""

    name: str
    devices: int
    start: float  # percent of the bar
    width: float


@dataclass(frozen=True, slots=True)
class WaveView:
    """A wave."""

    number: int  # from 1
    percent: float  # of the devices, those of the waves before included
    is_open: bool
    is_newest: bool  # the last one that is open
    devices: int | None  # that it adds; None: not known
    min_confirmed: int
    soak_s: float
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class GateView:
    """A gate: when a rollout stops, or what the next wave waits for."""

    name: str
    value: float
    limit: float
    unit: str
    holds: bool
    text: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """A device that failed or fell silent."""

    device: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Counted:
    """The devices of a rollout."""

    waves: list[WaveCount]  # that each one adds
    troubled: tuple[Trouble, ...]
    unreadable: int  # rows that were left out


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rollout is."""

    plan: Plan
    waves: tuple[WaveView, ...]
    gates: tuple[GateView, ...]  # empty: nothing is known of the devices
    soak_left_s: float
    soak_until: float | None  # Unix seconds; None: no wave must wait
    deadline: float | None  # Unix seconds
    approved_at: float | None
    opened_at: float | None
    next: str  # wait, open, pause, complete; empty: not known
    why: str
    troubled: tuple[Trouble, ...]
    counts: WaveCount | None  # of all open waves; None: not known
    took: int | None  # devices that took the release, or began to
    unreadable: int
    is_blind: bool = False


def count_devices(plan: Plan, pins: Sequence[Pin], rows: Rows, now: datetime) -> Counted:
    """Return the devices of a rollout by wave and by how far they are. Thousands take a tenth of a second.

    Args:
        plan: that is under way.
        pins: devices that stay where they are.
        rows: what is known of the devices.
        now: UTC.
    """
    moment = now.timestamp()
    found = count(plan, rows.rows, moment, pins)
    has_trouble = any(one.failed or one.silent for one in found)
    return Counted(found, tuple(_troubled(plan, pins, moment, rows)) if has_trouble else (), rows.unreadable)


def progress(plan: Plan, counted: Counted | None, now: datetime) -> Progress:
    """Return how far a rollout is.

    Args:
        plan: that is under way.
        counted: its devices; None: nothing is known of them.
        now: UTC.
    """
    moment = now.timestamp()
    found = counted.waves if counted else None
    decision = decide(plan, found, moment) if found is not None else None
    opened = gates.opened(plan, found) if found is not None else None
    return Progress(
        plan=plan,
        waves=tuple(_wave(plan, number, found[number] if found else None) for number in range(len(plan.waves))),
        gates=tuple(_gates(plan, opened)) if opened is not None else (),
        soak_left_s=(left := soak_left(plan, moment)),
        soak_until=moment + left if left > 0 else None,
        deadline=unix(plan.deadline),
        approved_at=unix(plan.approved_at),
        opened_at=unix(plan.opened_at),
        next=decision.action if decision else "",
        why=clean(decision.reason if decision else plan.reason, 400),
        troubled=counted.troubled if counted else (),
        counts=opened,
        took=None if opened is None else opened.confirmed + opened.failed + opened.silent + opened.in_progress,
        unreadable=counted.unreadable if counted else 0,
    )


def _wave(plan: Plan, number: int, found: WaveCount | None) -> WaveView:
    wave = plan.waves[number]
    return WaveView(
        number=number + 1,
        percent=wave.buckets / 100,
        is_open=number < plan.open_waves,
        is_newest=number == plan.open_waves - 1,
        devices=found.devices if found else None,
        min_confirmed=wave.min_confirmed,
        soak_s=wave.soak_s,
        parts=_parts(found) if found else (),
    )


def _parts(found: WaveCount) -> tuple[Part, ...]:
    parts, start = [], 0.0
    for name in PARTS:
        devices = getattr(found, name)
        if devices:
            width = 100.0 * devices / found.devices
            parts.append(Part(name.replace("_", " "), devices, round(start, 2), round(width, 2)))
            start += width
    return tuple(parts)


def _gates(plan: Plan, opened: WaveCount) -> list[GateView]:
    """Return the gates with what they are at. Those of failed and silent devices stop; the last one lets go on."""
    found = []
    for name, number, most in (
        ("Failed", opened.failed, plan.gates.max_failed_percent),
        ("Silent", opened.silent, plan.gates.max_silent_percent),
    ):
        share = 100.0 * number / opened.counted if opened.counted else 0.0
        text = f"{number} of {opened.counted} devices, {share:.1f} %; more than {most:g} % pauses the rollout"
        found.append(GateView(name, round(share, 1), most, "%", number * 100 <= most * opened.counted, text))
    needed = plan.waves[plan.open_waves - 1].min_confirmed if plan.open_waves else 0
    text = f"{opened.confirmed} of {opened.devices} devices; {needed} must confirm before the next wave opens"
    found.append(GateView("Confirmed", opened.confirmed, needed, "", opened.confirmed >= needed, text))
    return found


def _troubled(plan: Plan, pins: Sequence[Pin], moment: float, rows: Rows) -> list[Trouble]:
    states = ((row, judge(plan, row, moment, pins)) for row in sorted(rows.rows, key=lambda row: row.device))
    found = ((row, state) for row, state in states if state in ("failed", "silent"))
    named = [Trouble(row.device, str(state), clean(why_not_confirmed(plan, row))) for row, state in found]
    return named[:_MOST_NAMED]
