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
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from dataset_formats.records import Sample
from edge.bundle.bundle import read_bundle
from edge.durable import write_durably
from edge.errors import TrainError
from edge.file_names import hashed_file_name
from learn.device_folder import KIOSK, clear, install_pair, write_configurations
from learn.judge import Verdict, judge
from learn.networks import make_embedder, measure_speed, recall_of
from learn.page import headline, render_page
from learn.photos import PhotoSet, hold_out, read_photos, write_index
from learn.plan import Photos, Plan, advice, make_plan, many
from quantize.build_network import Policy
from quantize.command import PackSources, pack_bundle, saturates
from quantize.dataset import Splits, read_data
from quantize.detector_specs import find_spec
from quantize.network_spec import Spec
from quantize.open_set.fit_rules import NAMED_GATE
from quantize.pack import PackOptions
from trainer.disk_errors import report_disk_errors
from trainer.embed_gallery import embed_gallery
from trainer.loop.training_loop import keep_freed_memory
from trainer.metrics import is_a_guess
from trainer.models.published_weights import PublishedWeights, choose_weights

log = logging.getLogger(__name__)

PAGE, REPORT, WORK, MEMORY = "how-good.html", "report.json", "work", "learn.json"
# Share of unknown objects of the same kind that may be named. Published features know less of what makes items differ.
# Measured with 39 photos of 17 groceries, three draws (2026-11-28): 27 % of unseen photos named rightly, 3 % wrongly,
# 0 of 141 unrelated pictures named; at 0.1, 37 %, 4 % and 1.
FALSE_ACCEPT = {"general": 0.05, "trained": 0.1}
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


@dataclass(frozen=True, slots=True)
class _Job:
    """One run of the command."""

    plan: Plan
    sequence: int
    samples: list[Sample]

    def of(self, *splits: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.split in splits]


def run_learn(args: argparse.Namespace) -> None:
    """Run the command with its arguments, see `learn`."""
    if args.minutes <= 0:
        raise TrainError(f"--minutes is {args.minutes:g}; give more than 0")
    spec = None
    if args.detector is not None:
        keep = args.keep_labels.split(",") if args.keep_labels else None
        spec = find_spec(args.detector, args.detector_spec, keep)
    options = LearnOptions(args.photos, args.out, args.root, args.weights, args.minutes, args.camera)
    learn(replace(options, detector=args.detector, detector_spec=spec))


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
    photos = read_photos(options.photos, options.root, work / "photos", _progress)
    counts = Photos.of(photos.samples)
    _say(f"{counts.told}; {weights.told}")
    if photos.left_out:
        _say(f"{many(len(photos.left_out), 'photo')} left out; the first: {photos.left_out[0]}")
    for line in advice(photos.samples, 3):
        _say(f"  {line}")
    job = _plan(options, weights, hold_out(photos), counts, work)
    _say(f"{_WORDS[job.plan.how]}; about {job.plan.minutes:.0f} minutes: {job.plan.why}")
    index = write_index(job.samples, work / "index.csv")
    run, how = make_embedder(job.plan, index, weights, work)
    _require_learned(run, counts, len(job.of("val")))
    bundle, warnings = _pack(options, job, run, index, work)
    gallery, verdict = _embed_and_judge(bundle, job, work)
    install_pair(options.out, bundle, gallery)
    name = options.out.resolve().name
    write_configurations(options.out, name, options.camera, detects=options.detector is not None)
    shown = {sample.item: sample for sample in reversed(job.of("train"))}
    told = f"{how[0].upper()}{how[1:]}. {weights.told}. Input {job.plan.px} x {job.plan.px} pixels."
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
        "plan": job.plan.as_json(),
        "nearest_of_held_out": recall_of(run),
        "verdict": verdict.as_json(),
        "warnings": list(warnings),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    write_durably(options.out / REPORT, json.dumps(report, indent=1, ensure_ascii=False).encode("utf-8"))
    _say(headline(verdict))
    for line in notes:
        _say(f"note: {line}")
    _say(f"page: {options.out / PAGE}")
    _say(f"start: edge run -c {options.out / KIOSK}")
    return report


def _notes(bundle: Path, photos: PhotoSet) -> list[str]:
    """Say in plain words what a person must know beside the numbers."""
    notes = []
    if not all(rule.calibrated for one in read_bundle(bundle).manifest.embedders for rule in one.open_set.values()):
        notes.append(
            "Too few photos were held out to say how sure it is: it answers “looks like”, without a percentage."
        )
    if photos.left_out:
        notes.append(f"{many(len(photos.left_out), 'photo')} left out; the first: {photos.left_out[0]}")
    return notes


_WORDS = {"general": "nothing is trained, published features are used", "trained": "a network is trained"}


def _plan(options: LearnOptions, weights: PublishedWeights, samples: list[Sample], counts: Photos, work: Path) -> _Job:
    """Make a plan, or take that of an interrupted run over these photos; other photos begin again."""
    listed = "\n".join(sorted(f"{s.path.name}\t{s.split}\t{s.category}\t{s.item}" for s in samples))
    asked = (weights.backbone, weights.pretrained, options.minutes, str(options.detector), listed)
    key = hashlib.sha256(repr(asked).encode("utf-8", "surrogatepass")).hexdigest()
    memory = work / MEMORY
    before: dict[str, Any] = {"key": "", "sequence": 0}
    if memory.is_file():
        before = json.loads(memory.read_text(encoding="utf-8"))
    if before["key"] == key:
        return _Job(Plan(**before["plan"]), before["sequence"], samples)
    clear(*(work / name for name in ("general", "trained", "bundle", "gallery", "judged")))
    plan = make_plan(counts, measure_speed(weights), options.minutes)
    sequence = before["sequence"] + 1
    state = {"key": key, "sequence": sequence, "plan": plan.as_json()}
    write_durably(memory, json.dumps(state, indent=1).encode("utf-8"))
    return _Job(plan, sequence, samples)


def _require_learned(run: Path, counts: Photos, held_out: int) -> None:
    """Check that the vectors know more than a guess."""
    recall = recall_of(run)
    if recall is not None and is_a_guess(recall, held_out, counts.items):
        raise TrainError(
            f"of {held_out} photos that were held out, {recall * held_out:.0f} are nearest to their own item, which is "
            "no better than guessing: check that each folder holds photos of one item, and take more photos"
        )


def _pack(options: LearnOptions, job: _Job, run: Path, index: Path, work: Path) -> tuple[Path, tuple[str, ...]]:
    bundle, memory = work / "bundle", work / "pack.json"
    if bundle.is_dir() and memory.is_file():
        return bundle, tuple(json.loads(memory.read_text(encoding="utf-8")))
    shutil.rmtree(bundle, ignore_errors=True)
    data = read_data(
        index=index,
        scenes=None,
        root=None,
        splits=Splits(gallery=("train",)),
        calibration_images=200,
        held_out_images=2000,
    )
    packed = pack_bundle(
        PackOptions(
            bundle_id=f"{hashed_file_name(options.out.resolve().name)}-{job.sequence}".replace("~", "-"),
            sequence=job.sequence,
            out=bundle,
            false_accept=FALSE_ACCEPT[run.name],
            waived=frozenset({f"embedder-{run.name}.{NAMED_GATE}"}),  # the page says how little it names
        ),
        PackSources(embedders=(run,), detector=options.detector, detector_spec=options.detector_spec),
        data,
        Policy(fallback_fp32=True, saturates=saturates("this")),
        progress=_progress,
    )
    write_durably(memory, json.dumps(packed.warnings, ensure_ascii=False).encode("utf-8"))
    return bundle, packed.warnings


def _embed_and_judge(bundle: Path, job: _Job, work: Path) -> tuple[Path, Verdict]:
    """Embed the gallery of all photos, and judge with one that lacks the held-out photos."""
    gallery, judged, held_out = work / "gallery", work / "judged", job.of("val")
    clear(gallery, judged)
    embed_gallery(bundle, _progress_all(job.samples, "embedding"), gallery)
    if not held_out:
        return gallery, Verdict((), 0.0)
    embed_gallery(bundle, job.of("train"), judged)
    return gallery, judge(bundle, judged, list(_progress(held_out, "asking")))


def _progress(listed: Sequence[T], what: str) -> Iterable[T]:
    bar: Iterable[T] = tqdm(listed, desc=what, unit="photo", file=sys.stderr)
    return bar


def _progress_all(listed: Sequence[Sample], what: str) -> Sequence[Sample]:
    _say(f"{what} {len(listed)} photos")
    return listed


def _say(line: str) -> None:
    print(line, flush=True)
