"""Pictures, and the sets of a console without its server."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from console.background.tasks import Tasks
from console.sets.browsing import list_problems
from console.sets.keeping import NewSet, SetKeeper, look_key
from console.sets.pictures import picture_of
from console.sets.sets import find_set
from console.sets.uploads import Taken, Upload, take_upload
from console.settings import Settings
from console.storage.database import open_database
from console.tables import TABLES

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!doctype html><script>alert(1)</script>"
PNG_OF_900_MEGAPIXELS = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (30_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0" + b"\0" * 99 + b"IEND"
)


def pixels(seed=1, width=48, height=32):
    """A picture; other seeds look different."""
    pattern = np.random.default_rng(seed).integers(0, 255, (4, 4, 3)).astype(np.uint8)
    return cv2.resize(pattern, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(seed=1, suffix=".jpg", width=48, height=32):
    return cv2.imencode(suffix, pixels(seed, width, height))[1].tobytes()


def zipped(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return buffer.getvalue()


class Room:
    """The sets of a console."""

    def __init__(self, folder: Path, **settings):
        self.folder = folder
        self.settings = Settings(folder / "data", **settings)
        self.database = open_database(self.settings.data, TABLES)
        self.tasks = Tasks()
        self.keeper = SetKeeper(self.settings, self.database, self.tasks, self.clock)
        self.store = self.keeper.store

    def clock(self):
        return time.time() + 10  # files that a test wrote just now are older

    def make(self, kind="uploads", shows="objects", **more):
        return self.keeper.make("mia", NewSet(more.pop("name", f"a set of {kind}"), kind, shows, **more))

    def upload(self, set_id: int, files: Mapping[str, bytes], **more) -> list[Taken]:
        with self.database.read() as rows:
            upload = Upload(find_set(rows, set_id), "mia", self.clock(), **more)
        taken = []
        for name, data in files.items():
            path = self.folder / "sent"
            path.write_bytes(data)
            taken += take_upload(self.store, upload, name, path)
        return taken

    def look(self, set_id: int, **more) -> str:
        """Look for new pictures, to the end; return what the task says."""
        self.keeper.look(set_id, **more)
        return self.looked(set_id)

    def looked(self, set_id: int) -> str:
        task = self.tasks.wait(look_key(set_id), 60.0)
        assert task is not None
        assert task.state in ("done", "failed"), task
        return task.says

    def pictures(self, set_id: int):
        with self.database.read() as rows:
            folder = find_set(rows, set_id).folder
            query = "SELECT * FROM pictures WHERE set_id = ? ORDER BY name"
            return [picture_of(row, folder) for row in rows.execute(query, (set_id,))]

    def crops(self, set_id: int):
        with self.database.read() as rows:
            query = "SELECT * FROM crops WHERE set_id = ? ORDER BY id"
            return [dict(row) for row in rows.execute(query, (set_id,))]

    def problems(self, set_id: int):
        with self.database.read() as rows:
            return {one.name: one.says for one in list_problems(rows, set_id)}

    def files(self):
        """All files of uploads."""
        return sorted(path for path in self.settings.uploads.rglob("*") if path.is_file())

    def close(self):
        self.tasks.close()
        self.database.close()
