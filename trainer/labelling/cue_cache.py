"""What cues saw in each picture, kept beside the labels: later rounds, and runs after a kill, ask only what is new.

It can be rebuilt and is no authority: a line that is damaged, or was made with other settings, counts as not there.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import edge
from edge.errors import TrainError
from edge.types import Image
from trainer.labelling.label_store import proposal_to_json, proposal_from_json
from trainer.labelling.proposals import Proposal

CUE_CACHE_FILE = "sightings.jsonl"


class CueCache:
    """The sightings of one label folder."""

    def __init__(self, folder: Path, said: str) -> None:
        """Read what is kept.

        Args:
            folder: of the labels.
            said: all that a sighting depends on beside the picture.
        """
        self._path = folder / CUE_CACHE_FILE
        self._said = hashlib.sha256(f"{edge.__version__} {said}".encode()).hexdigest()[:16]
        self._known: dict[tuple[str, str], list[Proposal]] = {}
        lines = self._path.read_text(errors="replace").splitlines() if self._path.exists() else []
        for line in lines:
            try:
                entry = json.loads(line)
                self._known[entry["picture"], entry["of"]] = [proposal_from_json(box) for box in entry["seen"]]
            except (ValueError, KeyError, TypeError):
                continue  # a run was killed while it wrote

    def get(self, name: str, image_rgb: Image) -> list[Proposal] | None:
        """What was seen in this very picture; None: it was not looked at."""
        return self._known.get((name, self._of(image_rgb)))

    def put(self, name: str, image_rgb: Image, seen: list[Proposal]) -> None:
        """Remember what was seen.

        Raises:
            TrainError: the disk refused.
        """
        entry = {"picture": name, "of": self._of(image_rgb), "seen": [proposal_to_json(box) for box in seen]}
        try:
            with self._path.open("a") as file:
                file.write("\n" * bool(file.tell()) + json.dumps(entry))
        except OSError as error:
            raise TrainError(f"{self._path}: cannot write: {error.strerror}") from error

    def _of(self, image_rgb: Image) -> str:
        return hashlib.sha256(self._said.encode() + image_rgb.tobytes()).hexdigest()[:16]
