"""Plans, rows of devices and repositories for the tests of rollouts."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

from gallery_sync.formats.documents import Release
from gallery_sync.formats.reports import DeviceRow, Quarantined, Reported, Running, Try
from gallery_sync.formats.rollouts import Gates, Plan, Selector, Wave, bucket_of
from gallery_sync.rollouts.fleet import Rows, UnreachableError, Within
from gallery_sync.trust.clock import write_time

APPROVED = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
START = APPROVED.timestamp()
RELEASE = Release(
    line="demo",
    sequence=7,
    created_at=write_time(APPROVED),
    bundle_id="two",
    bundle_head="0" * 64,
    gallery_sequence=3,
)


def a_plan(*percents: float, **changes: object) -> Plan:
    """Return a plan whose first wave is open, with waves of these percentages."""
    wave = {"min_confirmed": changes.pop("min_confirmed", 1), "soak_s": changes.pop("soak_s", 0.0)}
    fields: dict[str, object] = {
        "id": "release-7",
        "release": RELEASE,
        "salt": "ab" * 8,
        "selector": Selector(terms=[]),
        "exclude": [],
        "waves": [Wave(buckets=round(one * 100), **wave) for one in percents or (100.0,)],
        "open_waves": 1,
        "opened_at": write_time(APPROVED),
        "gates": Gates(),
        "deadline": write_time(APPROVED + timedelta(days=1)),
        "planned_by": "ann",
        "planned_at": write_time(APPROVED),
        "approved_by": "bob",
        "approved_at": write_time(APPROVED),
    }
    return Plan(**(fields | changes))


def a_row(device: str, state: str = "waiting", *, release: Release = RELEASE, **changes: object) -> DeviceRow:
    """Return a device that is as far as a state says, and was just seen."""
    seen = float(changes.pop("last_seen", START + 60))
    labels = {"device": device, "line": "demo", "group": "shops", **changes.pop("labels", {})}
    pair = {"bundle_id": release.bundle_id, "gallery_sequence": release.gallery_sequence}
    running = Running(line="demo", release=1, bundle_id="one", gallery_sequence=1)
    new = Running(line="demo", release=release.sequence, **pair)
    one_try = {"release": release.sequence, **pair, "at": seen}
    report: dict[str, object] = {"state": "idle", "running": running, "tries": [], "quarantine": []}
    report |= {
        "waiting": {},
        "away": {},
        "fetching": {"state": "fetch", "target": release.sequence},
        "on trial": {"state": "trial", "running": new.model_copy(update={"trial": "t1"}), "target": release.sequence},
        "confirmed": {"running": new, "tries": [Try(outcome="confirmed", trial="t1", **one_try)]},
        "rolled back": {"tries": [Try(outcome="rolled back", **one_try)]},
        "quarantined": {"quarantine": [Quarantined(release=release.sequence, reason="probes failed")]},
        "installed": {"running": new},
        "lies": {"tries": [Try(outcome="confirmed", trial="t1", **one_try)]},
    }[state]
    report |= changes.pop("report", {})
    fields = {"device": device, "line": "demo", "labels": labels, "epoch": "0" * 8, "revision": 1, "at": seen}
    reported = Reported(**{**fields, **report})
    seen = START - 60 if state == "away" else seen
    row = {"device": device, "line": "demo", "labels": labels, "first_seen": 0.0, "last_seen": seen, "tries": []}
    return DeviceRow(**{**row, "reported": reported, **changes})


class MemoryFleet:
    """A fleet in memory."""

    def __init__(self, *rows: DeviceRow) -> None:
        self.devices = {row.device: row for row in rows}
        self.is_down = False

    def rows(self, line: str, about: Release | None = None, within: Within | None = None) -> Rows:
        if self.is_down:
            raise UnreachableError("nobody answers")
        found = [row for row in self.devices.values() if row.line == line]
        return Rows(tuple(row for row in found if within is None or bucket_of(within[0], row.device) < within[1]))

    def set(self, state: str, *devices: str, **changes: object) -> None:
        """Let devices be as far as a state says."""
        for device in devices:
            self.devices[device] = a_row(device, state, **changes)


def keys_folder(repo: Path) -> Path:
    """Return the folder of the keys of a repository."""
    return repo.with_name(repo.name + ".keys")
