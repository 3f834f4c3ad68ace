"""Sets of pictures: their pages, and the images that all pages show."""

from __future__ import annotations

from console.pages.sets.actions import ACTIONS, keeper
from console.pages.sets.values import ImageQuery, PageQuery
from console.sets.browsing import (
    count_boxes,
    count_items,
    count_splits,
    find_problem,
    list_problems,
    neighbours,
    notes_of,
    read_page,
)
from console.sets.crops import crops_of, find_crop
from console.sets.images import crop_jpeg, picture_jpeg
from console.sets.keeping import look_key
from console.sets.pictures import Picture, find_picture, note_problem
from console.sets.sets import count_set, find_set, list_sets
from console.web.routing import Answer, Bytes, Call, Html, Route, api, page
from edge.errors import ConsoleError, PictureError

_KEEP_S = 86400  # an address with `v` names pixels that never change
_KEEP_UNVERSIONED_S = 60


def _sets(call: Call) -> Answer:
    with call.services.database.read() as rows:
        sets = list_sets(rows)
    settings = call.services.settings
    return Html("sets/sets.html", {"sets": sets, "folders": [str(one) for one in settings.folders]})


def _set(call: Call) -> Answer:
    query, services = call.query, call.services
    with services.database.read() as rows:
        picture_set = find_set(rows, call.path["id"])
    keeper(call).look_on_opening(picture_set)
    split = "" if query.split == "none" else query.split
    is_list = query.which == "problems"
    with services.database.read() as rows:
        values = {
            "counts": count_set(rows, picture_set),
            "filters": count_boxes(rows, picture_set.id),
            "splits": count_splits(rows, picture_set.id),
            "problems": list_problems(rows, picture_set.id) if is_list else [],
            "notes": notes_of(rows, picture_set.id),
            "shown": None
            if is_list
            else read_page(rows, picture_set, query.which, split, after=query.after, before=query.before),
        }
    task = services.tasks.find(look_key(picture_set.id))
    owned = keeper(call).store.owns(picture_set.folder)
    return Html("sets/set.html", {**values, "set": picture_set, "query": query, "task": task, "is_ours": owned})


def _items(call: Call) -> Answer:
    with call.services.database.read() as rows:
        items, item_count = count_items(rows, find_set(rows, call.path["id"]).id)
    return Html("sets/items.html", {"items": items, "item_count": item_count})


def _picture(call: Call) -> Answer:
    with call.services.database.read() as rows:
        picture_set, picture = find_set(rows, call.path["id"]), find_picture(rows, call.path["picture"])
        if picture.set_id != picture_set.id:
            raise ConsoleError("not_found", f"the set {picture_set.name!r} has no picture {picture.id}")
        crops, problem = crops_of(rows, picture.id), find_problem(rows, picture)
        before, after = neighbours(rows, picture)
    values = {
        "set": picture_set, "picture": picture, "crops": crops, "problem": problem, "before": before, "after": after,
        "is_ours": keeper(call).store.owns(picture_set.folder),
    }  # fmt: skip
    return Html("sets/picture.html", values)


def _picture_image(call: Call) -> Answer:
    with call.services.database.read() as rows:
        picture = find_picture(rows, call.path["id"])
    try:
        return _jpeg(call, picture_jpeg(call.services.settings, picture, call.query.px))
    except PictureError as error:
        _note(call, picture, error)
        raise


def _crop_image(call: Call) -> Answer:
    with call.services.database.read() as rows:
        crop = find_crop(rows, call.path["id"])
        picture = find_picture(rows, crop.picture_id)
    margin = round(call.query.margin, 2)
    try:
        return _jpeg(call, crop_jpeg(call.services.settings, picture, crop.box_px, call.query.px, margin))
    except PictureError as error:
        _note(call, picture, error)
        raise


def _jpeg(call: Call, data: bytes) -> Answer:
    return Bytes(data, "image/jpeg", _KEEP_S if call.query.v else _KEEP_UNVERSIONED_S)


def _note(call: Call, picture: Picture, error: PictureError) -> None:
    """Remember that a file cannot be shown, once."""
    with call.services.database.read() as rows:
        if find_problem(rows, picture):
            return
    with call.services.database.write() as connection:
        find_picture(connection, picture.id)  # deleted meanwhile
        note_problem(connection, call.now_s, picture.set_id, picture.name, str(error), picture.id)


ROUTES: tuple[Route, ...] = (
    page("/sets", "viewer", _sets),
    page("/sets/{id:int}", "viewer", _set, PageQuery),
    page("/parts/sets/{id:int}/items", "viewer", _items),
    page("/sets/{id:int}/pictures/{picture:int}", "viewer", _picture),
    *ACTIONS,
    api(
        "GET",
        "/pictures/{id:int}/image",
        "viewer",
        _picture_image,
        "A picture as JPEG",
        query=ImageQuery,
        media="image/jpeg",
    ),
    api("GET", "/crops/{id:int}/image", "viewer", _crop_image, "A crop as JPEG", query=ImageQuery, media="image/jpeg"),
)
