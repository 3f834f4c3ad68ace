"""The progress of background tasks: a part of pages that reads itself again, and the API."""

from __future__ import annotations

from pydantic import BaseModel

from console.background.tasks import Task
from console.web.routing import Answer, Call, Html, Values, api, page
from edge.errors import ConsoleError


class KeyQuery(BaseModel):
    """Which task."""

    key: str


class TaskValue(BaseModel):
    """A background task."""

    key: str
    name: str
    state: str
    done: int
    total: int
    result: str


def _part(call: Call) -> Answer:
    return Html("parts/task.html", {"task": call.services.tasks.find(call.query.key)})


def _task(call: Call) -> Answer:
    return Values(_value(_found(call)))


def _stop(call: Call) -> Answer:
    task = _found(call)
    call.services.tasks.stop(task.key)
    return Values({}, says=f"{task.name}: stopping")


def _found(call: Call) -> Task:
    task = call.services.tasks.find((call.query or call.body).key)
    if task is None:
        raise ConsoleError("not_found", "there is no such task; tasks are forgotten when the console restarts")
    return task


def _value(task: Task) -> TaskValue:
    return TaskValue(key=task.key, name=task.name, state=task.state, done=task.done, total=task.total, result=task.says)


ROUTES = (
    page("/parts/task", "viewer", _part, KeyQuery),
    api("GET", "/tasks", "viewer", _task, "The progress of a background task", query=KeyQuery, answer=TaskValue),
    api("POST", "/tasks/stop", "labeller", _stop, "Stop a background task", body=KeyQuery),
)
