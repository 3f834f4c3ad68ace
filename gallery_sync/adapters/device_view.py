"""What another fleet system may know of a device: what is active, what the agent does, and how tries ended.

It is read from the pointer `current` and from `agent.json`, so it needs no running agent and disturbs none.

Rules this module keeps:
1. A release has succeeded only if the agent confirmed it and it is what is active, not on trial.
2. How a try ended counts for an order only if it ended after the order came. The agent's list of tries decides that,
   not a clock.
3. What cannot be read is no success and no failure: it is waited for.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.bundle.active_pointer import ActivePointer
from edge.bundle.pairs import read_pointer_or_none
from edge.errors import one_line
from edge.telemetry.agent_report import NAME as REPORT_NAME
from gallery_sync.formats.fields import LARGEST_RELEASE_BYTES, Document, Name, Sequence
from gallery_sync.fresh_files import read_regular
from gallery_sync.trust.enrolment_file import read_enrolment

log = logging.getLogger(__name__)

_LARGEST_BYTES = 1 << 18
_SWITCHED = frozenset({"switch", "trial", "confirm", "rollback", "failsafe"})  # states of the agent from the switch on
_DOWNLOADED = frozenset({"stage", "prove", "armed"})  # states in which everything is here and verified
_LOST = frozenset({"rolled back", "refused", "kept", "taken over", "failsafe"})
_HELD = "in quarantine"  # how the agent's reason begins that holds a release back

Text = Annotated[str, Field(max_length=1000)]
Count = Annotated[int, Field(ge=0, le=LARGEST_RELEASE_BYTES**2)]


class Named(Document):
    """A release by its name: what another fleet system orders, and the content of `release.json`."""

    kind = "name of a release"

    line: Name
    sequence: Sequence

    def __str__(self) -> str:
        """Return its name in messages."""
        return f"release {self.sequence} of {self.line}"

    def is_of(self, line: str | None, sequence: int | None) -> bool:
        """Return whether it names this release."""
        return (self.line, self.sequence) == (line, sequence)


class _Tolerant(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Tried(_Tolerant):
    """How a try of a release ended."""

    line: Text
    sequence: Count
    outcome: Text
    reason: Text | None = None
    trial: Text | None = None
    at: float = 0.0

    @property
    def mark(self) -> str:
        """What tells it from every other try."""
        return json.dumps([self.at, self.line, self.sequence, self.outcome, self.trial])


class _Target(_Tolerant):
    line: Text
    sequence: Count


class Report(_Tolerant):
    """The part of `agent.json` that is used here."""

    state: Text
    reason: Text | None = None
    release: _Target | None = None
    last: Tried | None = None
    tries: Annotated[list[Tried], Field(default_factory=list, max_length=1000)]  # the newest first

    @property
    def ended(self) -> list[Tried]:
        """The tries that it tells of, the newest first."""
        return self.tries or ([self.last] if self.last else [])


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device at one moment."""

    active: ActivePointer | None = None
    report: Report | None = None  # None: no agent ran here yet, or its report cannot be read

    @property
    def newest_mark(self) -> str | None:
        """The mark of the newest try; None: there is none."""
        ended = self.report.ended if self.report else []
        return ended[0].mark if ended else None

    def runs(self, named: Named) -> bool:
        """Return whether a release is active, on trial or not."""
        release = self.active.release if self.active else None
        return release is not None and named.is_of(release.line, release.sequence)

    def is_at(self, named: Named, states: frozenset[str] | None = None) -> bool:
        """Return whether the agent works at a release, in some states; None: in any but at rest."""
        report = self.report
        if report is None or report.release is None or not named.is_of(report.release.line, report.release.sequence):
            return False
        return report.state in states if states is not None else report.state != "idle"

    def has_switched(self, named: Named) -> bool:
        """Return whether the device turned to a release, or is about to and cannot be held back any more."""
        return self.runs(named) or self.is_at(named, _SWITCHED)

    def has_downloaded(self, named: Named) -> bool:
        """Return whether a release is here and verified as a whole."""
        return self.is_at(named, _DOWNLOADED) or self.has_switched(named)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a release that was ordered."""

    kind: Literal["waiting", "confirmed", "failed"]
    text: str  # for people


def read_view(state_dir: Path) -> DeviceView:
    """Read the state of a device; what is missing or damaged is None."""
    active, problem = read_pointer_or_none(state_dir)
    if problem:
        log.warning("%s", problem)
    try:
        report = Report.model_validate_json(read_regular(state_dir / REPORT_NAME, _LARGEST_BYTES))
    except FileNotFoundError:
        report = None
    except (OSError, ValidationError) as error:
        log.warning("%s: cannot be read: %s", state_dir / REPORT_NAME, one_line(str(error)))
        report = None
    return DeviceView(active, report)


def line_of(state_dir: Path, view: DeviceView) -> str | None:
    """Return the line of a device: that of its enrolment, or of what is active; None: it has none yet.

    Raises:
        SyncError: the enrolment is damaged.
    """
    if (enrolled := read_enrolment(state_dir)) is not None:
        return enrolled.line
    release = view.active.release if view.active else None
    return release.line if release else None


def judge(view: DeviceView, named: Named, mark: str | None) -> Verdict:
    """Judge what became of a release.

    Args:
        view: the device now.
        named: the release that was ordered.
        mark: `newest_mark` when the order came.
    """
    ended = view.report.ended if view.report else []
    tries = [one for one in ended if named.is_of(one.line, one.sequence) and one.outcome != "postponed"]
    newest = tries[0] if tries else None
    is_confirmed = view.runs(named) and view.active is not None and view.active.trial is None
    if newest is not None and newest.outcome == "confirmed" and is_confirmed:
        return Verdict("confirmed", f"{named} is confirmed and serves")
    if newest is not None and newest in _since(ended, mark):
        if newest.outcome == "confirmed" and not view.runs(named):
            return Verdict("failed", f"{named} was confirmed, and something else is active now")
        if newest.outcome in _LOST:
            return Verdict("failed", f"{named}: {newest.outcome}: {newest.reason or 'no reason is known'}")
    if view.is_at(named, frozenset({"idle"})) and view.report and (view.report.reason or "").startswith(_HELD):
        return Verdict("failed", f"{named} is held back here: {view.report.reason}")
    return Verdict("waiting", _progress(view, named))


def _since(ended: list[Tried], mark: str | None) -> list[Tried]:
    """Return the tries that ended after one; all, if it is not known any more."""
    marks = [one.mark for one in ended]
    return ended[: marks.index(mark)] if mark in marks else ended


def _progress(view: DeviceView, named: Named) -> str:
    """Return how far a release is, for people."""
    report = view.report
    if report is None:
        return f"{named}: no update agent has reported on this device"
    reason = f": {report.reason}" if report.reason else ""
    if view.is_at(named):
        return f"{named}: {report.state}{reason}"
    if view.runs(named):
        return f"{named} is active, and the agent did not confirm it{reason}"
    other = f", at release {report.release.sequence}" if report.release and report.state != "idle" else ""
    return f"{named}: the agent has not begun with it: {report.state}{other}{reason}"
