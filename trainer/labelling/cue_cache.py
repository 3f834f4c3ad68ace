"""A cache of the cues' proposals beside the labels, so that later rounds and restarted runs compute only new ones.

It can be rebuilt: a damaged line, or one made with other settings, is ignored.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import edge
from dataset_formats.text_files import BAD_DATA
from edge.errors import TrainError
from edge.types import Image
from trainer.labelling.label_file import proposal_from_json, proposal_to_json
from trainer.labelling.proposals import Proposal

CUE_CACHE_FILE = "sightings.jsonl"


class CueCache:
    """The cache of one label folder."""

    def __init__(self, folder: Path, settings: str) -> None:
        """Read the cache.

        Args:
            folder: label folder.
            settings: everything but the picture that the proposals depend on.
        """
        self._path = folder / CUE_CACHE_FILE
        self._settings = hashlib.sha256(f"{edge.__version__} {settings}".encode()).hexdigest()[:16]
        self._known: dict[tuple[str, str], list[Proposal]] = {}
        lines = self._path.read_text(errors="replace").splitlines() if self._path.exists() else []
        for line in lines:
            try:
                entry = json.loads(line)
                self._known[entry["picture"], entry["of"]] = [proposal_from_json(box) for box in entry["seen"]]
            except BAD_DATA:
                continue  # a run was killed during the write

    def get(self, name: str, image_rgb: Image) -> list[Proposal] | None:
        """Return the cached proposals of exactly this picture, or None."""
        return self._known.get((name, self._of(image_rgb)))

    def put(self, name: str, image_rgb: Image, proposals: list[Proposal]) -> None:
        """Add the proposals of a picture.

        Raises:
            TrainError: the file cannot be written.
        """
        entry = {"picture": name, "of": self._of(image_rgb), "seen": [proposal_to_json(box) for box in proposals]}
        try:
            with self._path.open("a") as file:
                file.write("\n" * bool(file.tell()) + json.dumps(entry))
        except OSError as error:
            raise TrainError(f"{self._path}: cannot write: {error.strerror}") from error

    def _of(self, image_rgb: Image) -> str:
        return hashlib.sha256(self._settings.encode() + image_rgb.tobytes()).hexdigest()[:16]
