"""What is sent of an unknown object: a zip file with a picture, `crop.jpg`, and what is known of it, `object.json`.

The side that reads it trusts nothing in it, so the texts are bounded here.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge.types import Box, Event

PICTURE, RECORD = "crop.jpg", "object.json"
_Text = Annotated[str, Field(max_length=1024)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Box = tuple[_Number, _Number, _Number, _Number]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class NearItem(_Document):
    """A gallery item near the object."""

    item: _Text
    label: _Text
    score: _Number  # cosine similarity


class UnknownObject(_Document):
    """One object that left without a name."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    id: Annotated[str, Field(pattern=r"^unknown-[0-9a-f]{12}$")]
    site: _Text
    device: _Text
    camera: _Text
    track_id: int
    captured_at: _Text  # ISO 8601, UTC; of the frame that the picture is cut from
    dwell_s: _Number  # how long the object was in view
    reason: _Text  # why it has no name
    category: _Text | None  # the likeliest; None: none was likely enough
    category_score: _Number | None
    top: Annotated[tuple[NearItem, ...], Field(max_length=16)]  # nearest items, best first
    bundle: _Text
    gallery: _Text
    box_rel: _Box  # where the object was, as fractions of the frame
    box_px: _Box  # where it is in the picture
    looks: int  # views that the picture was chosen from


@dataclass(frozen=True, slots=True)
class Origin:
    """The device that a picture comes from."""

    site: str
    device: str


@dataclass(frozen=True, slots=True)
class View:
    """The view of an object that its picture shows."""

    captured_at: float  # Unix seconds of the frame that the picture is cut from
    box_rel: Box  # in that frame, as fractions
    box_px: Box  # in the picture
    looks: int  # views that it was chosen from


def describe(object_id: str, event: Event, origin: Origin, view: View) -> UnknownObject:
    """Describe an object by its last event.

    Args:
        object_id: names it.
        event: its end.
        origin: the device.
        view: what the picture shows.
    """
    decision = event.decision
    return UnknownObject(
        id=object_id,
        site=origin.site,
        device=origin.device,
        camera=event.camera,
        track_id=event.track_id,
        captured_at=_utc(view.captured_at),
        dwell_s=round(event.dwell_s, 3),
        reason=decision.reason or "",
        category=decision.category.name if decision.category else None,
        category_score=round(decision.category.score, 4) if decision.category else None,
        top=tuple(
            NearItem(item=hit.item_id, label=hit.label, score=round(float(hit.score), 4)) for hit in decision.top
        ),
        bundle=event.bundle,
        gallery=event.gallery,
        box_rel=view.box_rel,
        box_px=view.box_px,
        looks=view.looks,
    )


def pack(record: UnknownObject, jpeg: bytes) -> bytes:
    """Return the zip file of an object."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        file.writestr(RECORD, record.model_dump_json(by_alias=True))
        file.writestr(PICTURE, jpeg)
    return buffer.getvalue()


def _utc(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
