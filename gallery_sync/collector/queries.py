"""What the database answers: pages of devices, one device, commands, and counts of the fleet.

Rules this module keeps:
1. A page is in the order of device ids and begins after one, so that no device is skipped or seen twice because others
   reported meanwhile.
2. A row holds what the device reported, as it was stored: nothing is computed into it but when it was seen. A row
   *about* a release leaves out what no gate of a rollout needs; gates judge it as they judge the whole row.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from gallery_sync.collector.turns import Member
from gallery_sync.formats.reports import FAILED
from gallery_sync.formats.rollouts import BUCKETS

MOST_ROWS = 1000  # of a page
SILENT_S = 2 * 3600.0  # without a report, a device counts as silent in summaries
COUNTED_BY = ("line", "release", "state", "available", "engine")  # of `Counted`, in summaries
_OTHER, _NONE = "other", "none"
_ROWS = "SELECT d.device, d.line, d.labels, d.first_seen, d.last_seen, d.available, r.json, r.tries, r.earlier"
_ABOUT_FIELDS = ("device", "line", "epoch", "revision", "at", "state", "reason", "target", "running")
_COMMANDS = (
    "SELECT id, command.device, verb, arguments, by, at, sent, kept.until, (SELECT json_extract(json, '$.state') "
    "FROM answer WHERE command = command.id AND answer.device = command.device ORDER BY answer.id DESC LIMIT 1) "
    "FROM command LEFT JOIN kept ON kept.command = command.id"
)
MOST_COMMANDS_SHOWN = 1000


@dataclass(frozen=True, slots=True)
class DeviceQuery:
    """Which devices, and how many of them."""

    line: str | None = None
    labels: tuple[tuple[str, str], ...] = ()  # all of them
    state: str | None = None
    release: int | None = None
    silent_s: float | None = None  # no report for so long
    about: tuple[int, str, int] | None = None  # release, bundle, gallery: what the gates of its rollout need; None: all
    within: tuple[str, int] | None = None  # salt and bucket: devices of a rollout's buckets below it; None: all
    after: str = ""  # the device before the first one
    limit: int = 200


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the devices."""

    rows: list[str]  # each the JSON of a DeviceRow
    next_device: str | None  # to go on after; None: these were the last


@dataclass(frozen=True, slots=True)
class Counted:
    """Devices that are alike."""

    line: str
    release: int | None
    state: str
    available: bool | None
    engine: str | None
    failed: bool  # its newest try failed
    silent: int  # of the devices, those without a report for SILENT_S
    devices: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """Counts of all devices."""

    counted: list[Counted] = field(default_factory=list)
    oldest_report: float | None = None  # Unix seconds

    @property
    def devices(self) -> int:
        """How many there are."""
        return sum(one.devices for one in self.counted)

    @property
    def silent(self) -> int:
        """How many have not reported for a while."""
        return sum(one.silent for one in self.counted)

    @property
    def failed(self) -> int:
        """How many failed at their newest try."""
        return sum(one.devices for one in self.counted if one.failed)

    def by(self, name: str) -> Counter[str]:
        """Count devices by a field of `Counted`."""
        counts: Counter[str] = Counter()
        for one in self.counted:
            value = getattr(one, name)
            counts[_NONE if value is None else str(value).lower() if isinstance(value, bool) else str(value)] += (
                one.devices
            )
        return counts


def bounded(counts: Mapping[str, int], most: int) -> dict[str, int]:
    """Return the largest counts, and the rest as `other`, so that no device can make them many."""
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    rest = sum(count for _, count in ranked[most:])
    kept = dict(sorted(ranked[:most]))
    return kept | ({_OTHER: kept.get(_OTHER, 0) + rest} if rest else {})


def find_devices(db: sqlite3.Connection, query: DeviceQuery, now: float) -> Page:
    """Return a page of the devices that a query selects."""
    tables, conditions, values = "device AS d", ["d.device > ?"], [query.after]
    if query.labels:  # ordered by device within one label, so that it leads
        (key, value), *more = query.labels
        tables = "label AS l CROSS JOIN device AS d ON d.device = l.device"
        conditions, values = ["l.key = ?", "l.value = ?", "l.device > ?"], [key, value, query.after]
        for key, value in more:
            conditions.append("EXISTS (SELECT 1 FROM label WHERE key = ? AND value = ? AND device = d.device)")
            values += [key, value]
    for column, wanted in (("line", query.line), ("state", query.state), ("release", query.release)):
        if wanted is not None:
            conditions.append(f"+d.{column} = ?")  # no index: in the order of devices, which a page needs
            values.append(wanted)  # type: ignore[arg-type]
    if query.silent_s is not None:
        conditions.append("d.last_seen < ?")
        values.append(now - query.silent_s)  # type: ignore[arg-type]
    if query.within is not None and query.within[1] < BUCKETS:
        conditions.append("bucket_of(?, d.device) < ?")
        values += query.within  # type: ignore[arg-type]
    order = "l.device" if query.labels else "d.device"
    found = db.execute(
        f"{_ROWS} FROM {tables} JOIN report AS r ON r.device = d.device WHERE {' AND '.join(conditions)} "
        f"ORDER BY {order} LIMIT ?",
        [*values, query.limit + 1],
    ).fetchall()
    shown = found[: query.limit]
    rows = [_row(one if query.about is None else _about(one, *query.about)) for one in shown]
    return Page(rows, shown[-1][0] if len(found) > len(shown) else None)


def find_device(db: sqlite3.Connection, device: str) -> dict[str, Any] | None:
    """Return all that is known of a device, as JSON values; None: there is none with this id."""
    found = db.execute(
        f"{_ROWS} FROM device AS d JOIN report AS r ON r.device = d.device WHERE d.device = ?",
        (device,),
    ).fetchone()
    if found is None:
        return None
    history = db.execute("SELECT at, kind, change FROM history WHERE device = ? ORDER BY id DESC", (device,))
    commands = db.execute(f"{_COMMANDS} WHERE command.device = ? ORDER BY at DESC LIMIT 50", (device,)).fetchall()
    answers = db.execute("SELECT at, json FROM answer WHERE device = ? ORDER BY id DESC LIMIT 50", (device,))
    turn = db.execute("SELECT release, plan, given_at FROM turn WHERE device = ?", (device,)).fetchone()
    return {
        "row": json.loads(_row(found)),
        "history": [{"at": at, "kind": kind, "change": json.loads(change)} for at, kind, change in history],
        "commands": [_command(one) for one in commands],
        "answers": [_answer(*one) for one in answers],
        "turn": None if turn is None else dict(zip(("release", "plan", "given_at"), turn, strict=True)),
    }


def find_command(db: sqlite3.Connection, command: str) -> dict[str, Any] | None:
    """Return a command with its answers, the first one first; None: there is none with this id."""
    found = db.execute(f"{_COMMANDS} WHERE id = ?", (command,)).fetchone()
    if found is None:
        return None
    answers = db.execute(
        "SELECT at, json FROM answer WHERE command = ? AND device = ? ORDER BY id", (command, found[1])
    )
    return {**_command(found), "answers": [_answer(*one) for one in answers]}


def find_kept_commands(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the commands that wait for their device or its answer, the oldest first, without answers."""
    found = db.execute(f"{_COMMANDS} WHERE kept.until IS NOT NULL ORDER BY at, id LIMIT ?", (MOST_COMMANDS_SHOWN,))
    return [_command(one) for one in found]


def contact_of(db: sqlite3.Connection, device: str) -> tuple[bool, bool | None, str | None]:
    """Return whether a device is known, whether it is connected (None: not known), and its configuration's site."""
    sql = "SELECT available, json FROM device JOIN report USING (device) WHERE device = ?"
    found = db.execute(sql, (device,)).fetchone()
    if found is None:
        return False, None, None
    return True, None if found[0] is None else bool(found[0]), json.loads(found[1]).get("site")


def count_fleet(db: sqlite3.Connection, now: float, line: str | None = None) -> Fleet:
    """Count all devices, or those of a line."""
    where, values = ("WHERE line = ?2", [line]) if line is not None else ("", [])
    found = db.execute(
        "SELECT line, release, state, available, engine, outcome, sum(last_seen < ?1), count(*), min(last_seen) "  # noqa: S608
        f"FROM device INDEXED BY counted {where} GROUP BY line, release, state, available, engine, outcome",
        [now - SILENT_S, *values],
    ).fetchall()
    counted = [
        Counted(line, release, state, None if up is None else bool(up), engine, outcome in FAILED, silent, devices)
        for line, release, state, up, engine, outcome, silent, devices, _ in found
    ]
    return Fleet(counted, min((row[8] for row in found), default=None))


def find_members(
    db: sqlite3.Connection, line: str, key: str, values: Iterable[str | None] | None = None
) -> list[Member]:
    """Return the devices of a line with what turns are given by.

    Args:
        db: to read.
        line: of the devices.
        key: the label whose value they share.
        values: of that label; None among them: devices without it. None: the values of devices that wait or have a
            turn.
    """
    if values is None:
        waiting = (
            "SELECT labels FROM device WHERE line = ?1 AND waits UNION ALL "
            "SELECT labels FROM turn JOIN device USING (device) WHERE line = ?1"
        )
        values = {json.loads(labels).get(key) for (labels,) in db.execute(waiting, (line,))}
    members = []
    for value in values:
        if value is None:
            chosen, condition = "device", "json_extract(device.labels, '$.' || json_quote(?2)) IS ?3"
        else:
            chosen = "label CROSS JOIN device ON device.device = label.device"
            condition = "label.key = ?2 AND label.value = ?3"
        rows = db.execute(
            "SELECT device.device, state, running, trial, device.target, waits, available, last_seen, "  # noqa: S608
            f"turn.release, turn.plan, turn.given_at, turn.before, report.tries, report.earlier FROM {chosen} "
            "LEFT JOIN turn ON turn.device = device.device "
            "LEFT JOIN report ON report.device = device.device AND (turn.device IS NOT NULL OR waits) "
            f"WHERE device.line = ?1 AND {condition}",
            (line, key, value),
        )
        members += [_member(value, one) for one in rows]
    return members


def _member(value: str | None, row: tuple[Any, ...]) -> Member:
    device, state, running, trial, target, waits, available, last_seen, release, plan, given_at, before, *tries = row
    return Member(
        device=device,
        value=value,
        state=state,
        running=None if running is None else json.loads(running).get("release"),
        on_trial=trial is not None,
        target=target,
        waits=bool(waits),
        available=None if available is None else bool(available),
        last_seen=last_seen,
        turn=None if release is None else (release, plan),
        given_at=given_at,
        before=before,
        tries=tuple(
            (one["release"], f"{one['outcome']}@{one['at']}") for part in tries for one in json.loads(part or "[]")
        ),
    )


def _row(found: tuple[Any, ...]) -> str:
    """Return the JSON of a DeviceRow; the report in it is not parsed again."""
    device, line, labels, first_seen, last_seen, available, report, tries, earlier = found
    is_up = json.dumps(None if available is None else bool(available))
    front = (
        f'"device": {json.dumps(device)}, "line": {json.dumps(line)}, "labels": {labels}, "available": {is_up}, '
        f'"first_seen": {first_seen!r}, "last_seen": {last_seen!r}'
    )
    known = f"[{', '.join(part[1:-1] for part in (tries, earlier) if part != '[]')}]"
    return f'{{{front}, "reported": {report[:-1]}, "tries": {tries}}}, "tries": {known}}}'


def _about(found: tuple[Any, ...], release: int, bundle: str, gallery: int) -> tuple[Any, ...]:
    """Return the columns of a row with only what the gates of a release need of its report."""
    *front, text, tries, earlier = found
    report = from_json(text)
    narrow = {name: report[name] for name in _ABOUT_FIELDS if name in report}
    narrow["quarantine"] = [one for one in report.get("quarantine", ()) if one["release"] == release]
    kept = (_tries_about(part, release, bundle, gallery) for part in (tries, earlier))
    return *front, to_json(narrow).decode(), *kept


def _tries_about(tries: str, release: int, bundle: str, gallery: int) -> str:
    """Return those of a device's tries that had a release, or its pair under another number."""
    has_pair = f'"bundle_id":"{bundle}"' in tries and f'"gallery_sequence":{gallery},' in tries
    if not has_pair and f'"release":{release},' not in tries:  # most devices, most of the time: no need to parse
        return "[]"
    pair = (bundle, gallery)
    kept = [
        one
        for one in from_json(tries)
        if one["release"] == release or (one["bundle_id"], one["gallery_sequence"]) == pair
    ]
    return to_json(kept).decode()


def _command(row: tuple[Any, ...]) -> dict[str, Any]:
    names = ("id", "device", "verb", "arguments", "by", "at", "sent", "until", "answered")
    found = dict(zip(names, row, strict=True))
    answered, sent = found.pop("answered"), found["sent"]
    state = sent if sent in ("sent", "expired") else "not sent" if found["until"] is None else "waiting"
    return {**found, "arguments": json.loads(found["arguments"]), "state": answered or state}


def _answer(at: float, text: str) -> dict[str, Any]:
    return {**json.loads(text), "received_at": at}
