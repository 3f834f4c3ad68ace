"""Galleries: what people do with them. Each change is a draft; publishing makes a signed release of drafts."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from console.galleries.drafts import add_pictures, find
from console.galleries.publishing import Order, check_order, reopen
from console.galleries.workbench import Edit, propose, propose_files, take_back, undo_published
from console.pages.gallery.tasks import keep_embedded, read_again, start_publishing
from console.pages.gallery.values import (
    AddBody,
    CropsBody,
    DeleteBody,
    MadeValue,
    MergeBody,
    MetadataBody,
    NegativeBody,
    PublishBody,
    RemoveBody,
    RenameBody,
    RestoreBody,
    SplitBody,
    VectorName,
)
from console.web.routing import Answer, Call, Values, api
from edge.errors import CaptureError, ConsoleError
from edge.gallery.limits import parse_metadata

_UPLOAD_BYTES = 400_000_000
_MOST_FILES = 200
_NAMES = TypeAdapter(list[VectorName])


def _rename(call: Call) -> Answer:
    body = call.body
    return _propose(call, Edit("rename", body.category, body.item, {"label": body.label}, None, body.seen))


def _metadata(call: Call) -> Answer:
    body = call.body
    metadata = _parsed(body.metadata)
    return _propose(call, Edit("metadata", body.category, body.item, {"metadata": metadata}, None, body.seen))


def _negative(call: Call) -> Answer:
    body = call.body
    return _propose(call, Edit("negative", body.category, body.item, {"negative": body.negative}, None, body.seen))


def _merge(call: Call) -> Answer:
    body = call.body
    return _propose(call, Edit("merge", body.category, body.item, {}, body.target, body.seen))


def _split(call: Call) -> Answer:
    body = call.body
    arguments: dict[str, Any] = {"label": body.label, "vectors": _names(body.vectors)}
    if body.thumbnail is not None:
        arguments["thumbnail"] = body.thumbnail
    return _propose(call, Edit("split", body.category, body.item, arguments, body.new_item, body.seen))


def _remove(call: Call) -> Answer:
    body = call.body
    return _propose(call, Edit("remove", body.category, body.item, {"vectors": _names(body.vectors)}, None, body.seen))


def _delete(call: Call) -> Answer:
    body = call.body
    return _propose(call, Edit("delete", body.category, body.item, {"urgent": body.urgent}, None, body.seen))


def _restore(call: Call) -> Answer:
    body = call.body
    arguments = {"gallery": body.gallery, "release": body.release}
    return _propose(call, Edit("restore", body.category, body.item, arguments))


def _add(call: Call) -> Answer:
    body = call.body
    if len(call.files) > _MOST_FILES:
        raise ConsoleError("too_large", f"found {len(call.files)} files, expected {_MOST_FILES} at most")
    arguments: dict[str, Any] = {"label": body.label or body.item}
    if body.metadata.strip():
        arguments["metadata"] = _parsed(body.metadata)
    if body.negative:
        arguments["negative"] = True
    files = [(one.name, one.path) for one in call.files if one.size]
    edit = Edit("add", body.category, body.item, arguments)
    try:
        draft_id = propose_files(
            call.services.database, call.services.gallery, call.now_s, call.user.name, edit, files
        )  # fmt: skip
    except CaptureError as error:
        raise ConsoleError("invalid", str(error)) from error
    return _embedding(call, draft_id)


def _add_crops(call: Call) -> Answer:
    body = call.body
    call.services.gallery.see()
    with call.services.database.write() as connection:
        draft_id = add_pictures(
            connection, call.now_s, call.user.name, body.category, body.item, body.label or body.item, body.crops
        )
    return _embedding(call, draft_id)


def _embedding(call: Call, draft_id: int) -> Answer:
    keep_embedded(call, call.services.gallery.see())
    with call.services.database.read() as rows:
        draft = find(rows, draft_id)
    count = f"{draft.pictures} picture{'s' if draft.pictures != 1 else ''}"
    says = f"{count} for {draft.item!r} wait to be published"
    return Values(MadeValue(drafts=[draft_id], does=says), says=says, go="/gallery/-/changes")


def _take_back(call: Call) -> Answer:
    draft = take_back(
        call.services.database, call.services.gallery, call.now_s, call.user.name, call.path["id"]
    )  # fmt: skip
    return Values({}, says=f"taken back: {draft.kind} {draft.item!r}", go=".")


def _undo(call: Call) -> Answer:
    made, says = undo_published(
        call.services.database, call.services.gallery, call.now_s, call.user.name, call.path["id"]
    )  # fmt: skip
    return Values(MadeValue(drafts=made, does=says), says=says, go="/gallery/-/changes")


def _publish(call: Call) -> Answer:
    body = call.body
    order = Order(call.user.name, body.version, tuple(dict.fromkeys(body.drafts)), hold=body.hold)
    check_order(call.services.database, call.services.gallery, order)
    task = start_publishing(call, order)
    return Values({"task": task.key}, says=task.name, go="/gallery/-/changes")


def _reopen(call: Call) -> Answer:
    with call.services.database.write() as connection:
        draft = find(connection, call.path["id"])
        count = reopen(connection, call.now_s, call.user.name, draft.file or "")
    return Values({}, says=f"{count} changes are open again; nothing was published", go=".")


def _refresh(call: Call) -> Answer:
    call.services.gallery.see()
    task = read_again(call)
    return Values({"task": task.key}, says=task.name, go=".")


def _propose(call: Call, edit: Edit) -> Answer:
    draft_id, says = propose(call.services.database, call.services.gallery, call.now_s, call.user.name, edit)
    gone = edit.kind in ("delete", "merge", "split", "remove")
    return Values(MadeValue(drafts=[draft_id], does=says), says=says, go="/gallery/-/changes" if gone else ".")


def _parsed(text: str) -> dict[str, Any]:
    try:
        return parse_metadata(text)
    except ValueError as error:
        raise ConsoleError("invalid", f"the metadata: {error}") from error


def _names(texts: list[str]) -> list[str]:
    """Return the vectors of a form, whose boxes name several each, with spaces between."""
    try:
        names = _NAMES.validate_python([name for text in texts for name in text.split()])
    except ValidationError as error:
        raise ConsoleError("invalid", "a vector is named by 24 hexadecimal digits") from error
    if not names:
        raise ConsoleError("invalid", "choose the vectors first")
    return list(dict.fromkeys(names))


_D = "/gallery/drafts"
ROUTES = (
    api("POST", f"{_D}/rename", "operator", _rename, "Draft another label", body=RenameBody, answer=MadeValue),
    api("POST", f"{_D}/metadata", "operator", _metadata, "Draft other metadata", body=MetadataBody, answer=MadeValue),
    api(
        "POST", f"{_D}/negative", "operator", _negative, "Draft that an item must not be named, or may",
        body=NegativeBody, answer=MadeValue,
    ),
    api("POST", f"{_D}/merge", "operator", _merge, "Draft that two items become one", body=MergeBody, answer=MadeValue),
    api("POST", f"{_D}/split", "operator", _split, "Draft that one becomes two", body=SplitBody, answer=MadeValue),
    api("POST", f"{_D}/remove", "operator", _remove, "Draft fewer vectors", body=RemoveBody, answer=MadeValue),
    api("POST", f"{_D}/delete", "operator", _delete, "Draft a deletion", body=DeleteBody, answer=MadeValue),
    api(
        "POST", f"{_D}/restore", "operator", _restore, "Draft an item as it was before", body=RestoreBody,
        answer=MadeValue,
    ),
    api(
        "POST", f"{_D}/add", "operator", _add, "Draft uploaded pictures of an item", body=AddBody, answer=MadeValue,
        upload_bytes=_UPLOAD_BYTES,
    ),
    api("POST", f"{_D}/add-crops", "operator", _add_crops, "Draft crops of sets", body=CropsBody, answer=MadeValue),
    api("DELETE", f"{_D}/{{id:int}}", "operator", _take_back, "Take back a change that is not published"),
    api("POST", f"{_D}/{{id:int}}/undo", "operator", _undo, "Draft what undoes a published change", answer=MadeValue),
    api("POST", f"{_D}/{{id:int}}/reopen", "operator", _reopen, "Take back a release that waits for signatures"),
    api("POST", "/gallery/publish", "operator", _publish, "Publish changes as a signed release", body=PublishBody),
    api("POST", "/gallery/refresh", "operator", _refresh, "Read the repository again"),
)  # fmt: skip
