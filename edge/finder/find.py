"""Look for the object of query pictures in a picture or a video, and show where it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.capture.frame_source import CaptureOptions, EndOfStream
from edge.capture.open_source import open_source
from edge.config.camera_url import parse_source
from edge.durable import write_durably
from edge.errors import CaptureError
from edge.finder.correlate import Query
from edge.finder.finder import Finder
from edge.finder.heat_map import FoundBox, colour_heat_map, highlight, resize_to_source
from edge.finder.query import mask_of
from edge.imaging import image
from edge.imaging.contact_sheet import contact_sheet
from edge.telemetry.timing import Timings
from edge.types import Box, FloatArray, Image, Mask

_LIT = (80, 230, 80)
_SHOWN = 6  # frames on the sheet of a video
_READ_S = 10.0


@dataclass(frozen=True, slots=True)
class QueryFile:
    """A query as it was named: PICTURE, PICTURE@x0,y0,x1,y1 or PICTURE@MASK."""

    picture: Path
    box_px: Box | None = None
    mask: Path | None = None


def parse_queries(texts: list[str]) -> list[QueryFile]:
    """Read the names of queries.

    Raises:
        CaptureError: a box is none.
    """
    return [_parse(text) for text in texts]


def _parse(text: str) -> QueryFile:
    picture, at, rest = text.rpartition("@")
    if not at or Path(text).exists():
        return QueryFile(Path(text))
    if "," not in rest:
        return QueryFile(Path(picture), mask=Path(rest))
    try:
        x0, y0, x1, y1 = (float(number) for number in rest.split(","))
    except ValueError as error:
        raise CaptureError(f"{text}: found {rest!r}, expected x0,y0,x1,y1 in pixels") from error
    return QueryFile(Path(picture), box_px=(x0, y0, x1, y1))


def read_query(query: QueryFile) -> tuple[Image, Mask]:
    """The picture and which of its pixels are the object.

    Raises:
        CaptureError: a file cannot be read, the mask has another size, or nothing of the object is in the picture.
    """
    picture = image.read_image(query.picture)
    if query.mask is None:
        return picture, mask_of(picture, query.box_px)
    mask = np.asarray(image.read_image(query.mask).max(axis=2) > 127, np.uint8)
    if mask.shape != picture.shape[:2] or not mask.any():
        raise CaptureError(
            f"{query.mask}: found a mask {mask.shape[1]}x{mask.shape[0]} with {int(mask.sum())} lit pixels, expected "
            f"some, and the picture's size {picture.shape[1]}x{picture.shape[0]}"
        )
    return picture, mask


def find(finder: Finder, queries: list[QueryFile], scene: Path, out: Path) -> dict[str, Any]:
    """Search a picture or a video, and write what was found into a folder.

    Args:
        finder: loaded.
        queries: of one object.
        scene: a picture; anything else is read as a video.
        out: folder for `heat.png` and `found.png`, or for a video `found.png` with the frames that show it best.

    Returns:
        what was found, for JSON: boxes in pixels with scores, and the files.

    Raises:
        CaptureError: a file cannot be read, or a query shows no object.
        EngineError: a network failed.
    """
    asked = [finder.make_query(*read_query(query), Timings()) for query in queries]
    if scene.suffix.lower() in image.IMAGE_SUFFIXES:
        return _find_in_picture(finder, asked, scene, out)
    return _find_in_video(finder, asked, scene, out)


def _find_in_picture(finder: Finder, asked: list[Query], scene: Path, out: Path) -> dict[str, Any]:
    picture = image.read_image(scene)
    heat, found = _search(finder, asked, picture)
    out.mkdir(parents=True, exist_ok=True)
    write_durably(out / "heat.png", image.encode_image(colour_heat_map(heat), ".png"))
    write_durably(out / "found.png", image.encode_image(_shown(picture, heat, found), ".png"))
    files = {"heat_map": str(out / "heat.png"), "highlight": str(out / "found.png")}
    return {"scene": str(scene), "found": _rows(found), **files}


def _find_in_video(finder: Finder, asked: list[Query], scene: Path, out: Path) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    best: list[tuple[float, int, Image]] = []
    for number, (pts_s, picture) in enumerate(_frames(scene)):
        heat, found = _search(finder, asked, picture)
        rows.append({"frame": number, "pts_s": pts_s, "found": _rows(found)})
        if found and (len(best) < _SHOWN or found[0].score > best[-1][0]):
            best = [*best, (found[0].score, number, _shown(picture, heat, found))]
            best = sorted(best, key=lambda one: -one[0])[:_SHOWN]
    if not rows:
        raise CaptureError(f"{scene}: found no frame, expected at least one")
    sheet = None
    if best:
        out.mkdir(parents=True, exist_ok=True)
        sheet = out / "found.png"
        frames = [picture for _, _, picture in sorted(best, key=lambda one: one[1])]
        pages = [contact_sheet([], frames[start : start + 2]) for start in range(0, len(frames), 2)]
        write_durably(sheet, image.encode_image(np.concatenate(pages), ".png"))
    return {"scene": str(scene), "frames": rows, "sheet": str(sheet) if sheet else None}


def _search(finder: Finder, asked: list[Query], picture: Image) -> tuple[FloatArray, list[FoundBox]]:
    """The heat map on the picture's pixels, and the boxes."""
    view = finder.scene_features(picture, Timings())
    heat = finder.heat_map(view, asked, Timings())
    found = finder.find_boxes(view, heat, asked, Timings())
    return resize_to_source(heat, view.placed, finder.model.shape.map_stride), found


def _shown(picture: Image, heat: FloatArray, found: list[FoundBox]) -> Image:
    """The picture with the pixels of what was found lit and boxed, the rest dimmed."""
    shown = highlight(picture, heat, found)
    for one in found:
        image.draw_box(shown, one.box_px, _LIT)
        image.draw_text(shown, f"{one.score:.2f}", (int(one.box_px[0]) + 3, int(one.box_px[1]) + 15), _LIT)
    return shown


def _frames(scene: Path) -> Iterator[tuple[float | None, Image]]:
    """The pictures of a video, with their place in it in seconds."""
    if not scene.is_file():
        raise CaptureError(f"{scene}: found no file, expected a picture or a video")
    with closing(open_source(parse_source(f"file://{scene.resolve()}"), "auto", CaptureOptions())) as door:
        while True:
            try:
                picture = door.read(_READ_S)
            except EndOfStream:
                return
            if picture is None:
                raise CaptureError(f"{scene}: found no frame within {_READ_S:.0f} s, expected the next one")
            yield picture.pts_s, picture.image_rgb


def _rows(found: list[FoundBox]) -> list[dict[str, Any]]:
    return [{"box_px": [round(v, 1) for v in one.box_px], "score": round(one.score, 4)} for one in found]
