"""The rollouts of a fleet: live progress, plans to approve, the form of a new one, dialogs, and history."""

from __future__ import annotations

import secrets
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from console.fleet.changes import Changer, is_same_person
from console.fleet.known_rows import Known
from console.fleet.plans import Filled, count_selected, in_words, preview, read_selector
from console.fleet.signed import releases_to_go_back, releases_to_plan
from console.web.routing import Answer, Call, Html, page
from edge.errors import ConsoleError, SyncError
from gallery_sync.formats.documents import Release
from gallery_sync.formats.rollouts import Plan, bucket_of, selects
from gallery_sync.repository.published import Published
from gallery_sync.rollouts.plans import PlanDraft, candidate, labels_of

_HISTORY = 25  # rows of a page
Action = Literal["pause", "resume", "next", "complete", "abort", "pin", "unpin", "approve"]
Line = Annotated[str, Field(max_length=1000)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=1, le=10**6)]
ReleaseNumber = Annotated[int, Field(ge=1, lt=2**53)]
Time = Annotated[str, Field(max_length=20)]


class PlanFields(BaseModel):
    """A plan, as `edge-sync rollout create` takes it."""

    release: ReleaseNumber | None = None
    name: Annotated[str, Field(pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]{0,79})?$")] = ""
    select: Line = ""
    exclude: Annotated[list[Line], Field(max_length=100)] = []
    canary: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 5.0
    canary_at_least: Number = 1
    waves: Annotated[str, Field(max_length=200)] = "25"
    soak: Time = "1h"
    min_confirmed: Annotated[int, Field(ge=0, le=10**6)] | None = None
    max_failed: Percent = 0.0
    max_silent: Percent = 10.0
    silent_after: Time = "1h"
    windows: Annotated[list[Line], Field(max_length=50)] = []
    max_unavailable: Number | None = None
    unavailable_by: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_.-]{0,39})?$")] = "site"
    deadline: Time = "14d"
    abort_to: ReleaseNumber | None = None
    salt: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")] = ""  # of the preview; empty: a new one

    def filled(self) -> Filled:
        """Return it as the fleet's room takes it."""
        return Filled(**self.model_dump(exclude={"salt"}))


class HistoryQuery(BaseModel):
    """Which part of the history."""

    before: Annotated[int, Field(ge=1, lt=2**53)] | None = None


class DialogQuery(BaseModel):
    """Which dialog."""

    do: Action
    select: Line = ""  # of the pin to take away
    plan: Annotated[str, Field(max_length=80)] = ""  # to approve


class SelectedQuery(BaseModel):
    """Which devices to count."""

    select: Line = ""


def now_of(call: Call) -> datetime:
    """Return the time of a call, in UTC."""
    return datetime.fromtimestamp(call.now_s, timezone.utc)


def _rollouts_page(call: Call) -> Answer:
    fleet = call.services.fleet
    try:
        published, history, drafts = fleet.signed.published(), fleet.signed.history(), fleet.signed.drafts()
    except ConsoleError as error:
        return Html("fleet/rollouts.html", {"problem": str(error)})
    values = {
        "problem": "",
        "published": published,
        "drafts": drafts,
        "history": history,
        "newest": history.rows[:8],
        "pins": published.rollouts.pins if published.rollouts else [],
        "groups": published.rollouts.groups if published.rollouts else [],
        "held": published.rollouts.held if published.rollouts else [],
        "has_keys": fleet.has_keys,
        "can_plan": bool(releases_to_plan(published)),
        **_progress_values(call, published),
    }
    return Html("fleet/rollouts.html", values)


def _progress_part(call: Call) -> Answer:
    published = call.services.fleet.signed.published()
    return Html("fleet/parts/progress.html", _progress_values(call, published))


def _progress_values(call: Call, published: Published) -> dict[str, Any]:
    fleet = call.services.fleet
    known: Known = fleet.known.get() if published.plan else Known()
    return {
        "progress": fleet.progress(published, known, now_of(call)),
        "known": known,
        "revision": _revision(published),
        "controller_lives": fleet.signed.controller_lives(now_of(call)),
        "fleet_given": fleet.reader.is_given,
        "run_command": _run_command(call),
    }


def _run_command(call: Call) -> str:
    import shlex

    settings = call.services.settings
    return shlex.join(
        ["edge-sync", "rollout", "run", str(settings.repository), "--fleet", settings.fleet or "http://HOST:8090"]
    )


def _revision(published: Published) -> int:
    return published.rollouts.revision if published.rollouts else 0


def _new_page(call: Call) -> Answer:
    try:
        published = call.services.fleet.signed.published()
    except ConsoleError as error:
        return Html("fleet/rollouts.html", {"problem": str(error)})
    values = {
        "releases": releases_to_plan(published),
        "back": releases_to_go_back(published),
        "published": published,
        "fields": PlanFields(salt=secrets.token_hex(16)),
    }
    return Html("fleet/new.html", values)


def _plan_part(call: Call) -> Answer:
    fleet, query = call.services.fleet, call.query
    known = fleet.known.get(wait_s=2.0)
    try:
        drafted = preview(fleet, query.filled(), query.salt or "0" * 32, call.user.name, now_of(call), known.rows)
    except ConsoleError as error:
        return Html("fleet/parts/plan.html", {"problem": str(error), "known": known})
    values = {
        "problem": "",
        "words": in_words(drafted.draft, drafted.known),
        "draft": drafted.draft,
        "devices": drafted.known,
        "notes": drafted.notes,
        "known": known,
    }
    return Html("fleet/parts/plan.html", values)


def _draft_page(call: Call) -> Answer:
    fleet = call.services.fleet
    draft = fleet.signed.draft(call.path["plan"])
    known = fleet.known.get(wait_s=1.0)
    published = fleet.signed.published()
    release: Release | None = None
    problem = f"rollout {published.plan.id} is under way; it ends before another begins" if published.plan else ""
    try:
        release = candidate(published, draft.release)
    except SyncError as error:
        problem = problem or str(error)
    values = {
        "draft": draft,
        "release": release,
        "problem": problem,
        "words": in_words(draft, _waves_known(draft, known)),
        "devices": _waves_known(draft, known),
        "known": known,
        "is_approved": draft.digest() in fleet.signed.history().approved,
    }
    return Html("fleet/draft.html", values)


def _waves_known(draft: PlanDraft, known: Known) -> list[int] | None:
    """Return how many known devices each wave of a draft adds; None: nothing is known."""
    if known.rows is None:
        return None
    found = [0] * len(draft.waves)
    for row in known.rows.rows:
        if row.line == draft.line and selects(draft.selector, draft.exclude, labels_of(row)):
            bucket = bucket_of(draft.salt, row.device)
            found[next(i for i, wave in enumerate(draft.waves) if bucket < wave.buckets)] += 1
    return found


def _dialog(call: Call) -> Answer:
    fleet, query = call.services.fleet, call.query
    published = fleet.signed.published()
    known = fleet.known.get(wait_s=2.0)
    values: dict[str, Any] = {
        "do": query.do,
        "revision": _revision(published),
        "has_keys": fleet.has_keys,
        "plan": published.plan,
        "base": published.release,
        "back": releases_to_go_back(published),
        "known": known,
        "select": query.select,
    }
    if query.do == "approve":
        values |= _approve_values(call, query.plan, known)
    elif query.do in ("pin", "unpin"):
        values["devices"] = (
            count_selected(known.rows, published.line, read_selector(query.select, "devices")) if query.select else None
        )
    elif published.plan is None:
        raise ConsoleError("conflict", "no rollout is under way any more; look again")
    else:
        values |= _plan_values(call, published, published.plan, known)
    return Html("fleet/parts/dialog.html", values)


def _approve_values(call: Call, plan_id: str, known: Known) -> dict[str, Any]:
    draft = call.services.fleet.signed.draft(plan_id)
    devices = _waves_known(draft, known)
    is_own = is_same_person(call.user.name, draft.planned_by)
    command = Changer(call.services.fleet, call.user.name, now_of(call)).command(
        "approve", draft.id, "--digest", draft.digest()
    )
    return {"draft": draft, "first": devices[0] if devices else None, "is_own": is_own, "command": command}


def _plan_values(call: Call, published: Published, plan: Plan, known: Known) -> dict[str, Any]:
    shown = call.services.fleet.progress(published, known, now_of(call))
    if shown is None:
        return {}
    waiting = None
    if shown.counts is not None:
        waiting = sum(wave.devices or 0 for wave in shown.waves) - shown.counts.confirmed
    following = shown.waves[plan.open_waves].devices if plan.open_waves < len(shown.waves) else None
    return {"progress": shown, "waiting": waiting, "following": following}


def _selected_part(call: Call) -> Answer:
    known = call.services.fleet.known.get(wait_s=2.0)
    problem, devices = "", None
    try:
        selector = read_selector(call.query.select, "devices")
        devices = count_selected(known.rows, call.services.fleet.signed.published().line, selector)
    except ConsoleError as error:
        problem = str(error)
    return Html("fleet/parts/selected.html", {"devices": devices, "problem": problem, "is_all": not call.query.select})


def _history_page(call: Call) -> Answer:
    history = call.services.fleet.signed.history()
    before = call.query.before
    rows = [one for one in history.rows if before is None or one.number < before]
    older = rows[_HISTORY - 1].number if len(rows) > _HISTORY else None
    return Html("fleet/history.html", {"rows": rows[:_HISTORY], "problems": history.problems, "older": older})


ROUTES = (
    page("/fleet/rollouts", "viewer", _rollouts_page),
    page("/fleet/rollouts/new", "operator", _new_page),
    page("/fleet/rollouts/history", "viewer", _history_page, HistoryQuery),
    page("/fleet/rollouts/plans/{plan}", "viewer", _draft_page),
    page("/parts/fleet/progress", "viewer", _progress_part),
    page("/parts/fleet/plan", "operator", _plan_part, PlanFields),
    page("/parts/fleet/dialog", "operator", _dialog, DialogQuery),
    page("/parts/fleet/selected", "operator", _selected_part, SelectedQuery),
)
