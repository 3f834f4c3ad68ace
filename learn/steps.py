"""What both ways to learn share: the options, keys of what a step was made from, galleries, and words to people."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from dataset_formats.records import Sample
from edge.bundle.bundle import read_bundle
from edge.durable import sha256_of
from edge.gallery.generation import INDEX_NAME
from learn.device_folder import clear
from learn.plan import many
from quantize.network_spec import Spec
from trainer.catalogue.embed_gallery import embed_gallery
from trainer.models.networks import WEIGHTS_FILE

PAGE, REPORT, WORK, MEMORY = "how-good.html", "report.json", "work", "learn.json"
# Share of unknown objects of the same kind that may be named. Published features know less of what makes items differ.
# Measured with 39 photos of 17 groceries, three draws (2026-11-28): 27 % of unseen photos named rightly, 3 % wrongly,
# 0 of 141 unrelated pictures named; at 0.1, 37 %, 4 % and 1.
FALSE_ACCEPT = {"general": 0.05, "trained": 0.1}
MOST_HELD_OUT = 2000  # pictures that the thresholds are fitted on
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LearnOptions:
    """What a person asked for."""

    photos: Path  # or scenes, see learn.from_scenes
    out: Path
    root: Path | None = None
    weights: str | None = None
    minutes: float = 60.0
    camera: str = "v4l2:///dev/video0"
    detector: Path | None = None  # a run folder or an ONNX file
    detector_spec: Spec | None = None  # of an ONNX file
    labels: Path | None = None  # CSV of names for people
    name: str | None = None  # of the recogniser; None: that of the folder
    sequence: int = 1  # least number of the bundle
    names: Path | None = None  # CSV: what the names of boxes mean

    @property
    def shown_name(self) -> str:
        """Return the name of the recogniser."""
        return self.name or self.out.resolve().name


def detector_key(detector: Path | None) -> str | None:
    """Return what stands for the weights of a detector: a run folder or a file; None: there is none."""
    if detector is None:
        return None
    return sha256_of(detector / WEIGHTS_FILE if detector.is_dir() else detector)


def key_of(*parts: object) -> str:
    """Return a key that stands for what a step was made from."""
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()


def embed(bundle: Path, samples: Sequence[Sample], folder: Path) -> Path:
    """Embed pictures into a gallery; one that an earlier run finished stays.

    Raises:
        TrainError, BundleError, EngineError, GalleryError: pictures, bundle or gallery cannot be used.
    """
    if not (folder / INDEX_NAME).is_file():
        clear(folder)
        say(f"embedding {many(len(samples), 'photo')}")
        embed_gallery(bundle, samples, folder)
    return folder


def notes_about(bundle: Path) -> list[str]:
    """Say in plain words what a person must know about a bundle.

    Raises:
        BundleError: it is damaged.
    """
    if all(rule.calibrated for one in read_bundle(bundle).manifest.embedders for rule in one.open_set.values()):
        return []
    return ["Too few photos were held out to say how sure it is: it answers “looks like”, without a percentage."]


def progress(listed: Sequence[T], what: str) -> Iterable[T]:
    """Show a bar while pictures are worked through."""
    bar: Iterable[T] = tqdm(listed, desc=what, unit="photo", file=sys.stderr)
    return bar


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)
