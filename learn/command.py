"""The command `edge-train learn`: from photos to a folder that `edge run` starts, with a page that says how good it is.

Each step is one of the single commands: read and split the photos, train or fit an embedder (`edge-train embedder`),
pack it (`edge-quantize pack`), embed the gallery (`edge-train embed`), judge, install and activate (`edge bundle`).
Killed, it goes on where it was; with other photos it begins again, and what people taught the kiosk stays.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from dataset_formats.records import Sample
from edge.bundle.bundle import read_bundle
from edge.config.camera_url import parse_source
from edge.durable import sha256_of, write_durably
from edge.errors import TrainError
from edge.file_names import hashed_file_name
from edge.gallery.generation import INDEX_NAME
from learn.device_folder import KIOSK, clear, install_pair, run_command, write_configurations
from learn.judge import Verdict, judge, listed_answers
from learn.memory import read_memory, write_memory
from learn.networks import make_embedder, measure_speed, recall_of
from learn.page import headline, render_page
from learn.photos import PhotoSet, hold_out, read_photos, write_index
from learn.plan import Photos, Plan, advice, make_plan, many
from quantize.build_network import Policy
from quantize.bundle.pack import PackOptions
from quantize.command import PackSources, pack_bundle, saturates
from quantize.dataset import Splits, read_data
from quantize.detector_specs import find_spec
from quantize.network_spec import Spec
from quantize.open_set.fit_rules import NAMED_GATE
from trainer.catalogue.embed_gallery import embed_gallery
from trainer.catalogue.items import item_id_of
from trainer.disk_errors import report_disk_errors
from trainer.loop.training_loop import keep_freed_memory
from trainer.metrics import is_a_guess
from trainer.models.published_weights import PublishedWeights, choose_weights

log = logging.getLogger(__name__)

PAGE, REPORT, WORK, MEMORY = "how-good.html", "report.json", "work", "learn.json"
# Share of unknown objects of the same kind that may be named. Published features know less of what makes items differ.
# Measured with 39 photos of 17 groceries, three draws (2026-11-28): 27 % of unseen photos named rightly, 3 % wrongly,
# 0 of 141 unrelated pictures named; at 0.1, 37 %, 4 % and 1.
FALSE_ACCEPT = {"general": 0.05, "trained": 0.1}
_MOST_HELD_OUT = 2000  # photos that the thresholds are fitted on
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LearnOptions:
    """What a person asked for."""

    photos: Path
    out: Path
    root: Path | None = None
    weights: str | None = None
    minutes: float = 60.0
    camera: str = "v4l2:///dev/video0"
    detector: Path | None = None  # an ONNX file
    detector_spec: Spec | None = None
    labels: Path | None = None  # CSV of names for people
    name: str | None = None  # of the recogniser; None: that of the folder
    sequence: int = 1  # least number of the bundle

    @property
    def shown_name(self) -> str:
        """Return the name of the recogniser."""
        return self.name or self.out.resolve().name


def run_learn(args: argparse.Namespace) -> None:
    """Run the command with its arguments, see `learn`."""
    if args.minutes <= 0:
        raise TrainError(f"--minutes is {args.minutes:g}; give more than 0")
    spec = None
    if args.detector is not None:
        keep = args.keep_labels.split(",") if args.keep_labels else None
        spec = find_spec(args.detector, args.detector_spec, keep)
    if "${" not in args.camera:
        parse_source(args.camera)
    learn(
        LearnOptions(
            args.photos,
            args.out,
            args.root,
            args.weights,
            args.minutes,
            args.camera,
            args.detector,
            spec,
            args.labels,
            args.name,
            args.sequence,
        )
    )


def learn(options: LearnOptions) -> dict[str, Any]:
    """Run all steps; print what happens.

    Returns:
        the report, as it is stored in report.json.

    Raises:
        DataError, TrainError: the photos cannot be used, or what was learned is no better than guessing.
        QuantizeError, BundleError, GalleryError, EngineError: a step failed.
    """
    with report_disk_errors(f"{options.out}: cannot write"):
        return _learn(options)


def _learn(options: LearnOptions) -> dict[str, Any]:
    started = time.monotonic()
    keep_freed_memory()
    weights = choose_weights(options.weights)
    work = options.out / WORK
    work.mkdir(parents=True, exist_ok=True)
    photos = read_photos(options.photos, options.root, work / "photos", _progress, options.labels)
    counts = Photos.of(photos.samples)
    _say(f"{counts.told}; {weights.told}")
    if photos.left_out:
        _say(_left_out(photos))
    for line in advice(photos.samples, 3):
        _say(f"  {line}")
    samples = hold_out(photos)
    plan = _plan(options, weights, samples, counts, work)
    _say(f"{_WORDS[plan.how]}; about {many(plan.minutes, 'minute')}: {plan.why}")
    index = write_index(samples, work / "index.csv")
    run, how = make_embedder(plan, index, weights, work)
    held_out = [sample for sample in samples if sample.split == "val"]
    _require_learned(run, counts, len(held_out))
    bundle, warnings = _pack(options, run, index, work)
    gallery, verdict = _embed_and_judge(bundle, samples, held_out, work)
    install_pair(options.out, bundle, gallery)
    name = options.shown_name
    kept = write_configurations(options.out, name, options.camera, detects=options.detector is not None)
    shown = {item_id_of(sample.item): sample for sample in reversed(samples) if sample.split == "train"}
    told = f"{how[0].upper()}{how[1:]}. {weights.told}. Input {plan.px} x {plan.px} pixels."
    notes = _notes(bundle, photos)
    page = render_page(name, counts, verdict, told, advice(photos.samples), shown, notes)
    write_durably(options.out / PAGE, page.encode("utf-8"))
    report = {
        "photos": counts.photos,
        "items": counts.items,
        "categories": counts.categories,
        "left_out": len(photos.left_out),
        "how": how,
        "weights": weights.told,
        "plan": asdict(plan),
        "nearest_of_held_out": recall_of(run),
        "verdict": verdict.as_json(),
        "answers": listed_answers(verdict, photos.sources),
        "warnings": list(warnings),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    write_durably(options.out / REPORT, json.dumps(report, indent=1, ensure_ascii=False).encode("utf-8"))
    for line in (headline(verdict), *(f"note: {note}" for note in notes)):
        _say(line)
    _say(f"page: {options.out / PAGE}")
    if kept:
        _say(f"kept as they are: {', '.join(kept)}; delete one and run this again for a new one")
    _say(f"start: {run_command(options.out / KIOSK)}")
    return report


def _notes(bundle: Path, photos: PhotoSet) -> list[str]:
    """Say in plain words what a person must know beside the numbers."""
    notes = []
    if not all(rule.calibrated for one in read_bundle(bundle).manifest.embedders for rule in one.open_set.values()):
        notes.append(
            "Too few photos were held out to say how sure it is: it answers “looks like”, without a percentage."
        )
    return [*notes, _left_out(photos)] if photos.left_out else notes


def _left_out(photos: PhotoSet) -> str:
    return f"{many(len(photos.left_out), 'photo')} left out; the first: {photos.left_out[0]}"


_WORDS = {"general": "nothing is trained, published features are used", "trained": "a network is trained"}


def _plan(options: LearnOptions, weights: PublishedWeights, samples: list[Sample], counts: Photos, work: Path) -> Plan:
    """Make a plan, or take that of an interrupted run over these photos; other photos begin again."""
    memory = read_memory(work / MEMORY)
    listed = sorted((s.path.name, s.split, s.category, s.item, s.label) for s in samples)
    key = _key_of(weights.backbone, weights.pretrained, options.minutes, listed)
    if memory.plan is not None and memory.learned_from == key:
        return memory.plan
    clear(work / "general", work / "trained")
    plan = make_plan(counts, measure_speed(weights), options.minutes)
    write_memory(work / MEMORY, replace(memory, learned_from=key, plan=plan))
    return plan


def _key_of(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _require_learned(run: Path, counts: Photos, held_out: int) -> None:
    """Check that the vectors know more than a guess."""
    recall = recall_of(run)
    if recall is not None and is_a_guess(recall, held_out, counts.items):
        raise TrainError(
            f"of {held_out} photos that were held out, {recall * held_out:.0f} are nearest to their own item, which is "
            "no better than guessing: check that each folder holds photos of one item, and take more photos"
        )


def _pack(options: LearnOptions, run: Path, index: Path, work: Path) -> tuple[Path, tuple[str, ...]]:
    """Pack the run and the detector into a bundle, or return the bundle that was packed from them, and its warnings."""
    bundle, memory = work / "bundle", read_memory(work / MEMORY)
    detector = options.detector and sha256_of(options.detector)
    key = _key_of(memory.learned_from, run.name, detector, options.detector_spec)
    if bundle.is_dir() and memory.packed_from == key:
        return bundle, memory.warnings
    clear(bundle, work / "gallery", work / "judged")
    sequence = max(memory.sequence + 1, options.sequence)
    shop = hashed_file_name(options.shown_name).replace("~", "-")
    packed = pack_bundle(
        PackOptions(
            bundle_id=f"{shop}-{sequence}",
            sequence=sequence,
            out=bundle,
            false_accept=FALSE_ACCEPT[run.name],
            waived=frozenset({f"embedder-{run.name}.{NAMED_GATE}"}),  # the page says how little it names
        ),
        PackSources(embedders=(run,), detector=options.detector, detector_spec=options.detector_spec),
        read_data(index, None, splits=Splits(gallery=("train",)), held_out_images=_MOST_HELD_OUT),
        Policy(fallback_fp32=True, saturates=saturates("this")),
        progress=_progress,
    )
    write_memory(work / MEMORY, replace(memory, packed_from=key, sequence=sequence, warnings=packed.warnings))
    return bundle, packed.warnings


def _embed_and_judge(
    bundle: Path, samples: Sequence[Sample], held_out: Sequence[Sample], work: Path
) -> tuple[Path, Verdict]:
    """Embed the gallery of all photos, and judge with one that lacks the held-out photos."""
    gallery = _embed(bundle, samples, work / "gallery")
    if not held_out:
        return gallery, Verdict((), 0.0)
    judged = _embed(bundle, [sample for sample in samples if sample.split == "train"], work / "judged")
    return gallery, judge(bundle, judged, _progress(held_out, "asking"))


def _embed(bundle: Path, samples: Sequence[Sample], folder: Path) -> Path:
    """Embed photos into a gallery; one that an earlier run finished stays."""
    if not (folder / INDEX_NAME).is_file():
        clear(folder)
        _say(f"embedding {many(len(samples), 'photo')}")
        embed_gallery(bundle, samples, folder)
    return folder


def _progress(listed: Sequence[T], what: str) -> Iterable[T]:
    bar: Iterable[T] = tqdm(listed, desc=what, unit="photo", file=sys.stderr)
    return bar


def _say(line: str) -> None:
    print(line, flush=True)
