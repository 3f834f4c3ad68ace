"""A set of made pictures for tests of boxes and exchange."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from console.services import Services
from console.sets.crops import NewBox, set_boxes
from console.sets.pictures import add_picture, find_picture
from console.sets.sets import create_set
from edge.imaging.image import encode_image
from edge.types import Box

WIDTH, HEIGHT = 200, 120


def write_pictures(folder: Path, names: Sequence[str], objects: Sequence[Box] = ()) -> None:
    """Write grey pictures with bright objects."""
    for number, name in enumerate(names):
        image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        image[0, 0] = number  # so that no two are the same
        for x0, y0, x1, y1 in objects:
            image[int(y0) : int(y1), int(x0) : int(x1)] = (240, 220, 60)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(image, ".png"))


def made_set(services: Services, folder: Path, names: Sequence[str], category: str | None = "card") -> list[int]:
    """Make a set of made pictures, named like its folders; return the ids of the pictures."""
    write_pictures(folder, names, [(60, 30, 120, 90)])
    with services.database.write() as connection:
        set_id = create_set(connection, 1.0, "ann", f"{folder.parent.name} {folder.name}", "folder", folder, category)
        added = [add_picture(connection, 1.0, set_id, one, folder / one, whole=False) for one in names]
    return [one for one in added if one is not None]


def set_of(services: Services, picture_id: int) -> int:
    """Return the set of a picture."""
    with services.database.read() as rows:
        return find_picture(rows, picture_id).set_id


def propose(services: Services, picture_id: int, *boxes: Box, score: float = 0.5, uncertainty: float = 0.5) -> None:
    """Give a picture proposed boxes."""
    with services.database.write() as connection:
        version = find_picture(connection, picture_id).version
        new = [NewBox(None, box, source="cues", score=score, category="card") for box in boxes]
        set_boxes(connection, picture_id, version, new, "proposed")
        connection.execute("UPDATE pictures SET uncertainty = ? WHERE id = ?", (uncertainty, picture_id))


def confirm(services: Services, picture_id: int, *boxes: NewBox) -> None:
    """Give a picture boxes of a person."""
    with services.database.write() as connection:
        set_boxes(connection, picture_id, find_picture(connection, picture_id).version, boxes, "confirmed", now_s=1.0)


def boxes_in(services: Services, picture_id: int) -> list[Box]:
    """Return the boxes of a picture, sorted."""
    with services.database.read() as rows:
        query = "SELECT x0, y0, x1, y1 FROM crops WHERE picture_id = ? ORDER BY x0, y0"
        return [tuple(row) for row in rows.execute(query, (picture_id,))]
