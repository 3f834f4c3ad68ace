"""Pages of boxes: the sets that wait for some, and the editor."""

from __future__ import annotations

import sqlite3
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from console.boxes.box_queue import count_boxes, next_waiting, waiting_sets
from console.boxes.bundle_proposals import task_key
from console.boxes.editing import categories_of
from console.boxes.label_jobs import LEAST_CONFIRMED, RECIPES, live_job
from console.boxes.proposing import last_rounds
from console.pages.boxes.actions import ACTIONS
from console.sets.pictures import find_picture
from console.sets.sets import find_set
from console.training.learning import missing_trainer
from console.web.routing import Answer, Call, Html, Route, page
from edge.errors import ConsoleError

_SHOWN = 4  # first pictures of a set


class PictureQuery(BaseModel):
    """Which picture."""

    model_config = ConfigDict(extra="ignore")
    picture: Annotated[int | None, Field(ge=1, lt=2**53)] = None


def _sets(call: Call) -> Answer:
    with call.services.database.read() as rows:
        return Html("boxes/sets.html", {"sets": waiting_sets(rows, _SHOWN)})


def _editor(call: Call) -> Answer:
    set_id = call.path["set_id"]
    with call.services.database.read() as rows:
        one = find_set(rows, set_id)
        picture_id = call.query.picture or next_waiting(rows, set_id)
        if picture_id is not None and find_picture(rows, picture_id).set_id != set_id:
            raise ConsoleError("not_found", "this picture belongs to another set")
        values = {
            "set": one,
            "picture_id": picture_id,
            "counts": count_boxes(rows, set_id),
            "categories": categories_of(rows, set_id),
            "last_confirmed": _last_confirmed(rows, set_id),
        }
    services = call.services
    proposing = {"choices": services.models.choices(), "install": missing_trainer()}
    return Html("boxes/editor.html", values | _work_values(call, set_id) | proposing)


def _work(call: Call) -> Answer:
    """Answer the part of the editor that tells of proposals and training; it reads itself again."""
    set_id = call.path["set_id"]
    with call.services.database.read() as rows:
        values = {"set": find_set(rows, set_id), "counts": count_boxes(rows, set_id)}
    return Html("boxes/work.html", values | _work_values(call, set_id))


def _work_values(call: Call, set_id: int) -> dict[str, object]:
    with call.services.database.read() as rows:
        rounds = last_rounds(rows, set_id, 3)
    return {
        "rounds": rounds,
        "job": live_job(call.services.jobs, set_id),
        "task": call.services.tasks.find(task_key(set_id)),
        "least": LEAST_CONFIRMED,
        "recipes": RECIPES,
        "may_edit": call.user.may("labeller"),
        "may_train": call.user.may("operator"),
    }


def _last_confirmed(rows: sqlite3.Connection, set_id: int) -> int | None:
    query = "SELECT id FROM pictures WHERE set_id = ? AND boxes = 'confirmed' ORDER BY uncertainty DESC, id LIMIT 1"
    found = rows.execute(query, (set_id,)).fetchone()
    return found and int(found[0])


ROUTES: tuple[Route, ...] = (
    page("/boxes", "viewer", _sets),
    page("/boxes/{set_id:int}", "viewer", _editor, PictureQuery),
    page("/parts/boxes/{set_id:int}", "viewer", _work),
    *ACTIONS,
)
