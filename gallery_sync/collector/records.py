"""What the database keeps of reports, answers and commands. All of it runs in a transaction of the writer.

Rules this module keeps:
1. A report counts once: within an epoch of its device, its revision must be larger than the last one's. Another epoch
   is accepted, because a device may lose its numbers, and noted.
2. A try that a device reported stays known, also if a later report has lost it.
3. Everything is bounded by device: history, tries, commands and answers; and what is old goes. No command goes while
   it is kept.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any, Literal

from gallery_sync.collector.messages import Arrived
from gallery_sync.collector.turns import Member
from gallery_sync.formats.reports import MOST_KNOWN_TRIES, Answer, Reported, Request

MOST_HISTORY = 100  # changes of a device
MOST_ANSWERS, MOST_COMMANDS = 200, 200  # of a device
MOST_ANSWERS_TO_ONE = 20
MOST_KEPT = 20  # commands that wait for a device or for its answer; it takes 32 at once

Taken = Literal["new", "accepted", "new_epoch", "repeated", "too_many_devices"]
_PUT_DEVICE = "REPLACE INTO device VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # the order of columns
_DELETE_LABEL = "DELETE FROM label WHERE key = ? AND value = ? AND device = ?"
_KNOWN = "SELECT epoch, revision, first_seen, last_seen, available, state, running, labels FROM device WHERE device = ?"


def put_report(
    db: sqlite3.Connection, report: Reported, message: Arrived, *, available: bool | None = None, has_room: bool = True
) -> Taken:
    """Store a report, unless it was stored before.

    Args:
        db: in a transaction.
        report: that was read from the message.
        message: as it came.
        available: of a device that is not known yet, what it reported of its connection earlier.
        has_room: whether a device that is not known yet may be added.
    """
    known = db.execute(_KNOWN, (report.device,)).fetchone()
    if known is None:
        if not has_room:
            return "too_many_devices"
        known = (None, 0, None, None, available, None, None, "{}")
    epoch, revision, first_seen, last_seen, available, state, running, labels = known
    if epoch == report.epoch and report.revision <= revision:
        return "repeated"
    seen = _seen(message, report.at, last_seen)
    newest_try = _put_wide(db, report)
    pair, new_labels = _pair(report), _compact(dict(sorted(report.labels.items())))
    changes: list[tuple[str, Any]] = []
    if state is None or state != report.state:
        changes.append(("state", {"from": state, "to": report.state, "reason": report.reason}))
    if running != pair:
        changes.append(("running", {"from": json.loads(running or "null"), "to": json.loads(pair or "null")}))
    if epoch is not None and epoch != report.epoch:
        changes.append(("epoch", {"from": epoch, "to": report.epoch}))
    if labels != new_labels:
        _put_labels(db, report, json.loads(labels))
        if epoch is not None:
            changes.append(("labels", {"from": json.loads(labels), "to": dict(report.labels)}))
    _put_history(db, report.device, message.at, changes)
    release, trial = (report.running.release, report.running.trial) if report.running else (None, None)
    outcome = newest_try["outcome"] if newest_try else None
    db.execute(
        _PUT_DEVICE,
        (
            *(report.device, report.line, report.state, release, report.engine, outcome, available),
            *(seen if first_seen is None else first_seen, seen, report.epoch, report.revision, pair, trial),
            *(report.target, report.plan, report.waits_for_turn, new_labels),
        ),
    )
    return "new" if epoch is None else "accepted" if epoch == report.epoch else "new_epoch"


def put_available(db: sqlite3.Connection, device: str, *, available: bool) -> bool:
    """Store whether a device is connected; return whether the device is known."""
    if db.execute("SELECT 1 FROM device WHERE device = ?", (device,)).fetchone() is None:
        return False
    db.execute(
        "UPDATE device SET available = ? WHERE device = ? AND available IS NOT ?", (available, device, available)
    )
    return True


def put_command(db: sqlite3.Connection, device: str, verb: str, request: Request) -> bool:
    """Store a command before it is sent; return False if too many are kept for its device."""
    arguments = _compact(request.arguments)
    if request.until is not None:
        kept = db.execute("SELECT count(*) FROM kept WHERE device = ?", (device,)).fetchone()[0]
        if kept >= MOST_KEPT:
            return False
        db.execute("INSERT INTO kept VALUES (?, ?, ?)", (request.id, device, request.until))
    db.execute(
        "INSERT INTO command VALUES (?, ?, ?, ?, ?, ?, NULL)",
        (request.id, device, verb, arguments, request.by, request.at),
    )
    db.execute(
        "DELETE FROM command WHERE device = ?1 AND at < (SELECT at FROM command WHERE device = ?1 "
        "ORDER BY at DESC LIMIT 1 OFFSET ?2) AND id NOT IN (SELECT command FROM kept WHERE device = ?1)",
        (device, MOST_COMMANDS - 1),
    )
    return True


def kept_commands(db: sqlite3.Connection, device: str, now: float) -> list[tuple[str, Request]]:
    """Return the verbs and requests that are kept for a device, the oldest first."""
    found = db.execute(
        "SELECT verb, id, by, at, until, arguments FROM kept JOIN command ON id = command "
        "WHERE kept.device = ? AND until > ? ORDER BY at, command.rowid",
        (device, now),
    )
    return [
        (verb, Request(**dict(zip(("id", "by", "at", "until"), values, strict=True)), arguments=json.loads(arguments)))
        for verb, *values, arguments in found
    ]


def devices_with_kept(db: sqlite3.Connection) -> set[str]:
    """Return the devices for which commands are kept."""
    return {device for (device,) in db.execute("SELECT DISTINCT device FROM kept")}


def devices_without_answer(db: sqlite3.Connection, before: float) -> list[str]:
    """Return the connected devices that have not answered a kept command which is older than a time."""
    found = db.execute(
        "SELECT DISTINCT kept.device FROM kept JOIN command ON id = command JOIN device ON device.device = kept.device "
        "WHERE available AND at < ?",
        (before,),
    )
    return [device for (device,) in found]


def drop_expired(db: sqlite3.Connection, now: float) -> int:
    """Keep no command beyond its time; return how many were never sent."""
    expired = db.execute(
        "UPDATE command SET sent = 'expired' WHERE sent IS NOT 'sent' AND id IN "
        "(SELECT command FROM kept WHERE until <= ?)",
        (now,),
    ).rowcount
    db.execute("DELETE FROM kept WHERE until <= ?", (now,))
    return expired


def withdraw(db: sqlite3.Connection, command: str, by: str) -> bool:
    """Keep a command no longer that was not sent yet; return False if it was, or is not kept."""
    found = db.execute(
        "UPDATE command SET sent = ? WHERE id = ? AND sent IS NOT 'sent' AND id IN (SELECT command FROM kept)",
        (f"withdrawn by {by}", command),
    )
    db.execute("DELETE FROM kept WHERE command = ? AND ?", (command, found.rowcount))
    return found.rowcount > 0


def put_sent(db: sqlite3.Connection, command: str, outcome: str) -> None:
    """Store what became of the sending of a command: `sent`, or why it was not."""
    db.execute("UPDATE command SET sent = ? WHERE id = ?", (outcome, command))


def claim(db: sqlite3.Connection, command: str) -> tuple[bool, str | None]:
    """Store that a kept command is being sent; return whether it is kept still, and what was stored before."""
    found = db.execute("SELECT sent FROM command JOIN kept ON command = id WHERE id = ?", (command,)).fetchone()
    if found is None:
        return False, None
    put_sent(db, command, "sent")
    return True, found[0]


def put_answer(db: sqlite3.Connection, answer: Answer, at: float) -> bool:
    """Store an answer; return False if it is to the command of another device, or one of too many."""
    command = db.execute("SELECT device FROM command WHERE id = ?", (answer.id,)).fetchone()
    if command is not None and command[0] != answer.device:
        return False
    counted = "SELECT count(*) FROM answer WHERE command = ? AND device = ?"
    given = db.execute(counted, (answer.id, answer.device)).fetchone()[0]
    if answer.state != "accepted":
        db.execute("DELETE FROM kept WHERE command = ? AND device = ?", (answer.id, answer.device))
    elif given:  # the device had the command again, and says again that it goes on
        return True
    if given >= MOST_ANSWERS_TO_ONE:
        return False
    text = answer.model_dump_json(by_alias=True, exclude_none=True)
    db.execute(
        "INSERT INTO answer (command, device, at, json) VALUES (?, ?, ?, ?)", (answer.id, answer.device, at, text)
    )
    _trim(db, "answer", answer.device, MOST_ANSWERS)
    return True


def change_turns(
    db: sqlite3.Connection, ended: Iterable[Member], given: Iterable[Member], mark: tuple[int, str], at: float
) -> None:
    """Store which turns ended, and which devices have one now.

    Args:
        db: in a transaction.
        ended: devices whose turn is over.
        given: devices that have one now.
        mark: release and plan of those.
        at: Unix seconds.
    """
    db.executemany("DELETE FROM turn WHERE device = ?", ((one.device,) for one in ended))
    rows = ((one.device, *mark, at, one.newest_try(mark[0])) for one in given)
    db.executemany("REPLACE INTO turn VALUES (?, ?, ?, ?, ?)", rows)


def forget_old(db: sqlite3.Connection, before: float, most: int) -> list[str]:
    """Delete devices last seen before a time, and older commands and answers; return those devices.

    A command that is kept stays until its own time is over, see `drop_expired`.

    Args:
        db: in a transaction.
        before: Unix seconds.
        most: devices that are deleted at once.
    """
    old = db.execute("SELECT device, labels FROM device WHERE last_seen < ? LIMIT ?", (before, most)).fetchall()
    for device, labels in old:
        db.executemany(_DELETE_LABEL, ((key, value, device) for key, value in json.loads(labels).items()))
        for table in ("device", "report", "history", "turn"):
            db.execute(f"DELETE FROM {table} WHERE device = ?", (device,))  # noqa: S608  a fixed name
    db.execute("DELETE FROM command WHERE at < ? AND id NOT IN (SELECT command FROM kept)", (before,))
    db.execute("DELETE FROM answer WHERE at < ?", (before,))
    return [device for device, _ in old]


def raise_number(db: sqlite3.Connection, key: str, value: int) -> int:
    """Store a number that never falls; return the largest so far."""
    db.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)",
        (key, value),
    )
    return int(db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])


def _seen(message: Arrived, reported_at: float, last_seen: float | None) -> float:
    """Return when a report was sent: now or, if the broker kept it, the time in the report, within reason."""
    if not message.retained:
        return message.at
    return min(max(reported_at, last_seen or 0.0), message.at)


def _pair(report: Reported) -> str | None:
    if report.running is None:
        return None
    return report.running.model_dump_json(exclude_none=True)


def _put_wide(db: sqlite3.Connection, report: Reported) -> dict[str, Any] | None:
    """Store the report itself, and beside it the tries that it has lost; return the newest try that is known."""
    stored = db.execute("SELECT tries, earlier FROM report WHERE device = ?", (report.device,)).fetchone()
    tries = [one.model_dump(exclude_none=True) for one in report.tries]
    known: list[dict[str, Any]] = [*json.loads(stored[0]), *json.loads(stored[1])] if stored else []
    earlier = [one for one in known if one not in tries][: MOST_KNOWN_TRIES - len(tries)]
    text = report.model_dump_json(by_alias=True, exclude_none=True, exclude={"tries"})
    db.execute("REPLACE INTO report VALUES (?, ?, ?, ?)", (report.device, text, _compact(tries), _compact(earlier)))
    return next(iter([*tries, *earlier]), None)


def _compact(tree: Any) -> str:
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False)


def _put_labels(db: sqlite3.Connection, report: Reported, old: dict[str, str]) -> None:
    gone, new = old.items() - report.labels.items(), report.labels.items() - old.items()
    db.executemany(_DELETE_LABEL, ((key, value, report.device) for key, value in gone))
    db.executemany("REPLACE INTO label VALUES (?, ?, ?)", ((key, value, report.device) for key, value in new))


def _put_history(db: sqlite3.Connection, device: str, at: float, changes: Iterable[tuple[str, Any]]) -> None:
    rows = [(device, at, kind, _compact(change)) for kind, change in changes]
    if rows:
        db.executemany("INSERT INTO history (device, at, kind, change) VALUES (?, ?, ?, ?)", rows)
        _trim(db, "history", device, MOST_HISTORY)


def _trim(db: sqlite3.Connection, table: str, device: str, most: int) -> None:
    """Keep the newest rows of a device."""
    db.execute(
        f"DELETE FROM {table} WHERE device = ?1 AND id <= (SELECT id FROM {table} WHERE device = ?1 "  # noqa: S608
        "ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        (device, most),
    )
