"""Routes of the models: what can be chosen to recognise with, and the pictures of their gallery's items."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from console.web.routing import Answer, Bytes, Call, Values, api
from edge.errors import ConsoleError
from edge.imaging.header import detect_format

_MEDIA_TYPES = {"jpeg": "image/jpeg", "png": "image/png"}
_KEEP_S = 60  # of thumbnails in the browser: an item may get another picture


class ChoiceValue(BaseModel):
    """A bundle and a gallery to recognise with."""

    id: str
    name: str
    has_gallery: bool


class ChoicesValue(BaseModel):
    """All of them, the default first."""

    choices: list[ChoiceValue]


class ThumbnailQuery(BaseModel):
    """An item of a gallery."""

    model_config = ConfigDict(extra="forbid")

    choice: Annotated[str, Field(max_length=300)] = ""
    category: Annotated[str, Field(max_length=300)]
    item: Annotated[str, Field(max_length=600)]


def _choices(call: Call) -> Answer:
    found = call.services.models.choices()
    return Values(
        ChoicesValue(
            choices=[ChoiceValue(id=one.id, name=one.name, has_gallery=one.gallery is not None) for one in found]
        )
    )


def _thumbnail(call: Call) -> Answer:
    query: ThumbnailQuery = call.query
    data = call.services.models.thumbnail(query.choice, query.category, query.item)
    kind = None if data is None else detect_format(data)
    if data is None or kind not in _MEDIA_TYPES:
        raise ConsoleError("not_found", "the gallery has no picture of this item")
    return Bytes(data, _MEDIA_TYPES[kind], _KEEP_S)


ROUTES = (
    api("GET", "/models", "viewer", _choices, "Bundles and galleries to recognise with", answer=ChoicesValue),
    api("GET", "/models/thumbnail", "viewer", _thumbnail, "The picture of an item", query=ThumbnailQuery),
)
