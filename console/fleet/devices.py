"""Devices as pages show them: made of reports, which are claims, and never shown before they are cleaned.

Rules this module keeps:
1. Every text is one line, bounded and printable. What cannot be read is counted and left out.
2. The console requests one page of devices at a time. It searches ids by their beginning, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from console.fleet.reader import FleetReader
from console.fleet.texts import clean, counts, is_count, moment
from edge.errors import ConsoleError
from gallery_sync.collector.messages import is_device_id
from gallery_sync.collector.queries import SILENT_S
from gallery_sync.fleet_client.client import Rows
from gallery_sync.formats.reports import FAILED, DeviceRow, Running, Try
from gallery_sync.formats.rollouts import GROUP

PAGE = 50
_ID_CHARACTERS = "-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"  # in their order
_LONGEST_ID = 80
_ONLINE = "online"


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """Which devices to show; empty: all."""

    line: str = ""
    group: str = ""
    label: str = ""  # such as site=berlin; several with commas
    state: str = ""
    release: int | None = None
    silent_s: float | None = None  # without a report for so long
    begins: str = ""  # of the id

    def query(self) -> list[tuple[str, str]]:
        """Return it as keys and values of the server's API."""
        pairs = [("line", self.line), ("group", self.group), ("state", self.state)]
        pairs += [("label", one.strip()) for one in self.label.split(",")]
        pairs.append(("release", "" if self.release is None else str(self.release)))
        pairs.append(("silent_s", "" if self.silent_s is None else f"{self.silent_s:g}"))
        return [(key, value) for key, value in pairs if value]


@dataclass(frozen=True, slots=True)
class TryView:
    """How a try of a release ended on a device."""

    release: int
    bundle: str
    gallery: int
    outcome: str
    is_failure: bool
    plan: str
    reason: str
    at: float | None


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device as it is shown."""

    id: str
    line: str
    labels: Mapping[str, str]
    group: str
    site: str
    state: str
    reason: str  # why it waits or failed
    since: float | None  # Unix seconds; so are the other times
    release: int | None  # that runs
    bundle: str  # that runs; empty: nothing is active
    gallery: int | None
    gallery_id: str  # its generation
    on_trial: bool
    target: int | None  # release that it turns to
    plan: str  # rollout that brought it
    engine: str
    fps: float | None
    serves: bool
    connected: bool | None  # at the broker; None: not known
    last_seen: float
    first_seen: float | None
    is_silent: bool
    has_failed: bool  # its newest try failed
    cameras: Mapping[str, str]
    cameras_online: int
    config: str
    expires_at: float | None  # of the signed metadata that it trusts
    allowed: tuple[str, ...]  # commands
    versions: Mapping[str, str]
    counters: Mapping[str, int]
    quarantine: tuple[tuple[int, str, float | None], ...]  # release, reason, until
    tries: tuple[TryView, ...]

    @property
    def kind(self) -> str:
        """How its badge looks: good, warn or bad."""
        if self.state in ("quarantine", "failsafe", "rollback"):
            return "bad"
        return "warn" if self.is_silent or self.state != "idle" else "good"


@dataclass(frozen=True, slots=True)
class DevicePage:
    """A part of the devices."""

    devices: tuple[DeviceView, ...]
    next_device: str | None  # to go on after; None: these were the last
    unreadable: int  # rows that were left out


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts of all devices."""

    devices: int
    silent: int  # no report for two hours
    failed: int  # at their newest try
    oldest_report: float | None
    by_line: Mapping[str, int] = field(default_factory=dict)
    by_release: Mapping[str, int] = field(default_factory=dict)
    by_state: Mapping[str, int] = field(default_factory=dict)
    by_engine: Mapping[str, int] = field(default_factory=dict)
    waiting_for_turn: int = 0


def read_summary(reader: FleetReader) -> Summary:
    """Return the counts of all devices.

    Raises:
        ConsoleError: see FleetReader.
    """
    found = reader.summary()
    if not is_count(found.get("devices")):
        raise ConsoleError("busy", "what is given as --fleet answers, and is no fleet server; check its address")
    return Summary(
        devices=found["devices"],
        silent=found["silent"] if is_count(found.get("silent")) else 0,
        failed=found["failed"] if is_count(found.get("failed")) else 0,
        oldest_report=moment(found.get("oldest_report")),
        by_line=counts(found.get("by_line")),
        by_release=counts(found.get("by_release")),
        by_state=counts(found.get("by_state")),
        by_engine=counts(found.get("by_engine")),
        waiting_for_turn=sum(counts(found.get("waiting_for_turn")).values()),
    )


def read_page(reader: FleetReader, wanted: DeviceFilter, after: str, now_s: float, limit: int = PAGE) -> DevicePage:
    """Return a page of devices, in the order of their ids.

    Raises:
        ConsoleError: see FleetReader.
    """
    if wanted.begins and not is_device_id(wanted.begins):
        return DevicePage((), None, 0)
    if after and not is_device_id(after):
        raise ConsoleError("invalid", "after is the id of a device; take the one of the page before")
    start = max(after, just_before(wanted.begins)) if wanted.begins else after
    found = reader.page(wanted.query(), start, limit)
    rows = [row for row in found.rows if row.device.startswith(wanted.begins)]
    is_over = len(rows) < len(found.rows)
    return DevicePage(tuple(view(row, now_s) for row in rows), None if is_over else found.next_device, found.unreadable)


def just_before(begins: str) -> str:
    """Return what no id with this beginning comes before, as the server sorts ids; empty: all ids come after it."""
    head, last = begins[:-1], _ID_CHARACTERS.index(begins[-1])
    if last == 0:
        return head
    before = head + _ID_CHARACTERS[last - 1]
    return ("-" if before == "." else before).ljust(_LONGEST_ID, "z")  # no id begins with a dot


def view(row: DeviceRow, now_s: float) -> DeviceView:
    """Return a device as it is shown."""
    report, running = row.reported, row.reported.running
    tries = row.tries or report.tries
    cameras = {clean(name, 60): clean(state, 60) for name, state in sorted(report.cameras.items())}
    return DeviceView(
        id=row.device,
        line=row.line,
        labels=row.labels,
        group=row.labels.get(GROUP, ""),
        site=clean(row.labels.get("site") or report.site, 60),
        state=clean(report.state, 40),
        reason=clean(report.problem or report.reason or ("waits for its turn" if report.waits_for_turn else "")),
        since=moment(report.since),
        gallery_id=clean(running.gallery, 60) if running else "",
        **_pair(running),
        target=report.target,
        plan=clean(report.plan, 80),
        engine=clean(report.engine, 80),
        fps=report.fps if report.fps is not None and report.fps < 1e6 else None,
        serves=report.serves,
        connected=row.available,
        last_seen=row.last_seen,
        first_seen=moment(row.first_seen),
        is_silent=now_s - row.last_seen > SILENT_S,
        has_failed=bool(tries) and tries[0].outcome in FAILED,
        cameras=cameras,
        cameras_online=sum(state == _ONLINE for state in cameras.values()),
        config=clean(report.config),
        expires_at=moment(report.expires_at),
        allowed=tuple(clean(one, 60) for one in report.allowed),
        versions={clean(name, 60): clean(text, 60) for name, text in sorted(report.versions.items())},
        counters={clean(name, 60): number for name, number in sorted(report.counters.items())},
        quarantine=tuple((one.release, clean(one.reason), moment(one.until)) for one in report.quarantine),
        tries=tuple(_try_view(one) for one in tries),
    )


def _pair(running: Running | None) -> dict[str, Any]:
    if running is None:
        return {"release": None, "bundle": "", "gallery": None, "on_trial": False}
    return {
        "release": running.release,
        "bundle": clean(running.bundle_id, 80),
        "gallery": running.gallery_sequence,
        "on_trial": running.trial is not None,
    }


def _try_view(one: Try) -> TryView:
    return TryView(
        release=one.release,
        bundle=clean(one.bundle_id, 80),
        gallery=one.gallery_sequence,
        outcome=one.outcome,
        is_failure=one.outcome in FAILED,
        plan=clean(one.plan, 80),
        reason=clean(one.reason),
        at=moment(one.at),
    )


def failed_devices(rows: Rows, now_s: float, most: int = PAGE) -> list[DeviceView]:
    """Return the first devices whose newest try failed."""
    found = sorted((row for row in rows.rows if _newest_failed(row)), key=lambda row: row.device)
    return [view(row, now_s) for row in found[:most]]


def _newest_failed(row: DeviceRow) -> bool:
    tries = row.tries or row.reported.tries
    return bool(tries) and tries[0].outcome in FAILED
