"""The start page: what waits for people, what runs, and what to do first.

Each section is read by itself: one that cannot be read says so, and the others are shown.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from console.fleet.devices import Summary, read_summary
from console.fleet.progress import Progress
from console.pages.fleet.rollouts import now_of
from console.sets.sets import SetCounts, list_sets
from console.training.job import Job
from console.web.routing import Answer, Call, Html, page
from edge.errors import FinesightError

log = logging.getLogger(__name__)

_MOST_SETS, _MOST_JOBS = 6, 30
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class _Drafts:
    """Changes of galleries that nobody has published yet."""

    open: int = 0
    waiting: int = 0  # for signatures


def _overview(call: Call) -> Answer:
    sets, problem = _section(lambda: _sets(call))
    drafts, drafts_problem = _section(lambda: _drafts(call))
    found = sets or []
    to_name = sorted((one for one in found if one.open), key=lambda one: -one.open)
    to_box = sorted((one for one in found if one.to_box), key=lambda one: -one.to_box)
    named = sum(one.decided for one in found)
    values = {
        "problems": [one for one in (problem, drafts_problem) if one],
        "sets": found,
        "is_first": not problem and not named,
        "to_name": to_name[:_MOST_SETS],
        "names": sum(one.open for one in to_name),
        "to_box": to_box[:_MOST_SETS],
        "boxes": sum(one.to_box for one in to_box),
        "drafts": drafts or _Drafts(),
        "shows_fleet": call.services.fleet.reader.is_given or call.services.fleet.signed.is_given,
        **_running_values(call),
    }
    return Html("overview.html", values)


def _sets(call: Call) -> list[SetCounts]:
    with call.services.database.read() as rows:
        return list_sets(rows)


def _drafts(call: Call) -> _Drafts:
    with call.services.database.read() as rows:
        counted = "SELECT state, count(*) FROM gallery_drafts WHERE state IN ('open', 'waiting') GROUP BY state"
        try:
            return _Drafts(**dict(tuple(row) for row in rows.execute(counted)))
        except sqlite3.OperationalError:  # an older file, without the tables of galleries
            return _Drafts()


def _running_part(call: Call) -> Answer:
    return Html("fleet/parts/running.html", _running_values(call))


def _running_values(call: Call) -> dict[str, Any]:
    tasks = [one for one in call.services.tasks.listed() if one.state == "running"]
    jobs, problem = _section(lambda: _jobs(call))
    return {"tasks": tasks, "jobs": jobs or [], "jobs_problem": problem}


def _jobs(call: Call) -> list[Job]:
    found: list[Job] = call.services.jobs.listed(_MOST_JOBS)
    return [one for one in found if one.state in ("running", "queued")]


def _fleet_part(call: Call) -> Answer:
    """Answer what the fleet needs; in a request of its own, so that a dead fleet server holds up no other section."""
    fleet = call.services.fleet
    summary: Summary | None = None
    shown: Progress | None = None
    problem, rollout_problem, plans = "", "", 0
    if fleet.reader.is_given:
        summary, problem = _section(lambda: read_summary(fleet.reader))
    if fleet.signed.is_given:
        published, rollout_problem = _section(fleet.signed.published)
        if published is not None:
            shown = fleet.progress(published, fleet.known.get(), now_of(call))
            plans = len(_section(fleet.signed.drafts)[0] or ())
    values = {
        "summary": summary,
        "problem": problem,
        "progress": shown,
        "rollout_problem": rollout_problem,
        "plans": plans,
    }
    return Html("fleet/parts/overview.html", values)


def _section(read: Callable[[], _Found]) -> tuple[_Found | None, str]:
    """Return what a section shows, or why it cannot: the other sections do not depend on it."""
    try:
        return read(), ""
    except FinesightError as error:
        return None, str(error)
    except Exception:
        log.exception("a section of the overview cannot be read")
        return None, "a part of this page cannot be read; the console's log says why"


ROUTES = (
    page("/", "viewer", _overview),
    page("/parts/running", "viewer", _running_part),
    page("/parts/overview/fleet", "viewer", _fleet_part),
)
