"""What the search answers, as JSON."""

from __future__ import annotations

import base64
from urllib.parse import quote, urlencode

from pydantic import BaseModel, Field

from console.models.models import LoadedPair
from console.search.scene import ScenePlace, SceneResult
from console.search.search import FoundObject, NearItem, SearchResult
from console.search.words import reason_text, stage_text
from edge.types import Box

BoxValue = tuple[float, float, float, float]


class PairValue(BaseModel):
    """What was searched with."""

    choice: str
    name: str
    bundle: str = Field(description="bundle id")
    gallery: str = Field(description="generation")
    has_detector: bool
    has_localiser: bool


class ItemValue(BaseModel):
    """An item near an object."""

    category: str | None
    item: str
    label: str
    similarity: float = Field(description="-1..1")
    page: str | None = Field(description="path of the item in the gallery")
    thumbnail: str | None = Field(description="path of its picture")


class ObjectValue(BaseModel):
    """One object of the picture."""

    box: BoxValue = Field(description="x0 y0 x1 y1, pixels of the upright picture, x1 and y1 exclusive")
    detected_as: str | None
    category: str | None
    category_probability: float | None = Field(description="0..1")
    answer: ItemValue | None = Field(description="null: unknown")
    probability: float | None = Field(description="that the answer is right, 0..1; null where the bundle has none")
    margin: float | None = Field(description="similarity of the nearest item minus that of the next one")
    reason: str | None = Field(description="why there is no answer")
    reason_text: str
    top: list[ItemValue]
    silhouette: str | None = Field(description="64x64 bits, rows from the top, base64; null: none found")
    silhouette_box: BoxValue | None = Field(description="the square of the picture that they cover")


class StageValue(BaseModel):
    """The time of a stage."""

    name: str
    text: str
    ms: float


class SearchValue(BaseModel):
    """What a search found."""

    pair: PairValue
    framing: str
    width: int = Field(description="of the upright picture, pixels")
    height: int
    objects: list[ObjectValue]
    left_out: int = Field(description="further objects")
    stages: list[StageValue]
    preview: str | None = Field(description="the picture as JPEG, base64")


class PlaceValue(BaseModel):
    """Where the object is in the scene."""

    box: BoxValue
    score: float


class SceneValue(BaseModel):
    """A scene with a heat map."""

    pair: PairValue
    way: str = Field(description="finder or similarity")
    has_finder: bool
    width: int = Field(description="of the picture shown, pixels")
    height: int
    picture: str = Field(description="the scene with the heat map, JPEG, base64")
    found: list[PlaceValue]
    windows: int
    smallest_px: int = Field(description="smaller objects are missed")
    category: str | None
    ms: float


class TaughtValue(BaseModel):
    """Where the object waits."""

    set: int
    crop: int


def search_value(result: SearchResult, framing: str, preview: bytes | None) -> SearchValue:
    """Return the JSON of a search."""
    return SearchValue(
        pair=_pair(result.pair),
        framing=framing,
        width=result.width,
        height=result.height,
        objects=[_object(result.pair, one) for one in result.objects],
        left_out=result.left_out,
        stages=[StageValue(name=k, text=stage_text(k), ms=round(v, 2)) for k, v in result.stages_ms.items()],
        preview=None if preview is None else _base64(preview),
    )


def scene_value(result: SceneResult, *, has_finder: bool) -> SceneValue:
    """Return the JSON of a search in a scene."""
    return SceneValue(
        pair=_pair(result.pair),
        way=result.way,
        has_finder=has_finder,
        width=result.width,
        height=result.height,
        picture=_base64(result.shown),
        found=[_place(one) for one in result.found[:20]],
        windows=result.windows,
        smallest_px=result.smallest_px,
        category=result.category,
        ms=round(result.took_ms, 1),
    )


def _pair(pair: LoadedPair) -> PairValue:
    models = pair.models
    return PairValue(
        choice=pair.choice.id,
        name=pair.choice.name,
        bundle=models.bundle_id,
        gallery=models.gallery_id,
        has_detector=models.stages.detector is not None,
        has_localiser=models.stages.localiser is not None,
    )


def _object(pair: LoadedPair, one: FoundObject) -> ObjectValue:
    return ObjectValue(
        box=_box(one.box_px),
        detected_as=one.detected_as,
        category=one.category.name if one.category else None,
        category_probability=round(one.category.score, 4) if one.category else None,
        answer=None if one.answer is None else _item(pair, one.answer),
        probability=None if one.probability is None else round(one.probability, 4),
        margin=None if one.margin is None else round(one.margin, 4),
        reason=one.reason,
        reason_text=reason_text(one.reason),
        top=[_item(pair, hit) for hit in one.top],
        silhouette=None if one.silhouette is None else _base64(one.silhouette.tobytes()),
        silhouette_box=None if one.silhouette_px is None else _box(one.silhouette_px),
    )


def _item(pair: LoadedPair, hit: NearItem) -> ItemValue:
    page = thumbnail = None
    if hit.category is not None:
        page = f"/gallery/{quote(hit.category, safe='')}/items?{urlencode({'item': hit.item})}"
        names = {"choice": pair.choice.id, "category": hit.category, "item": hit.item}
        thumbnail = f"/api/v1/models/thumbnail?{urlencode(names)}"
    return ItemValue(
        category=hit.category,
        item=hit.item,
        label=hit.label,
        similarity=round(hit.similarity, 4),
        page=page,
        thumbnail=thumbnail,
    )


def _place(one: ScenePlace) -> PlaceValue:
    return PlaceValue(box=_box(one.box_px), score=round(one.score, 4))


def _box(box: Box) -> BoxValue:
    x0, y0, x1, y1 = (round(float(value), 1) for value in box)
    return x0, y0, x1, y1


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
