"""The page that exchanges boxes and identities of a set with other tools, and its API."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from console.access import audit
from console.exchange.archives import MAX_FILE_BYTES
from console.exchange.exports import FORMS, TYPES, Form, Names, export_set, find_export, write_export
from console.exchange.imports import find_import, forget_import, read_import, receive, take_import
from console.exchange.plans import Wishes
from console.sets.sets import find_set
from console.web.routing import Answer, Call, Download, Html, Route, Values, api, page
from edge.errors import ConsoleError

_WAIT_S = 3.0  # for a task that may be short, before the page shows its progress
_UPLOAD_BYTES = 2 * MAX_FILE_BYTES
_ROWS = 200  # of a preview
_LINES = 30  # of each list of a preview
_ImportId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class PageQuery(BaseModel):
    """Which import the page shows."""

    model_config = ConfigDict(extra="ignore")
    plan: _ImportId | None = Field(default=None, alias="import")
    export: _ImportId | None = None


class ExportQuery(BaseModel):
    """The format, and what the names of boxes say."""

    model_config = ConfigDict(extra="forbid")
    form: Form
    names: Names = "class"


class UploadBody(BaseModel):
    """How the file is understood."""

    model_config = ConfigDict(extra="forbid")
    names: Names = "class"
    checked: bool = Field(default=False, description="a person checked the boxes that models drew")
    empty: bool = Field(default=False, description="a picture without a box shows no object")
    replace: bool = Field(default=False, description="boxes that were confirmed here are replaced, too")


class ImportBody(BaseModel):
    """Which import."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    id: _ImportId


class ImportValue(BaseModel):
    """An import that was received."""

    id: str


class PlanValue(BaseModel):
    """What an import would change; null while it is read."""

    counts: dict[str, int] | None
    not_found: list[str]
    left_out: list[str]


class DoneValue(BaseModel):
    """The state of a task after a short wait."""

    state: str


def _page(call: Call) -> Answer:
    set_id, import_id = call.path["set_id"], call.query.plan
    with call.services.database.read() as rows:
        values: dict[str, Any] = {"set": find_set(rows, set_id)}
    key = _task_key(import_id) if import_id else _export_key(call.query.export or "")
    task = call.services.tasks.find(key)
    found = None
    if import_id and (task is None or task.state != "running"):
        try:
            found = find_import(call.services.settings, set_id, import_id)
        except ConsoleError:
            if task is None:
                raise
    if found is not None:
        values |= {"rows": found.plan.changes[:_ROWS], "counts": found.plan.count(), "lines": _LINES}
    values |= {"export_id": call.query.export if task and task.state == "done" else None}
    values |= {"found": found, "task": task, "forms": FORMS, "may_edit": call.user.may("labeller")}
    return Html("exchange/set.html", values | {"most_mb": MAX_FILE_BYTES >> 20})


def _export(call: Call) -> Answer:
    with call.services.database.read() as rows:
        made = export_set(rows, call.path["set_id"], call.query.form, call.query.names)
    return Download(made.name, made.media_type, made.data)


def _start_export(call: Call) -> Answer:
    set_id, services, body = call.path["set_id"], call.services, call.body
    with services.database.read() as rows:
        name = find_set(rows, set_id).name
    export_id = secrets.token_hex(8)
    arguments = (services.database, services.settings, call.now_s, set_id, export_id, body.form, body.names)
    services.tasks.start(_export_key(export_id), f"Exporting {name}", lambda _: write_export(*arguments))
    task = services.tasks.wait(_export_key(export_id), _WAIT_S)
    if task is not None and task.state == "failed":
        raise ConsoleError("invalid", task.says)
    with services.database.write() as connection:
        audit.record(connection, call.now_s, call.user.name, "boxes.export", f"set {set_id}", form=body.form)
    is_done = task is not None and task.state == "done"
    file, progress = f"/api/v1/exchange/{set_id}/exports?id={export_id}", f"/exchange/{set_id}?export={export_id}"
    return Values(ImportValue(id=export_id), go=file if is_done else progress)


def _exported(call: Call) -> Answer:
    path = find_export(call.services.settings, call.path["set_id"], call.query.id)
    return Download(path.name, TYPES[path.suffix], path)


def _upload(call: Call) -> Answer:
    set_id, services, body = call.path["set_id"], call.services, call.body
    with services.database.read() as rows:
        name = find_set(rows, set_id).name
    files = [one for one in call.files if one.size]
    if len(files) != 1:
        raise ConsoleError("invalid", f"found {len(files)} files, expected one; zip several XML files")
    import_id = receive(services.settings, call.now_s, files[0].path)
    wishes = Wishes(body.names, body.checked, body.empty, body.replace)
    arguments = (services.database, services.settings, call.now_s, call.user.name, set_id, import_id, files[0].name)
    services.tasks.start(_task_key(import_id), f"Reading boxes for {name}", lambda _: read_import(*arguments, wishes))
    task = services.tasks.wait(_task_key(import_id), _WAIT_S)
    if task is not None and task.state == "failed":
        forget_import(services.settings, import_id)
        raise ConsoleError("invalid", task.says)
    with services.database.write() as connection:
        audit.record(connection, call.now_s, call.user.name, "boxes.upload", f"set {set_id}", id=import_id)
    return Values(ImportValue(id=import_id), go=f"/exchange/{set_id}?import={import_id}")


def _plan(call: Call) -> Answer:
    found = find_import(call.services.settings, call.path["set_id"], call.query.id)
    plan = found and found.plan
    return Values(
        PlanValue(
            counts=plan.count() if plan else None,
            not_found=plan.not_found[:_ROWS] if plan else [],
            left_out=plan.left_out[:_ROWS] if plan else [],
        )
    )


def _take(call: Call) -> Answer:
    set_id, services, import_id = call.path["set_id"], call.services, call.body.id
    found = find_import(services.settings, set_id, import_id)
    if found is None:
        raise ConsoleError("conflict", "this file is not read yet; wait until it is")
    key = _task_key(import_id)
    work = partial(take_import, services.database, services.settings, call.now_s, call.user.name, found)
    services.tasks.start(key, f"Taking boxes of {found.file}", work)
    task = services.tasks.wait(key, _WAIT_S)
    state = task.state if task else "done"
    if task is not None and task.state == "failed":
        raise ConsoleError("invalid", task.says)
    if state == "running":
        return Values(DoneValue(state=state), go=f"/exchange/{set_id}?import={import_id}")
    return Values(DoneValue(state=state), says=task.says if task else "", go=f"/boxes/{set_id}")


def _forget(call: Call) -> Answer:
    set_id, import_id = call.path["set_id"], call.body.id
    find_import(call.services.settings, set_id, import_id)
    forget_import(call.services.settings, import_id)
    with call.services.database.write() as connection:
        audit.record(connection, call.now_s, call.user.name, "boxes.forget-import", f"set {set_id}", id=import_id)
    return Values(DoneValue(state="forgotten"), says="Nothing was changed", go=f"/exchange/{set_id}")


def _task_key(import_id: str) -> str:
    return f"import/{import_id}"


def _export_key(export_id: str) -> str:
    return f"export/{export_id}"


ROUTES: tuple[Route, ...] = (
    page("/exchange/{set_id:int}", "viewer", _page, PageQuery),
    api(
        "GET", "/exchange/{set_id:int}/export", "viewer", _export, "The boxes of a set in a tool's format",
        query=ExportQuery,
    ),
    api(
        "POST", "/exchange/{set_id:int}/exports", "viewer", _start_export, "Write the boxes of a set to a file",
        body=ExportQuery, answer=ImportValue,
    ),
    api(
        "GET", "/exchange/{set_id:int}/exports", "viewer", _exported, "A file that was written", query=ImportBody,
    ),
    api(
        "POST", "/exchange/{set_id:int}/imports", "labeller", _upload, "Read a file of boxes; nothing is changed yet",
        body=UploadBody, answer=ImportValue, upload_bytes=_UPLOAD_BYTES,
    ),
    api(
        "GET", "/exchange/{set_id:int}/imports", "viewer", _plan, "What an import would change",
        query=ImportBody, answer=PlanValue,
    ),
    api(
        "POST", "/exchange/{set_id:int}/imports/take", "labeller", _take, "Change a set as an import planned",
        body=ImportBody, answer=DoneValue,
    ),
    api(
        "POST", "/exchange/{set_id:int}/imports/forget", "labeller", _forget, "Delete an import that nobody wants",
        body=ImportBody, answer=DoneValue,
    ),
)  # fmt: skip
