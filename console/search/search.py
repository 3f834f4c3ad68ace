"""Searches a gallery for the objects of a picture, by the device's own code, and tells how it went.

Rules this module keeps:
1. The picture stays in memory, and nothing of it is kept.
2. What is shown beside the decision, such as the silhouette, never changes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from console.models.models import LoadedPair, Models
from console.sets.reading import decode
from edge.errors import FinesightError, NotLoadedError
from edge.gallery.store_file import open_store
from edge.imaging.image import crop_bounds
from edge.imaging.pyramid import Pyramid
from edge.recogniser import Framing, RecognisedObject, Recogniser
from edge.telemetry.timing import Timings
from edge.types import Box, Category, Image, Silhouette

_MOST_OBJECTS = 40  # with silhouettes and links; a scene with more shows the surest
_MOST_CATEGORIES = 60  # in which an item is looked for whose category is not known


@dataclass(frozen=True, slots=True)
class NearItem:
    """An item near an object."""

    category: str | None  # None: the gallery has it no more
    item: str
    label: str
    similarity: float  # -1..1


@dataclass(frozen=True, slots=True)
class FoundObject:
    """One object of the picture."""

    box_px: Box
    detected_as: str | None
    category: Category | None
    answer: NearItem | None  # None: unknown
    probability: float | None  # that the answer is right, 0..1
    margin: float | None  # similarity of the nearest item minus that of the next one
    reason: str | None  # code of why there is no answer
    top: tuple[NearItem, ...]  # best first
    silhouette: Silhouette | None = None
    silhouette_px: Box | None = None  # the square of the picture that its 64x64 cells cover


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found."""

    pair: LoadedPair
    width: int  # of the upright picture, pixels
    height: int
    objects: tuple[FoundObject, ...]
    left_out: int  # further objects of the detector
    stages_ms: dict[str, float] = field(default_factory=dict)


def read_upload(data: bytes, timings: Timings) -> Image:
    """Decode an uploaded picture.

    Raises:
        PictureError: it is no picture, too large, truncated or damaged.
    """
    with timings.stage("decode"):
        return decode(data).image_rgb


def search(models: Models, image_rgb: Image, choice_id: str, framing: Framing, timings: Timings) -> SearchResult:
    """Search for the objects of a picture.

    Args:
        models: of the console.
        image_rgb: the picture.
        choice_id: bundle and gallery.
        framing: `whole`: one object fills the picture; `detect`: find the objects first.
        timings: get the milliseconds of each stage.

    Raises:
        ConsoleError: there is no such choice, or it cannot be loaded.
        FinesightError: the bundle has no detector, or a model failed.
    """
    return models.run(choice_id, lambda pair: _search(pair, image_rgb, framing, timings))


def _search(pair: LoadedPair, image_rgb: Image, framing: Framing, timings: Timings) -> SearchResult:
    found = Recogniser(pair.models).recognise(image_rgb, framing, timings)
    shown = found.objects[:_MOST_OBJECTS]
    boxes = [one.box_px for one in shown]
    silhouettes = _silhouettes(pair, Pyramid(image_rgb), boxes, timings)
    homes = _homes(pair, shown)
    objects = tuple(_describe(pair, homes, one, *found) for one, found in zip(shown, silhouettes, strict=True))
    left_out = len(found.objects) - len(shown)
    return SearchResult(pair, found.width, found.height, objects, left_out, dict(timings.stages_ms))


def _describe(
    pair: LoadedPair,
    homes: Mapping[str, Sequence[str]],
    one: RecognisedObject,
    silhouette: Silhouette | None,
    silhouette_px: Box | None,
) -> FoundObject:
    def category_of(item: str) -> str | None:
        guess = one.category.name if one.category else None
        if _is_sure(pair, one) or guess in homes.get(item, ()):
            return guess
        return next(iter(homes.get(item, ())), None)

    top = tuple(NearItem(category_of(hit.item_id), hit.item_id, hit.label, float(hit.score)) for hit in one.top)
    answer = None
    if one.match is not None:
        category = category_of(one.match.item_id)
        answer = NearItem(category, one.match.item_id, one.match.label, float(one.match.score))
    margin = float(one.match.margin) if one.match else None
    if margin is None and len(top) > 1:
        margin = top[0].similarity - top[1].similarity
    return FoundObject(
        one.box_px, one.detected_as, one.category, answer, one.probability, margin, one.reason, top,
        silhouette, silhouette_px,
    )  # fmt: skip


def _is_sure(pair: LoadedPair, one: RecognisedObject) -> bool:
    """Return whether the items near an object are of its category; a bundle without a classifier searches all."""
    return pair.gallery is None or (one.category is not None and pair.models.stages.classifier is not None)


def _homes(pair: LoadedPair, objects: Iterable[RecognisedObject]) -> dict[str, list[str]]:
    """Return the categories of the items near objects of which that is not sure; each store is opened once."""
    near = [hit for one in objects if not _is_sure(pair, one) for hit in (*one.top, one.match) if hit]
    found = {hit.item_id: list[str]() for hit in near}
    if pair.gallery is None or not found:
        return found
    for name in list(pair.models.indexes)[:_MOST_CATEGORIES]:
        with contextlib.suppress(FinesightError), open_store(pair.gallery.path(name)) as store:
            for item, homes in found.items():
                if store.execute("SELECT 1 FROM items WHERE item_id = ? AND deleted = 0", (item,)).fetchone():
                    homes.append(name)
    return found


def _silhouettes(
    pair: LoadedPair, pyramid: Pyramid, boxes: list[Box], timings: Timings
) -> list[tuple[Silhouette | None, Box | None]]:
    """Return the silhouette of each object and the square that it covers; the localiser may not be there."""
    localiser = pair.models.stages.localiser
    if localiser is None or not boxes:
        return [(None, None)] * len(boxes)
    try:
        found = localiser.silhouettes(pyramid, boxes, timings)
    except NotLoadedError:
        return [(None, None)] * len(boxes)
    margin = localiser.model.preprocess.crop_margin
    return [
        (one, None if one is None else silhouette_square(pyramid.width, pyramid.height, box, margin))
        for one, box in zip(found, boxes, strict=True)
    ]


def silhouette_square(width: int, height: int, box_px: Box, margin: float) -> Box:
    """Return the square that a silhouette's cells cover: centred on the crop, as long as its longer side."""
    left, top, right, bottom = crop_bounds(width, height, box_px, margin)
    side = max(right - left, bottom - top)
    x, y = (left + right) / 2, (top + bottom) / 2
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2
