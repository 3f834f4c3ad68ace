"""Proposes boxes with the detector of a bundle, in a background task: no training packages are needed."""

from __future__ import annotations

from collections.abc import Iterator

from console.background.tasks import Progress
from console.boxes.proposing import (
    ProposedBox,
    ProposedPicture,
    SetPicture,
    begin_round,
    take_all,
    waiting_pictures,
)
from console.models.models import LoadedPair, Models
from console.storage.database import Database
from dataset_formats.decode import read_image
from edge.errors import CaptureError, ConsoleError
from edge.telemetry.timing import Timings
from edge.types import Detection, Image


def task_key(set_id: int) -> str:
    """Return the key of the task of a set."""
    return f"propose-boxes/{set_id}"


def propose_with_bundle(
    database: Database, models: Models, now_s: float, set_id: int, choice: str, most: int, progress: Progress
) -> str:
    """Propose boxes for the pictures that wait; return what was done, in one sentence.

    Raises:
        ConsoleError: no picture waits, the bundle has no detector or cannot be loaded.
        EngineError: the detector failed.
    """
    with database.read() as rows:
        pictures = waiting_pictures(rows, set_id, most)
    if not pictures:
        raise ConsoleError("invalid", "no picture of this set waits for boxes; add pictures")
    pair = models.load(choice)
    if pair.models.stages.detector is None:
        raise ConsoleError("missing", f"{pair.choice.name} has no detector; choose another one, or use the cues")
    unread: list[str] = []

    def proposed() -> Iterator[ProposedPicture]:
        for number, picture in enumerate(pictures):
            progress(number, len(pictures))
            try:
                image = read_image(picture.path)
            except CaptureError as error:
                unread.append(str(error))
                continue
            yield _as_proposed(picture, _detect(pair, image), image)

    taken = take_all(database, set_id, "bundle", proposed(), begin_round(database, now_s, set_id, "bundle"))
    skipped = f"; {len(unread):,} cannot be read, the first: {unread[0]}" if unread else ""
    return f"{taken}{skipped}"


def _detect(pair: LoadedPair, image_rgb: Image) -> list[Detection]:
    detector = pair.models.stages.detector
    return [] if detector is None else detector.detect([image_rgb], Timings())[0]


def _as_proposed(picture: SetPicture, found: list[Detection], image_rgb: Image) -> ProposedPicture:
    """Return boxes in the pixels that the set states, which are those of the upright picture."""
    scale_x, scale_y = picture.width / image_rgb.shape[1], picture.height / image_rgb.shape[0]
    boxes = []
    for one in found:
        x0, y0, x1, y1 = one.box_px
        boxes.append(ProposedBox((x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y), float(one.score)))
    weakest = min((one.score for one in boxes), default=0.0)
    why = "weak box" if boxes else "nothing found"
    return ProposedPicture(picture.id, tuple(boxes), min(1.0, 1.0 - weakest), why)
