"""The audit log of rollouts: who did what and when, one JSON line each, in a file that only grows.

    REPO/rollouts/audit.jsonl

Rules this module keeps:
1. A line names the hash of the whole line before it. The signed rollouts name the hash of the line that changed them
   last. So nobody can change or take out a line unseen.
2. A signed change is logged before it is made, as *begun*, and after it as *done*, or as *waits* for signatures. What
   was begun and did not become visible was interrupted. A draft, which no device reads, is logged once it is written.
3. A line that a power cut tore is kept, skipped and named. The next one goes on from the last whole line.
4. A line is on the disk before its signed change is made.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.durable import fsync_folder, make_folder
from edge.errors import SyncError
from gallery_sync.formats.rollouts import Rollouts

_NAME = "rollouts/audit.jsonl"
_LARGEST_BYTES = 256 << 20
_FIRST = ""
TORN = "is torn"  # how a problem ends that a power cut explains


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the log."""

    number: int  # from 1
    sha256: str
    before: str  # the hash of the whole line before it; empty: it is the first one
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Log:
    """A log that was read."""

    entries: tuple[Entry, ...]
    problems: tuple[str, ...]  # torn lines, and lines that were changed

    @property
    def last(self) -> str:
        """The hash of the last whole line."""
        return self.entries[-1].sha256 if self.entries else _FIRST


def log_path(repo: Path) -> Path:
    """Return where the log of a repository is."""
    return repo / _NAME


def read_log(repo: Path) -> Log:
    """Read a log, and verify its chain.

    Raises:
        SyncError: it cannot be read.
    """
    path = log_path(repo)
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except FileNotFoundError:
        return Log((), ())
    except OSError as error:
        raise SyncError(f"{path}: cannot read: {error.strerror}") from error
    if len(data) > _LARGEST_BYTES:
        raise SyncError(f"{path}: found more than {_LARGEST_BYTES} bytes; move it away and keep it")
    entries, problems = list[Entry](), list[str]()
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line:
            continue
        fields = _parse(line)
        if fields is None:
            problems.append(f"line {number} {TORN}")
            continue
        before = entries[-1].sha256 if entries else _FIRST
        if fields.get("before") != before:
            problems.append(f"line {number} does not follow the line before it: the log was changed")
        entries.append(Entry(number, hashlib.sha256(line).hexdigest(), before, fields))
    return Log(tuple(entries), tuple(problems))


def append(repo: Path, fields: Mapping[str, Any]) -> str:
    """Append a line, and return its hash. Hold the lock of the repository.

    Raises:
        OSError: the disk failed.
        SyncError: the log cannot be read.
    """
    path, known = log_path(repo), read_log(repo)
    line = json.dumps({**fields, "before": known.last}, sort_keys=True, separators=(",", ":")).encode()
    is_new = not path.exists()
    make_folder(path.parent)
    with path.open("r+b" if not is_new else "x+b") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            torn = file.read(1) != b"\n"
            file.seek(end)
            line = b"\n" + line if torn else line
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        fsync_folder(path.parent)
    return hashlib.sha256(line.removeprefix(b"\n")).hexdigest()


def _parse(line: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_line = isinstance(found, dict) and isinstance(found.get("of", ""), str)
    return found if is_line and isinstance(found.get("revision", 0), int) else None


def finish(repo: Path, begun: str, at: str, draft: Path | None = None) -> None:
    """Log a change that was begun as done, or as waiting for signatures.

    Args:
        repo: the repository folder; hold its lock.
        begun: the hash of its line.
        at: the time, as text.
        draft: that waits for signatures; None: the change is done.

    Raises:
        OSError: the disk failed.
        SyncError: the log cannot be read.
    """
    state = {"state": "done"} if draft is None else {"state": "waits", "draft": draft.name}
    append(repo, {"at": at, "of": begun, **state})


def settle(repo: Path, log: Log, anchor: str | None, at: str) -> None:
    """Log as done what became visible and is not logged as done: after a crash, or once people signed it.

    Args:
        repo: the repository folder; hold its lock.
        log: that was read.
        anchor: the hash that the signed rollouts name.
        at: the time, as text.

    Raises:
        OSError: the disk failed.
        SyncError: the log cannot be read.
    """
    found = any(one.sha256 == anchor for one in log.entries)
    if anchor is not None and found and _after(log).get(anchor) != "done":
        finish(repo, anchor, at)


def read_history(repo: Path, rollouts: Rollouts | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the log of a repository; return what was done, and what is wrong with the log.

    Args:
        repo: the repository folder.
        rollouts: that are published; None: there are none.

    Raises:
        SyncError: the log cannot be read.
    """
    revision, anchor = (rollouts.revision, rollouts.audit) if rollouts else (0, None)
    return history(read_log(repo), revision, anchor)


def history(log: Log, revision: int, anchor: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what was done, and what is wrong with the log.

    Args:
        log: that was read.
        revision: of the rollouts that are published; 0: there are none.
        anchor: the hash that they name.
    """
    after, rows = _after(log), []
    for one in log.entries:
        if "of" in one.fields:
            continue
        fields = {key: value for key, value in one.fields.items() if key not in ("before", "state")}
        state = after.get(one.sha256, one.fields.get("state", "done"))
        if state != "done" and one.sha256 == anchor:
            state = "done"
        elif state == "begun":
            state = "interrupted"
        elif state == "waits" and revision >= one.fields.get("revision", revision + 1):  # others are of no revision
            state = "given up"
        rows.append({**fields, "state": state})
    problems = list(log.problems)
    if anchor is not None and all(one.sha256 != anchor for one in log.entries):
        problems.append("the line that the signed rollouts name is not here: the log was cut or replaced")
    return rows, problems


def _after(log: Log) -> dict[Any, Any]:
    return {one.fields["of"]: one.fields.get("state") for one in log.entries if "of" in one.fields}
