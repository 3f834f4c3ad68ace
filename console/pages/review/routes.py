"""Pages of the identity review: the sets, the crops of a set, and the log of its decisions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from console.pages.review import actions
from console.review.handover import count_waiting
from console.review.log import PAGE, read_log
from console.review.queue import Progress, read_progress
from console.sets.sets import find_set, list_sets
from console.web.routing import Answer, Call, Html, page

_KINDS = {
    "uploads": "uploaded pictures", "folder": "a folder", "inbox": "what devices did not know",
    "taught": "things taught at a kiosk", "evaluation": "wrong answers of an evaluation",
}  # fmt: skip


class ReviewQuery(BaseModel):
    """Where a review begins, and what it shows."""

    crop: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    state: Literal["open", "item", "unknown", "nothing", "all"] = "open"
    category: Annotated[str, Field(max_length=1024)] = ""
    item: Annotated[str, Field(max_length=1024)] = ""
    text: Annotated[str, Field(max_length=200)] = ""
    order: Literal["doubt", "sure", "picture"] = "doubt"


class LogQuery(BaseModel):
    """Where a page of the log begins."""

    before: Annotated[int, Field(ge=0, lt=2**53)] | None = None


def _sets(call: Call) -> Answer:
    with call.services.database.read() as rows:
        sets = [(one.set, _KINDS[one.set.kind], one.crops, one.open) for one in list_sets(rows)]
    return Html(
        "review/sets.html",
        {
            "open_sets": [one for one in sets if one[3]],
            "done_sets": [one for one in sets if one[2] and not one[3]],
            "has_sets": bool(sets),
        },
    )


def _review(call: Call) -> Answer:
    set_id = call.path["set_id"]
    with call.services.database.read() as rows:
        about = find_set(rows, set_id)
        progress: Progress = read_progress(rows, set_id)
        waiting, items = count_waiting(rows, set_id)
    return Html(
        "review/set.html",
        {
            "set": about, "kind": _KINDS[about.kind], "progress": progress, "waiting": waiting, "items": items,
            "query": call.query, "task": call.services.tasks.find(f"propose/{set_id}"),
            "may_decide": call.user.may("labeller"), "may_send": call.user.may("operator"),
        },
    )  # fmt: skip


def _log(call: Call) -> Answer:
    with call.services.database.read() as rows:
        about = find_set(rows, call.path["set_id"])
        found = read_log(rows, about.id, call.query.before, PAGE + 1)
    more = found[PAGE - 1].id if len(found) > PAGE else None
    return Html(
        "review/log.html",
        {"set": about, "rows": found[:PAGE], "more": more, "may_undo": call.user.may("labeller"),
         "is_first": call.query.before is None},
    )  # fmt: skip


ROUTES = (
    page("/review", "viewer", _sets),
    page("/review/{set_id:int}", "viewer", _review, ReviewQuery),
    page("/review/{set_id:int}/log", "viewer", _log, LogQuery),
    *actions.ROUTES,
)
