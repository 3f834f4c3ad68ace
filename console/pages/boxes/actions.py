"""The API of boxes: read and save those of a picture, propose some, train a round."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from console.access import audit
from console.boxes.box_queue import count_boxes, next_waiting
from console.boxes.bundle_proposals import propose_with_bundle, task_key
from console.boxes.editing import MOST_BOXES, EditedBox, boxes_of, save_boxes
from console.boxes.label_jobs import Training, Wish, start_proposing, start_training
from console.sets.pictures import find_picture
from console.sets.sets import clean_category, find_set
from console.web.routing import Answer, Call, Route, Values, api
from edge.errors import ConsoleError

_Id = Annotated[int, Field(ge=1, lt=2**53)]
_Pixel = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Category = Annotated[str, Field(max_length=200)]


class BoxValue(BaseModel):
    """A box of a picture."""

    id: int
    box_px: tuple[float, float, float, float]
    source: str
    score: float
    category: str | None
    item: str | None
    label: str | None
    decision: str


class PictureValue(BaseModel):
    """A picture with its boxes, and what comes after it."""

    id: int
    set_id: int
    name: str
    sha256: str
    width: int
    height: int
    state: str
    uncertainty: float
    why: str
    version: int
    boxes: list[BoxValue]
    next: int | None  # in the queue
    waiting: int
    confirmed: int


class NewBoxValue(BaseModel):
    """A box as it is to be."""

    model_config = ConfigDict(extra="forbid")
    id: _Id | None = None
    box_px: tuple[_Pixel, _Pixel, _Pixel, _Pixel]
    category: _Category | None = None


class BoxesBody(BaseModel):
    """All boxes of a picture, as a person leaves them; none: there is no object here."""

    model_config = ConfigDict(extra="forbid")
    version: _Id
    boxes: Annotated[list[NewBoxValue], Field(max_length=MOST_BOXES)]


class SavedValue(BaseModel):
    """What saving did, and which picture comes next."""

    version: int
    untouched: int
    moved: int
    added: int
    removed: int
    next: int | None
    waiting: int


class NextQuery(BaseModel):
    """Where the queue goes on."""

    model_config = ConfigDict(extra="forbid")
    after: _Id | None = None


class NextValue(BaseModel):
    """The next picture that waits."""

    next: int | None
    waiting: int


class ProposeBody(BaseModel):
    """What is to be proposed, and by what."""

    model_config = ConfigDict(extra="forbid")
    by: Literal["cues", "bundle"] = "cues"
    choice: Annotated[str, Field(max_length=300)] = ""
    pictures: Annotated[int, Field(ge=1, le=5000)] = 500
    count: Annotated[int | None, Field(ge=1, le=500)] = None
    least: _Share | None = None
    most: _Share | None = None


class TrainBody(BaseModel):
    """How a round is trained."""

    model_config = ConfigDict(extra="forbid")
    recipe: Annotated[str, Field(max_length=100)] = "demo-detector.yaml"
    epochs: Annotated[int | None, Field(ge=1, le=1000)] = None
    weights: bool = False
    pictures: Annotated[int, Field(ge=1, le=5000)] = 500
    count: Annotated[int | None, Field(ge=1, le=500)] = None


class StartedValue(BaseModel):
    """What was started."""

    job: int | None = None
    task: str | None = None


def _picture(call: Call) -> Answer:
    with call.services.database.read() as rows:
        one = find_picture(rows, call.path["id"])
        counts = count_boxes(rows, one.set_id)
        boxes = [BoxValue(**asdict(box)) for box in boxes_of(rows, one.id)]
        following = next_waiting(rows, one.set_id, one.id)
    return Values(
        PictureValue(
            id=one.id, set_id=one.set_id, name=one.name, sha256=one.sha256, width=one.width, height=one.height,
            state=one.boxes, uncertainty=one.uncertainty, why=one.why, version=one.version, boxes=boxes,
            next=following, waiting=counts.waiting, confirmed=counts.confirmed,
        )
    )  # fmt: skip


def _save(call: Call) -> Answer:
    body: BoxesBody = call.body
    boxes = [EditedBox(one.id, one.box_px, clean_category(one.category)) for one in body.boxes]
    with call.services.database.write() as connection:
        set_id = find_picture(connection, call.path["id"]).set_id
        following = next_waiting(connection, set_id, call.path["id"])
        saved = save_boxes(connection, call.now_s, call.user.name, call.path["id"], body.version, boxes)
        waiting = count_boxes(connection, set_id).waiting
    return Values(SavedValue(**asdict(saved), next=following, waiting=waiting))


def _next(call: Call) -> Answer:
    with call.services.database.read() as rows:
        set_id = find_set(rows, call.path["set_id"]).id
        value = NextValue(next=next_waiting(rows, set_id, call.query.after), waiting=count_boxes(rows, set_id).waiting)
    return Values(value)


def _propose(call: Call) -> Answer:
    body: ProposeBody = call.body
    services, set_id = call.services, call.path["set_id"]
    if body.least is not None and body.most is not None and body.least >= body.most:
        raise ConsoleError("invalid", "the smallest share of the picture must be below the largest")
    with services.database.read() as rows:
        name = find_set(rows, set_id).name
    if body.by == "cues":
        wish = Wish(body.pictures, body.count, body.least, body.most)
        job = start_proposing(services.jobs, services.database, services.settings, call.user.name, set_id, wish)
        _record(call, "boxes.propose", set_id, job=job.id)
        return Values(StartedValue(job=job.id), says=f"{job.name}: {job.state}", go=".")
    choice = services.models.choice(body.choice).id
    work = partial(propose_with_bundle, services.database, services.models, call.now_s, set_id, choice, body.pictures)
    task = services.tasks.start(task_key(set_id), f"Proposing boxes for {name}", work)
    _record(call, "boxes.propose", set_id, choice=choice)
    return Values(StartedValue(task=task.key), says="Proposing boxes", go=".")


def _train(call: Call) -> Answer:
    body: TrainBody = call.body
    services, set_id = call.services, call.path["set_id"]
    training = Training(body.recipe, body.epochs, body.weights)
    wish = Wish(body.pictures, body.count)
    job = start_training(services.jobs, services.database, services.settings, call.user.name, set_id, training, wish)
    _record(call, "boxes.train", set_id, job=job.id)
    return Values(StartedValue(job=job.id), says=f"{job.name}: {job.state}", go=".")


def _record(call: Call, action: str, set_id: int, **details: object) -> None:
    with call.services.database.write() as connection:
        audit.record(connection, call.now_s, call.user.name, action, f"set {set_id}", **details)


ACTIONS: tuple[Route, ...] = (
    api("GET", "/boxes/pictures/{id:int}", "viewer", _picture, "A picture with its boxes", answer=PictureValue),
    api(
        "PUT", "/boxes/pictures/{id:int}", "labeller", _save, "Confirm the boxes of a picture",
        body=BoxesBody, answer=SavedValue,
    ),
    api(
        "GET", "/boxes/{set_id:int}/next", "viewer", _next, "The next picture that waits for boxes",
        query=NextQuery, answer=NextValue,
    ),
    api(
        "POST", "/boxes/{set_id:int}/propose", "labeller", _propose, "Propose boxes for pictures that wait",
        body=ProposeBody, answer=StartedValue,
    ),
    api(
        "POST", "/boxes/{set_id:int}/train", "operator", _train, "Train a detector on confirmed pictures",
        body=TrainBody, answer=StartedValue,
    ),
)  # fmt: skip
