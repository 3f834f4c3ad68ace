"""Devices and answers as people read them in a terminal."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from edge.errors import one_line
from gallery_sync.formats.reports import Answer, DeviceRow
from gallery_sync.formats.rollouts import GROUP

WIDTH = 120  # columns of a table at least, and where the output is no terminal
_GAP = "  "
_COLUMNS = ("device", "group/site", "release", "state", "engine", "cameras", "seen", "reason")
_MOST = (22, 18, 9, 10, 16, 7, 6)  # characters of a cell; the reason gets the rest


def table_width() -> int:
    """Return how many columns a table on the standard output may have."""
    return max(WIDTH, shutil.get_terminal_size((WIDTH, 0)).columns) if sys.stdout.isatty() else WIDTH


def device_table(rows: Iterable[DeviceRow], now: float, width: int = WIDTH) -> list[str]:
    """Return a line for each device, below a line of headings."""
    lines = [_COLUMNS, *(_cells(row, now) for row in rows)]
    longest = (max(len(one_line(cell)) for cell in column) for column in zip(*lines, strict=True))
    widths = [min(most, length) for most, length in zip(_MOST, longest, strict=False)]
    widths.append(width - sum(widths) - len(_GAP) * len(widths))
    return [_line(cells, widths) for cells in lines]


def device_text(found: dict[str, Any], now: float) -> list[str]:
    """Return all that is known of a device, as the server answers."""
    row = DeviceRow.model_validate(found["row"])
    report = row.reported
    running = report.running
    lines = {
        "device": row.device,
        "line": row.line,
        "labels": ", ".join(f"{key}={value}" for key, value in sorted(row.labels.items())),
        "connected": {None: "not known", True: "yes", False: "no"}[row.available],
        "last report": f"{age(now - row.last_seen)} ago, number {report.revision}",
        "first report": time_text(row.first_seen),
        "state": report.state + (f": {report.reason}" if report.reason else ""),
        "target": report.target and f"release {report.target}" + (f" of {report.plan}" if report.plan else ""),
        "waits for": "a turn" if report.waits_for_turn else None,
        "running": running
        and f"release {running.release}, bundle {running.bundle_id}, gallery {running.gallery_sequence}"
        + (f", on trial {running.trial}" if running.trial else ", confirmed"),
        "engine": report.engine,
        "serves": "yes" if report.serves else "no",
        "cameras": ", ".join(f"{name}: {state}" for name, state in sorted(report.cameras.items())),
        "frames a second": report.fps,
        "configuration": report.config,
        "commands": ", ".join(report.allowed) or "none allowed",
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items())),
        "metadata until": report.expires_at and time_text(report.expires_at),
        "problem": report.problem,
        "has a turn for": found.get("turn")
        and f"release {found['turn']['release']} since {time_text(found['turn']['given_at'])}",
    }
    shown = [f"{name}: {one_line(str(value))}" for name, value in lines.items() if value not in (None, "")]
    return [*shown, *_lists(found, row)]


def answer_text(device: str, answer: Answer) -> str:
    """Return an answer as one line."""
    result = f" {json.dumps(answer.result, ensure_ascii=False)}" if answer.result else ""
    return one_line(f"{device}: {answer.state}" + (f": {answer.text}" if answer.text else "") + result)


def command_text(command: dict[str, Any]) -> str:
    """Return a command, as the server answers, as one line."""
    until = f", until {time_text(command['until'])}" if command.get("until") is not None else ""
    arguments = f" {json.dumps(command['arguments'], ensure_ascii=False)}" if command.get("arguments") else ""
    of = f"{time_text(command.get('at') or 0.0)} {command.get('id')} {command.get('device')}"
    state = command.get("sent") if command.get("state") == "not sent" else command.get("state")
    return one_line(f"{of} {command.get('verb')}{arguments} by {command.get('by')}: {state}{until}")


def age(seconds: float) -> str:
    """Return a duration in its largest unit, such as 5 min."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length or (unit != "d" and seconds >= length):
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _lists(found: dict[str, Any], row: DeviceRow) -> list[str]:
    lines = []
    for name, entries in (
        ("quarantine", [f"release {one.release}: {one.reason}" for one in row.reported.quarantine]),
        ("tries", [_try(one) for one in row.tries or row.reported.tries]),
        ("history", [f"{time_text(one['at'])} {_change(one)}" for one in found.get("history", [])]),
        ("commands", [command_text(one) for one in found.get("commands", [])]),
        (
            "answers",
            [f"{time_text(one['at'])} {one['verb']}: {one['state']} {one['text']}" for one in found.get("answers", [])],
        ),
    ):
        if entries:
            lines += [f"{name}:", *(f"  {one_line(entry.rstrip())}" for entry in entries)]
    return lines


def _try(one: Any) -> str:
    plan = f" of {one.plan}" if one.plan else ""
    return f"{time_text(one.at)} release {one.release}{plan}: {one.outcome}" + (f": {one.reason}" if one.reason else "")


def _change(entry: dict[str, Any]) -> str:
    change = entry["change"]
    old, new = change.get("from"), change.get("to")
    if entry["kind"] == "running":
        old, new = (one and f"release {one.get('release')} ({one.get('bundle_id')})" for one in (old, new))
    elif entry["kind"] != "state":
        old, new = (json.dumps(one) if isinstance(one, dict) else one for one in (old, new))
    return f"{entry['kind']}: {old} -> {new}" + (f": {change['reason']}" if change.get("reason") else "")


def _cells(row: DeviceRow, now: float) -> Sequence[str]:
    report = row.reported
    running = report.running
    release = "-" if running is None else f"{running.release or '?'}" + ("?" if running.trial else "")
    up = sum(1 for state in report.cameras.values() if state == "online")
    place = "/".join(filter(None, (row.labels.get(GROUP), row.labels.get("site") or report.site)))
    seen = age(now - row.last_seen) + {False: "!", True: "", None: ""}[row.available]
    cameras = f"{up}/{len(report.cameras)}" if report.cameras else "-"
    reason = report.problem or report.reason or ("waits for a turn" if report.waits_for_turn else "")
    return row.device, place or "-", release, report.state, report.engine or "-", cameras, seen, reason


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(_cut(cell, width).ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cut(text: str, width: int) -> str:
    shown = one_line(text)
    return shown if len(shown) <= width else f"{shown[: width - 1]}…"


def time_text(at: float) -> str:
    """Return Unix seconds as UTC."""
    try:
        return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return "?"
