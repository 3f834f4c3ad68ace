"""The command `edge-train learn`: from photos to a folder that `edge run` starts, with a page that says how good it is.

Each step is one of the single commands: read and split the photos, train or fit an embedder (`edge-train embedder`),
pack it (`edge-quantize pack`), embed the gallery (`edge-train embed`), judge, install and activate (`edge bundle`).
Killed, it goes on where it was; with other photos it begins again, and what people taught the kiosk stays.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dataset_formats.layouts import read_listing
from dataset_formats.notices import report
from dataset_formats.records import Sample
from edge.config.camera_url import parse_source
from edge.durable import write_durably
from edge.errors import TrainError
from learn.crops import INDEX_FILE, CropOptions, cut_scenes, report_of
from learn.device_folder import KIOSK, clear, install_pair, write_configurations
from learn.judge import Verdict, judge, listed_answers
from learn.memory import read_memory, write_memory
from learn.networks import make_embedder, measure_speed, recall_of
from learn.open_detector import open_detector
from learn.page import headline, render_page
from learn.photos import hold_out, read_photos, write_index
from learn.plan import Photos, Plan, advice, make_plan, many
from learn.scene_set import named_pictures, names_that_miss, read_names
from learn.steps import (
    INDEX,
    MEMORY,
    PAGE,
    REPORT,
    WORK,
    LearnOptions,
    detector_key,
    embed,
    items_lost,
    key_of,
    left_out_of,
    notes_about,
    pack,
    progress,
    say,
    say_how_to_start,
)
from quantize.command import PackSources
from quantize.detector_specs import find_spec
from trainer.catalogue.items import item_id_of
from trainer.disk_errors import report_disk_errors
from trainer.loop.training_loop import keep_freed_memory
from trainer.metrics import is_a_guess
from trainer.models.published_weights import PublishedWeights, choose_weights

log = logging.getLogger(__name__)


def run_learn(args: argparse.Namespace) -> None:
    """Run the command with its arguments, see `learn` and `learn.from_scenes`."""
    if args.minutes <= 0:
        raise TrainError(f"--minutes is {args.minutes:g}; give more than 0")
    if (args.photos is None) == (args.from_scenes is None):
        raise TrainError("give either a folder of photos, or --from-scenes with a data set that has boxes")
    if args.names is not None and args.from_scenes is None:
        raise TrainError("--names says what boxes are named; it goes with --from-scenes (for photos: --labels)")
    spec = None
    if (args.keep_labels or args.detector_spec) and (args.detector is None or args.detector.is_dir()):
        raise TrainError("--detector-spec and --keep-labels are for a --detector that is an ONNX file")
    if args.detector is not None and not args.detector.is_dir():
        spec = find_spec(args.detector, args.detector_spec, _listed(args.keep_labels))
    if "${" not in args.camera:
        parse_source(args.camera)
    options = LearnOptions(
        args.from_scenes or args.photos,
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
        args.names,
    )
    if args.from_scenes is None:
        learn(options)
    else:
        from learn.from_scenes import learn_from_scenes

        learn_from_scenes(options)


def run_crops(args: argparse.Namespace) -> dict[str, Any]:
    """Run the command `edge-train crops` with its arguments; return its report.

    Raises:
        DataError, TrainError: the scenes cannot be used, or the folder exists.
        QuantizeError, BundleError, EngineError: the detector cannot be used.
    """
    if (args.out / INDEX_FILE).exists():
        raise TrainError(f"{args.out} holds crops already; choose a new --out folder")
    detector = open_detector(args.detector, args.detector_spec, _listed(args.keep_labels), args.threshold)
    listing = read_listing(args.scenes, args.root, boxed=True)
    for line in report(listing, args.scenes):
        log.warning("%s", line)
    names = {} if args.names is None else read_names(args.names)
    for line in names_that_miss(listing, names, args.names) if names else ():
        log.warning("%s", line)
    labels = {(one.category, one.item): one.label for one in names.values()}
    pictures = named_pictures(listing, names)
    options = _crop_options(args, sorted({one.split for one in pictures}))
    with report_disk_errors(f"{args.out}: cannot write"):
        cut = cut_scenes(progress(pictures, "cutting"), detector.detect, args.out, options, labels)
    return {"index": str(args.out / INDEX_FILE), "detector": detector.told, "crops": len(cut.samples), **report_of(cut)}


def _crop_options(args: argparse.Namespace, splits: Sequence[str]) -> CropOptions:
    """Return how crops are cut.

    Raises:
        TrainError: a number is out of its range, or the data set has no such split.
    """
    if not 0 < args.iou <= 1:
        raise TrainError(f"--iou is {args.iou:g}; give more than 0 and at most 1")
    if not 0 <= args.margin <= 1:
        raise TrainError(f"--margin is {args.margin:g}; give 0 to 1")
    if args.threshold is not None and not 0 <= args.threshold < 1:
        raise TrainError(f"--threshold is {args.threshold:g}; give 0 to less than 1")
    add_missed = tuple(_listed(args.add_missed) or ())
    if absent := [split for split in add_missed if split not in splits]:
        raise TrainError(f"--add-missed: there is no split {absent[0]!r}; the data set has {', '.join(splits)}")
    return CropOptions(args.iou, args.margin, add_missed)


def _listed(text: str | None) -> list[str] | None:
    return [one.strip() for one in text.split(",")] if text else None


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
    photos = read_photos(options.photos, options.root, work / "photos", progress, options.labels)
    counts = Photos.of(photos.samples)
    say(f"{counts.told}; {weights.told}")
    lost = [*left_out_of(photos.left_out, "photo"), *items_lost(photos.lost)]
    for line in (*lost, *(f"  {text}" for text in advice(photos.samples, 3))):
        say(line)
    samples = hold_out(photos)
    plan = _plan(options, weights, samples, counts, work)
    say(f"{_WORDS[plan.how]}; about {many(plan.minutes, 'minute')}: {plan.why}")
    index = write_index(samples, work / INDEX)
    run, how = make_embedder(plan, index, weights, work)
    held_out = [sample for sample in samples if sample.split == "val"]
    _require_learned(run, counts, len(held_out))
    bundle, warnings = _pack(options, run, work)
    gallery, verdict = _embed_and_judge(bundle, samples, held_out, work)
    install_pair(options.out, bundle, gallery)
    name = options.shown_name
    kept = write_configurations(options.out, name, options.camera, detects=options.detector is not None)
    shown = {item_id_of(sample.item): sample for sample in reversed(samples) if sample.split == "train"}
    told = f"{how[0].upper()}{how[1:]}. {weights.told}. Input {plan.px} x {plan.px} pixels."
    notes = [
        *notes_about(bundle),
        *lost,
        *left_out_of(verdict.unreadable, "held-out photo"),
    ]
    page = render_page(name, counts, verdict, told, advice(photos.samples), shown, notes)
    write_durably(options.out / PAGE, page.encode("utf-8"))
    report = {
        "photos": counts.photos,
        "items": counts.items,
        "categories": counts.categories,
        "left_out": len(photos.left_out),
        "left_out_why": photos.left_out,
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
        say(line)
    say_how_to_start(options.out, kept, KIOSK)
    return report


_WORDS = {"general": "nothing is trained, published features are used", "trained": "a network is trained"}


def _plan(options: LearnOptions, weights: PublishedWeights, samples: list[Sample], counts: Photos, work: Path) -> Plan:
    """Make a plan, or take that of an interrupted run over these photos; other photos begin again."""
    memory = read_memory(work / MEMORY)
    listed = sorted((s.path.name, s.split, s.category, s.item, s.label) for s in samples)
    key = key_of(weights.backbone, weights.pretrained, options.minutes, listed)
    if memory.plan is not None and memory.learned_from == key:
        return memory.plan
    clear(work / "general", work / "trained")
    plan = make_plan(counts, measure_speed(weights), options.minutes)
    write_memory(work / MEMORY, replace(memory, learned_from=key, plan=plan))
    return plan


def _require_learned(run: Path, counts: Photos, held_out: int) -> None:
    """Check that the vectors know more than a guess."""
    recall = recall_of(run)
    if recall is not None and is_a_guess(recall, held_out, counts.items):
        raise TrainError(
            f"of {held_out} photos that were held out, {recall * held_out:.0f} are nearest to their own item, which is "
            "no better than guessing: check that each folder holds photos of one item, and take more photos"
        )


def _pack(options: LearnOptions, run: Path, work: Path) -> tuple[Path, tuple[str, ...]]:
    """Pack the run and the detector, see `learn.steps.pack`."""
    sources = PackSources(embedders=(run,), detector=options.detector, detector_spec=options.detector_spec)
    learned_from = read_memory(work / MEMORY).learned_from
    return pack(options, sources, (learned_from, run.name, detector_key(options.detector), options.detector_spec))


def _embed_and_judge(
    bundle: Path, samples: Sequence[Sample], held_out: Sequence[Sample], work: Path
) -> tuple[Path, Verdict]:
    """Embed the gallery of all photos, and judge with one that lacks the held-out photos."""
    gallery = embed(bundle, samples, work / "gallery")
    if not held_out:
        return gallery, Verdict((), 0.0)
    judged = embed(bundle, [sample for sample in samples if sample.split == "train"], work / "judged")
    return gallery, judge(bundle, judged, progress(held_out, "asking"))
