"""Pages of the search, and its API: look up a picture, find an object in a scene, teach what was found."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from console.pages.search.values import SceneValue, SearchValue, TaughtValue, scene_value, search_value
from console.search.scene import find_in_scene, has_finder
from console.search.search import read_upload, search
from console.search.teach import keep_picture, teach
from console.sets.reading import MAX_PICTURE_BYTES, read_file
from console.web.routing import Answer, Call, Html, Route, UploadedFile, Values, api, page
from edge.errors import ConsoleError, FinesightError
from edge.imaging import image
from edge.telemetry.timing import Timings
from edge.types import Image

_FORM_BYTES = 100_000  # of the fields of a form, and what surrounds the files
_PREVIEW_PX = 1600

ChoiceId = Annotated[str, Field(max_length=300, description="of /api/v1/models; empty: the first one")]
_Side = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]


class SearchQuery(BaseModel):
    """What to begin with."""

    choice: ChoiceId = ""
    framing: Literal["whole", "detect", ""] = ""


class SearchForm(BaseModel):
    """Fields beside the picture."""

    model_config = ConfigDict(extra="forbid")

    choice: ChoiceId = ""
    framing: Annotated[Literal["whole", "detect"], Field(description="one object fills the picture; or find them")] = (
        "whole"
    )
    preview: Annotated[bool, Field(description="also return the picture as JPEG, for browsers that cannot show it")] = (
        False
    )


class SceneForm(BaseModel):
    """Fields beside the two pictures, first the query, then the scene."""

    model_config = ConfigDict(extra="forbid")

    choice: ChoiceId = ""
    way: Annotated[Literal["finder", "similarity"] | None, Field(description="none: the finder, if there is one")] = (
        None
    )


class TeachForm(BaseModel):
    """An object of the picture."""

    model_config = ConfigDict(extra="forbid")

    x0: _Side
    y0: _Side
    x1: _Side
    y1: _Side
    category: Annotated[str | None, Field(max_length=200, pattern=r"^[^\x00-\x1f]*$")] = None


def _page(call: Call) -> Answer:
    return Html("search/search.html", _page_values(call))


def _scene_page(call: Call) -> Answer:
    return Html("search/scene.html", _page_values(call))


def _page_values(call: Call) -> dict[str, object]:
    """Return what both pages show; a pair that cannot be read is chosen nevertheless, and the search says why."""
    query: SearchQuery = call.query
    choices = call.services.models.choices()
    chosen = query.choice if any(one.id == query.choice for one in choices) else ""
    return {
        "choices": choices,
        "chosen": chosen or (choices[0].id if choices else ""),
        "framing": query.framing or "whole",
        "may_teach": call.user.may("labeller"),
    }


def _search(call: Call) -> Answer:
    form: SearchForm = call.body
    (file,) = _files(call, 1, "send one picture")
    timings = Timings()
    with call.services.turns.turn():
        picture = read_upload(read_file(file.path), timings)
        found = search(call.services.models, picture, form.choice, form.framing, timings)
        preview = image.encode_image(image.shrink(picture, _PREVIEW_PX), ".jpg") if form.preview else None
    return Values(search_value(found, form.framing, preview))


def _find_in_scene(call: Call) -> Answer:
    form: SceneForm = call.body
    query, scene = _files(call, 2, "send two pictures: first the object, then the scene")
    with call.services.turns.turn():
        pictures = _read(query, "the picture of the object"), _read(scene, "the scene")
        found = find_in_scene(call.services.models, *pictures, form.choice, form.way)
        return Values(scene_value(found, has_finder=has_finder(found.pair)))


def _teach(call: Call) -> Answer:
    form: TeachForm = call.body
    (file,) = _files(call, 1, "send one picture")
    box = (form.x0, form.y0, form.x1, form.y1)
    path = keep_picture(call.services.settings.uploads, read_file(file.path), box)
    with call.services.database.write() as connection:
        taught = teach(connection, call.now_s, call.user.name, path, box, form.category)
    return Values(
        TaughtValue(set=taught.set_id, crop=taught.crop_id),
        says="It waits in the review: name it there.",
        go=f"/review/{taught.set_id}?crop={taught.crop_id}",
    )


def _files(call: Call, count: int, wanted: str) -> tuple[UploadedFile, ...]:
    if len(call.files) != count:
        raise ConsoleError("invalid", f"found {len(call.files)} files; {wanted}")
    return call.files


def _read(file: UploadedFile, what: str) -> Image:
    try:
        return read_upload(read_file(file.path), Timings())
    except FinesightError as error:
        raise ConsoleError("invalid", f"{what}: {error}") from error


ROUTES: tuple[Route, ...] = (
    page("/search", "viewer", _page, SearchQuery),
    page("/search/scene", "viewer", _scene_page, SearchQuery),
    api(
        *("POST", "/search", "viewer", _search, "Search a gallery for the objects of a picture"),
        body=SearchForm, answer=SearchValue, upload_bytes=MAX_PICTURE_BYTES + _FORM_BYTES,
    ),
    api(
        *("POST", "/search/scene", "viewer", _find_in_scene, "Find the object of a picture in a scene"),
        body=SceneForm, answer=SceneValue, upload_bytes=2 * MAX_PICTURE_BYTES + _FORM_BYTES,
    ),
    api(
        *("POST", "/search/teach", "labeller", _teach, "Put an object of a picture into the review, to be named"),
        body=TeachForm, answer=TaughtValue, upload_bytes=MAX_PICTURE_BYTES + _FORM_BYTES,
    ),
)  # fmt: skip
