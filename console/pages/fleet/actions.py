"""The JSON API of rollouts: plan, approve, pause, resume, open, complete, abort, pin and unpin."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from console.access import audit
from console.fleet.changes import Changer, Done
from console.fleet.plans import create
from console.pages.fleet.rollouts import Line, Percent, PlanFields, ReleaseNumber, Time, now_of
from console.web.routing import Answer, Call, Values, api
from edge.errors import ConsoleError
from gallery_sync.rollouts.status import status

Revision = Annotated[int, Field(ge=0, lt=2**53)]
Reason = Annotated[str, Field(max_length=400)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PlanBody(PlanFields):
    """A plan to write, with the salt of its preview."""

    model_config = ConfigDict(extra="forbid")


class ApproveBody(_Body):
    """The approval of a plan as it was read."""

    plan: Annotated[str, Field(min_length=1, max_length=80)]
    digest: Annotated[str, Field(max_length=64)]
    alone: bool = False  # of one's own plan; for admins


class ChangeBody(_Body):
    """A change of the rollouts that were seen."""

    revision: Revision
    reason: Reason = ""


class ResumeBody(_Body):
    """How a paused rollout goes on."""

    revision: Revision
    max_failed: Percent | None = None  # null: as before, so are the others
    max_silent: Percent | None = None
    deadline: Time = ""  # from now


class AbortBody(ChangeBody):
    """How a rollout ends."""

    to: ReleaseNumber | None = None  # release whose pair devices get; null: as the plan says


class PinBody(ChangeBody):
    """Devices that stay at a release."""

    select: Annotated[Line, Field(min_length=1)]
    release: ReleaseNumber


class UnpinBody(_Body):
    """Devices that go on."""

    revision: Revision
    select: Annotated[Line, Field(min_length=1)]


class CreatedValue(BaseModel):
    """A plan that was written; another person approves it."""

    plan: str
    digest: str


class DoneValue(BaseModel):
    """What became of a change."""

    is_signed: bool  # devices see it
    revision: int
    command: str  # to run where the keys are; empty: nothing is left to do
    waits_for: list[str]  # whose signatures are missing


class StatusValue(BaseModel):
    """What is under way, as `edge-sync rollout status --json` prints it."""

    status: dict[str, Any]
    controller_runs: bool


def _status(call: Call) -> Answer:
    fleet = call.services.fleet
    published, known = fleet.signed.published(), fleet.known.get()
    rows = known.rows
    found = status(published, now_of(call), rows.rows if rows else None, unreadable=rows.unreadable if rows else 0)
    return Values(StatusValue(status=found, controller_runs=fleet.signed.controller_lives(now_of(call))))


def _create(call: Call) -> Answer:
    fleet, body = call.services.fleet, call.body
    salt = body.salt or secrets.token_hex(16)
    rows = fleet.known.get(wait_s=2.0).rows
    draft = create(fleet, body.filled(), salt, call.user.name, now_of(call), rows)
    _record(call, "fleet.plan", draft.id, release=draft.release, digest=draft.digest())
    value = CreatedValue(plan=draft.id, digest=draft.digest())
    return Values(value, says="The plan waits for its approval", go=f"/fleet/rollouts/plans/{draft.id}")


def _approve(call: Call) -> Answer:
    body = call.body
    if body.alone and not call.user.may("admin"):
        raise ConsoleError("denied", "only an admin approves a plan alone; ask another person to approve it")
    done = _changer(call).approve(body.plan, body.digest, alone=body.alone)
    return _answer(call, "fleet.approve", body.plan, done, digest=body.digest, alone=body.alone)


def _pause(call: Call) -> Answer:
    done = _changer(call).pause(call.body.revision, call.body.reason)
    return _answer(call, "fleet.pause", _plan(call), done, reason=call.body.reason)


def _resume(call: Call) -> Answer:
    body = call.body
    done = _changer(call).resume(body.revision, body.max_failed, body.max_silent, body.deadline)
    return _answer(call, "fleet.resume", _plan(call), done, **body.model_dump(exclude={"revision"}))


def _next(call: Call) -> Answer:
    done = _changer(call).open_next(call.body.revision, call.body.reason)
    return _answer(call, "fleet.next", _plan(call), done, reason=call.body.reason)


def _complete(call: Call) -> Answer:
    plan = _plan(call)
    done = _changer(call).complete(call.body.revision, call.body.reason)
    return _answer(call, "fleet.complete", plan, done, reason=call.body.reason)


def _abort(call: Call) -> Answer:
    plan = _plan(call)
    done = _changer(call).abort(call.body.revision, call.body.to, call.body.reason)
    return _answer(call, "fleet.abort", plan, done, reason=call.body.reason, to=call.body.to)


def _pin(call: Call) -> Answer:
    body = call.body
    done = _changer(call).pin(body.revision, body.select, body.release, body.reason)
    return _answer(call, "fleet.pin", body.select, done, release=body.release, reason=body.reason)


def _unpin(call: Call) -> Answer:
    done = _changer(call).unpin(call.body.revision, call.body.select)
    return _answer(call, "fleet.unpin", call.body.select, done)


def _changer(call: Call) -> Changer:
    return Changer(call.services.fleet, call.user.name, now_of(call))


def _plan(call: Call) -> str:
    """Return the name of the rollout that is under way, for the audit log."""
    plan = call.services.fleet.signed.published().plan
    return plan.id if plan else "none"


def _answer(call: Call, action: str, target: str, done: Done, **details: Any) -> Answer:
    _record(call, action, target, signed=done.is_signed, revision=done.revision, **details)
    value = DoneValue(
        is_signed=done.is_signed, revision=done.revision, command=done.command, waits_for=list(done.waits_for)
    )
    return Values(value, says=done.says, go="/fleet/rollouts" if done.is_signed else "")


def _record(call: Call, action: str, target: str, **details: Any) -> None:
    with call.services.database.write() as rows:
        audit.record(rows, call.now_s, call.user.name, action, target, **details)


_CHANGES = (
    ("approve", _approve, ApproveBody, "Approve a plan of another person, and open its first wave"),
    ("pause", _pause, ChangeBody, "Let no further device begin"),
    ("resume", _resume, ResumeBody, "Go on with a paused rollout"),
    ("next", _next, ChangeBody, "Open the next wave, whatever the gates say"),
    ("complete", _complete, ChangeBody, "End a rollout whose waves are all open; devices keep its release"),
    ("abort", _abort, AbortBody, "End a rollout; devices that took its release go back"),
    ("pin", _pin, PinBody, "Keep devices at a release until they are unpinned"),
    ("unpin", _unpin, UnpinBody, "Let pinned devices go on"),
)
ROUTES = (
    api("GET", "/fleet/rollouts", "viewer", _status, "The rollout that is under way", answer=StatusValue),
    api(
        "POST",
        "/fleet/rollouts",
        "operator",
        _create,
        "Write a plan that another person approves",
        body=PlanBody,
        answer=CreatedValue,
    ),
    *(
        api("POST", f"/fleet/rollouts/{name}", "operator", act, summary, body=body, answer=DoneValue)
        for name, act, body, summary in _CHANGES
    ),
)
