"""What both ways to learn share: the options, keys of what a step was made from, the bundle, galleries and words."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from dataset_formats.records import Sample
from edge.bundle.bundle import read_bundle
from edge.durable import sha256_of
from edge.file_names import hashed_file_name
from edge.gallery.generation import INDEX_NAME
from learn.device_folder import clear, last_sequence, run_command
from learn.memory import read_memory, write_memory
from learn.plan import many
from quantize.build_network import Policy
from quantize.bundle.pack_options import PackOptions
from quantize.command import PackSources, named_sources, pack_bundle, saturates
from quantize.dataset import Splits, read_data
from quantize.network_spec import Spec
from quantize.open_set.fit_rules import NAMED_GATE
from trainer.catalogue.embed_gallery import embed_gallery
from trainer.models.networks import WEIGHTS_FILE

PAGE, REPORT = "how-good.html", "report.json"
WORK, MEMORY, INDEX = "work", "learn.json", "index.csv"  # the latter two in WORK
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


def pack(
    options: LearnOptions, sources: PackSources, made_from: Sequence[object], scenes: Path | None = None
) -> tuple[Path, tuple[str, ...]]:
    """Pack networks into a bundle, or return the bundle that was packed from them, and its warnings.

    Args:
        options: what a person asked for.
        sources: the networks; the embedders are run folders, named as in FALSE_ACCEPT.
        made_from: what the networks were made from; if it is the same as before, so are they.
        scenes: COCO JSON that the detector is measured on.

    Raises:
        QuantizeError, BundleError, EngineError: packing failed.
    """
    work = options.out / WORK
    bundle, memory, key = work / "bundle", read_memory(work / MEMORY), key_of(*made_from)
    if bundle.is_dir() and memory.packed_from == key:
        return bundle, memory.warnings
    sequence = max(last_sequence(options.out, bundle) + 1, options.sequence)
    clear(bundle, work / "gallery", work / "judged")
    shop = hashed_file_name(options.shown_name).replace("~", "-")
    embedders = [name for name, _, _ in named_sources(sources) if name.startswith("embedder")]
    packed = pack_bundle(
        PackOptions(
            bundle_id=f"{shop}-{sequence}",
            sequence=sequence,
            out=bundle,
            false_accept=min(FALSE_ACCEPT[run.name] for run in sources.embedders),
            waived=frozenset(f"{name}.{NAMED_GATE}" for name in embedders),  # the page says how little it names
        ),
        sources,
        read_data(work / INDEX, scenes, splits=Splits(gallery=("train",)), held_out_images=MOST_HELD_OUT),
        Policy(fallback_fp32=True, saturates=saturates("this")),
        progress=progress,
    )
    write_memory(work / MEMORY, replace(memory, packed_from=key, warnings=packed.warnings))
    return bundle, packed.warnings


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


def left_out_of(left_out: Sequence[str], one: str) -> list[str]:
    """Say how many pictures cannot be used, and why the first; nothing if all can."""
    return [f"{many(len(left_out), one)} left out; the first: {left_out[0]}"] if left_out else []


def items_lost(items: Sequence[str]) -> list[str]:
    """Say which items are not learned because no photo of them can be read; nothing if there is none."""
    return [f"not learned, as none of its photos can be read: {item}" for item in items]


def say_how_to_start(out: Path, kept: Sequence[str], configuration: str) -> None:
    """Say where the page is, which configurations stay as they were, and how a device starts."""
    say(f"page: {out / PAGE}")
    if kept:
        say(f"kept as they are: {', '.join(kept)}; delete one and run this again for a new one")
    say(f"start: {run_command(out / configuration)}")


def progress(listed: Sequence[T], what: str) -> Iterable[T]:
    """Show a bar while pictures are worked through."""
    bar: Iterable[T] = tqdm(listed, desc=what, unit="photo", file=sys.stderr)
    return bar


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)
