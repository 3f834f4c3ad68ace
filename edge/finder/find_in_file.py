"""Find the object of query pictures in a picture or a video file, and draw where it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.capture.frame_source import BadPictureError, CaptureOptions, EndOfStream
from edge.capture.open_source import open_source
from edge.config.camera_url import parse_source
from edge.durable import write_durably
from edge.errors import CaptureError
from edge.finder.correlate import Query
from edge.finder.finder import Finder
from edge.finder.heat_map import FoundBox, VerifiedBox, colour_heat_map, highlight, resize_to_source
from edge.finder.label_transfer import MASK_SUFFIX, KnownPicture, TransferredLabel, list_known, transfer_label
from edge.finder.query import object_mask
from edge.imaging import image
from edge.imaging.contact_sheet import contact_sheet
from edge.telemetry.timing import Timings
from edge.types import Box, FloatArray, Image, Mask

log = logging.getLogger(__name__)

_BOX_COLOUR = (80, 230, 80)
_SHEET_FRAMES = 6  # frames on the sheet of a video
_READ_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class QueryFile:
    """A query given as PICTURE, PICTURE@x0,y0,x1,y1 or PICTURE@MASK."""

    picture: Path
    box_px: Box | None = None
    mask: Path | None = None


def parse_queries(texts: list[str]) -> list[QueryFile]:
    """Parse queries given on the command line.

    Raises:
        CaptureError: a box is not four numbers.
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
        raise CaptureError(f"{text}: {rest!r} is not a box; give x0,y0,x1,y1 in pixels") from error
    return QueryFile(Path(picture), box_px=(x0, y0, x1, y1))


def read_query(query: QueryFile) -> tuple[Image, Mask]:
    """Read a query's picture and the mask of its object.

    Without a box or a mask, the object is what a mask beside the picture shows (`mug.mask.png` of `mug.jpg`), what is
    not transparent, what stands out from a plain background, or all of the picture: the first that there is.

    Raises:
        CaptureError: a file cannot be read, the mask has another size, or the object is not in the picture.
    """
    data, where = image.read_encoded(query.picture), str(query.picture)
    picture = image.decode_image(data, where)
    if query.mask is not None:
        return picture, _read_mask(query.mask, picture)
    if query.box_px is not None:
        return picture, object_mask(picture, query.box_px)
    beside = query.picture.with_name(query.picture.stem + MASK_SUFFIX)
    if beside.is_file():
        return picture, _read_mask(beside, picture)
    opaque = image.decode_opaque(data, where)
    if opaque is not None and opaque.shape == picture.shape[:2] and opaque.any():
        return picture, opaque
    return picture, object_mask(picture)


def _read_mask(path: Path, picture: Image) -> Mask:
    mask = np.asarray(image.read_image(path).max(axis=2) > 127, np.uint8)
    if mask.shape != picture.shape[:2] or not mask.any():
        raise CaptureError(
            f"{path}: the mask has {mask.shape[1]}x{mask.shape[0]} pixels, {int(mask.sum())} of them white; "
            f"give one of the picture's size, {picture.shape[1]}x{picture.shape[0]}, in which the object is white"
        )
    return mask


def read_known(finder: Finder, folder: Path) -> list[KnownPicture]:
    """Read known pictures for the transfer of their labels, see `list_known`; name and skip those that are damaged.

    Raises:
        CaptureError: there is none that can be read.
        EngineError: the trunk failed.
    """
    known, problems = [], []
    for label, path in list_known(folder):
        try:
            query = finder.make_query(*read_query(QueryFile(path)), Timings())
        except CaptureError as error:
            problems.append(error)
            log.warning("%s; skipped", error)
            continue
        known.append(KnownPicture(label, query.verify_kernel))
    if not known:
        raise problems[0]
    return known


def find(finder: Finder, queries: list[QueryFile], scene: Path, out: Path, known: Path | None = None) -> dict[str, Any]:
    """Search a picture or a video, and write the results into a folder.

    Args:
        finder: loaded.
        queries: pictures of one object.
        scene: a picture; any other file is read as a video.
        out: folder for `heat.png` and `found.png`; for a video, `found.png` shows the frames with the best scores.
        known: folder of known pictures by label; each found box gets the label of the most similar ones.

    Returns:
        The results as JSON values: boxes in pixels with scores, and the paths of the files.

    Raises:
        CaptureError: a file cannot be read, or a query shows no object.
        EngineError: a network failed.
    """
    search = _Search(
        finder,
        [finder.make_query(*read_query(query), Timings()) for query in queries],
        [] if known is None else read_known(finder, known),
    )
    if scene.suffix.lower() in image.IMAGE_SUFFIXES:
        return _find_in_picture(search, scene, out)
    return _find_in_video(search, scene, out)


def _find_in_picture(search: _Search, scene: Path, out: Path) -> dict[str, Any]:
    picture = image.read_image(scene)
    heat, found, labels = search.run(picture)
    out.mkdir(parents=True, exist_ok=True)
    write_durably(out / "heat.png", image.encode_image(colour_heat_map(heat), ".png"))
    write_durably(out / "found.png", image.encode_image(_draw(picture, heat, found), ".png"))
    files = {"heat_map": str(out / "heat.png"), "highlight": str(out / "found.png")}
    return {"scene": str(scene), "found": _to_json(found, labels), **files}


def _find_in_video(search: _Search, scene: Path, out: Path) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    best: list[tuple[float, int, Image]] = []
    for number, (pts_s, picture) in enumerate(_frames(scene)):
        heat, found, labels = search.run(picture)
        rows.append({"frame": number, "pts_s": pts_s, "found": _to_json(found, labels)})
        if found and (len(best) < _SHEET_FRAMES or found[0].score > best[-1][0]):
            best = [*best, (found[0].score, number, _draw(picture, heat, found))]
            best = sorted(best, key=lambda one: -one[0])[:_SHEET_FRAMES]
    if not rows:
        raise CaptureError(f"{scene}: the video has no frames")
    sheet = None
    if best:
        out.mkdir(parents=True, exist_ok=True)
        sheet = out / "found.png"
        frames = [picture for _, _, picture in sorted(best, key=lambda one: one[1])]
        pages = [contact_sheet([], frames[start : start + 2]) for start in range(0, len(frames), 2)]
        write_durably(sheet, image.encode_image(np.concatenate(pages), ".png"))
    return {"scene": str(scene), "frames": rows, "sheet": str(sheet) if sheet else None}


@dataclass(frozen=True, slots=True)
class _Search:
    """What to search for."""

    finder: Finder
    queries: list[Query]  # of one object
    known: list[KnownPicture]  # empty: found boxes get no label

    def run(self, picture: Image) -> tuple[FloatArray, list[VerifiedBox], list[TransferredLabel]]:
        """Return the heat map at the picture's size, the boxes, and their labels if pictures are known."""
        finder = self.finder
        features = finder.scene_features(picture, Timings())
        heat = finder.heat_map(features, self.queries, Timings())
        found = finder.find_boxes(features, heat, self.queries, Timings())
        labels = [transfer_label(one.kernel, self.known) for one in found] if self.known else []
        return resize_to_source(heat, features.placed, finder.model.shape.map_stride), found, labels


def _draw(picture: Image, heat: FloatArray, found: Sequence[FoundBox]) -> Image:
    """Return the picture with the found objects highlighted and boxed, and the rest dimmed."""
    shown = highlight(picture, heat, found)
    for one in found:
        image.draw_box(shown, one.box_px, _BOX_COLOUR)
        image.draw_text(shown, f"{one.score:.2f}", (int(one.box_px[0]) + 3, int(one.box_px[1]) + 15), _BOX_COLOUR)
    return shown


def _frames(scene: Path) -> Iterator[tuple[float | None, Image]]:
    """Yield the frames of a video with their positions in seconds."""
    if not scene.is_file():
        raise CaptureError(f"{scene}: there is no such file; give a picture or a video")
    with closing(open_source(parse_source(f"file://{scene.resolve()}"), "auto", CaptureOptions())) as source:
        while True:
            try:
                picture = source.read(_READ_TIMEOUT_S)
            except EndOfStream:
                return
            except BadPictureError:
                continue
            if picture is None:
                raise CaptureError(f"{scene}: reading timed out: no frame within {_READ_TIMEOUT_S:.0f} s")
            yield picture.pts_s, picture.image_rgb


def _to_json(found: Sequence[FoundBox], labels: list[TransferredLabel]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"box_px": [round(v, 1) for v in one.box_px], "score": round(one.score, 4)} for one in found
    ]
    for row, one in zip(rows, labels, strict=False):
        row |= {"label": one.label, "label_similarity": round(one.similarity, 4)}
    return rows
