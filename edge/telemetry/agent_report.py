"""What the update agent of a device reports in its file `agent.json`, which the running device sends on.

The agent is another process. A missing file means that there is none. One that cannot be read is reported in its place,
and changes nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.errors import first_validation_error
from edge.telemetry.counters import Counters
from edge.telemetry.health_report import AgentReport, DeletionReceipt, ServedRelease

NAME = "agent.json"
UNREADABLE = "unreadable"  # state of a report that cannot be read
_MAX_BYTES = 1 << 18
_MOST_RECEIPTS = 64
_Text = Annotated[str, Field(max_length=400)]
_Count = Annotated[int, Field(ge=0, lt=2**53)]


class _Tolerant(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Release(_Tolerant):
    line: _Text
    sequence: _Count
    gallery_sequence: _Count | None = None


class _Receipt(_Tolerant):
    category: _Text
    sequence: _Count
    items: _Count = 0
    erased_at: float | None = None


class _Document(_Tolerant):
    state: _Text
    since: float | None = None
    reason: _Text | None = None
    release: _Release | None = None
    written_at: float | None = None
    checked_at: float | None = None
    expires_at: float | None = None
    warn_at: float | None = None
    receipts: list[_Receipt] = Field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Read:
    identity: tuple[int, int]
    report: AgentReport


class AgentReports:
    """Reads the report of the agent when its file has changed; from any thread."""

    def __init__(self, state_dir: Path, counters: Counters) -> None:
        """Read nothing yet.

        Args:
            state_dir: of the device.
            counters: `agent_reports_unread`.
        """
        self._path, self._counters = state_dir / NAME, counters
        self._read: _Read | None = None

    def newest(self) -> AgentReport | None:
        """Return the newest report; None if there is no agent."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        identity, read = (found.st_ino, found.st_mtime_ns), self._read
        if read is None or read.identity != identity:
            self._read = read = _Read(identity, read_agent_report(self._path))
            if read.report.state == UNREADABLE:
                self._counters.add("agent_reports_unread")
        return read.report


def read_agent_report(path: Path) -> AgentReport:
    """Read a report; one that cannot be read has the state `unreadable`, and says why."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            return AgentReport(UNREADABLE, f"{path}: larger than {_MAX_BYTES} bytes; restart the agent")
        document = _Document.model_validate_json(data)
    except OSError as error:
        return AgentReport(UNREADABLE, f"{path}: {error.strerror or error}")
    except ValidationError as error:
        return AgentReport(UNREADABLE, f"{path}: {first_validation_error(error)}; restart the agent")
    release = document.release
    return AgentReport(
        document.state,
        document.reason,
        None if release is None else ServedRelease(release.line, release.sequence, release.gallery_sequence),
        written_at=document.written_at,
        expires_at=document.expires_at,
        warn_at=document.warn_at,
        receipts=tuple(
            DeletionReceipt(one.category, one.sequence, one.items) for one in document.receipts[-_MOST_RECEIPTS:]
        ),
    )
