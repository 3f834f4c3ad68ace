"""The command `edge-train label`: propose boxes, import edited ones, train on them, propose again."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dataset_formats.decode import PICTURE_SUFFIXES, read_image
from edge.durable import sha256_of
from edge.errors import CaptureError, TrainError
from edge.imaging.image import encode_image
from trainer.labelling.auto_label import DETECTOR_ALONE_FROM, NOT_COMMON, Proposers, TrainedDetector
from trainer.labelling.contact_sheet import cell, sheets
from trainer.labelling.cosegmentation import CommonComponent, colocalise, load_feature_extractor
from trainer.labelling.cue_cache import CueCache
from trainer.labelling.exports import export_labels
from trainer.labelling.imports import import_edited
from trainer.labelling.label_file import LabelledPicture
from trainer.labelling.label_store import LABELS_FILE, NEXT_FILE, LabelStore, open_label_store
from trainer.labelling.proposals import Priors
from trainer.models.networks import WEIGHTS_FILE
from trainer.recipe import DetectorRecipe, load_recipe
from trainer.tasks.detector import train_detector

log = logging.getLogger(__name__)

_SET = 200  # pictures of a class from which its common component is computed


@dataclass(frozen=True, slots=True)
class ListedPicture:
    """One picture to label."""

    path: Path
    name: str  # relative to the label folder, as its files name it
    category: str  # the sub-folder that it lies in; "object" if it lies in none


def list_pictures(root: Path, folder: Path) -> list[ListedPicture]:
    """List all pictures below a folder.

    Args:
        root: folder of pictures.
        folder: label folder; pictures inside it, such as contact sheets, are ignored.

    Raises:
        TrainError: there is no picture.
    """
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise TrainError(f"{root}: holds no picture")
    inner = folder.resolve()
    listed = []
    for path in paths:
        if inner in path.resolve().parents:
            continue
        below = path.relative_to(root).parts
        name = Path(os.path.relpath(path.resolve(), inner)).as_posix()
        listed.append(ListedPicture(path, name, below[0] if len(below) > 1 else "object"))
    return listed


def propose_all(store: LabelStore, found: list[ListedPicture], proposers: Proposers, cache: CueCache) -> dict[str, int]:
    """Propose boxes for every unconfirmed picture.

    Returns:
        counts of pictures, proposed boxes, skipped confirmed pictures, unreadable ones, and pictures that do not show
        what the others of their class have in common.
    """
    counts = {"pictures": 0, "boxes": 0, "confirmed": 0, "unreadable": 0, "without_common_object": 0}
    common: dict[str, CommonComponent | None] = {}
    for one in found:
        known = store.pictures.get(one.name)
        if known is not None and known.state == "human":
            counts["confirmed"] += 1
            continue
        try:
            image = read_image(one.path)
        except CaptureError as error:
            log.warning("skipped %s", error)
            counts["unreadable"] += 1
            continue
        from_cues = cache.get(one.name, image) if proposers.use_cues else []
        if from_cues is None:
            if one.category not in common:
                common[one.category] = _common(proposers, found, one.category)
            from_cues = proposers.propose_from_cues(image, common[one.category])
            cache.put(one.name, image, from_cues)
        label = proposers.prelabel(image, from_cues)
        counts["without_common_object"] += label.why == NOT_COMMON
        height, width = image.shape[:2]
        boxes = tuple(replace(box, category=one.category) for box in label.proposals)
        store.propose(LabelledPicture(one.name, width, height, boxes, "proposed", label.uncertainty, label.why))
        counts["pictures"] += 1
        counts["boxes"] += len(boxes)
    return counts


def train_round(store: LabelStore, recipe: Path, overrides: list[str], start: Path | None) -> Path:
    """Train a detector on the confirmed pictures; the run folder's name holds the number of confirmations.

    Args:
        store: the labels, already saved.
        recipe: recipe of a detector; its scenes are replaced by the store's.
        overrides: KEY=VALUE overrides of the recipe.
        start: run folder of an earlier round to start from; None: start from the recipe.

    Raises:
        TrainError: there are fewer than five confirmed pictures, the recipe is not a detector's, or training failed.
    """
    if len(store.edits) < 5:
        raise TrainError(f"{store.folder}: {len(store.edits)} pictures are confirmed; training needs at least five")
    labels = store.folder / LABELS_FILE
    given = [*overrides, f"scenes={{train: {str(labels.resolve())!r}}}"]
    loaded = load_recipe(recipe, given if start is None else [*given, f"init_from={str(start.resolve())!r}"])
    if not isinstance(loaded, DetectorRecipe):
        raise TrainError(f"{recipe}: kind is {loaded.kind!r}, expected 'detector'")
    run = store.folder / f"detector-{store.confirmations}"
    train_detector(loaded, run)
    return run


def draw_sheets(store: LabelStore) -> int:
    """Write contact sheets, the most uncertain pictures first and confirmed ones last; return the number of sheets."""
    for old in store.folder.glob("sheet-*.jpg"):
        old.unlink()
    confirmed = [one for one in store.pictures.values() if one.state == "human"]
    count = 0
    for page in sheets(_cells(store, [*store.queue(), *confirmed])):
        (store.folder / f"sheet-{count:03d}.jpg").write_bytes(encode_image(page, ".jpg"))
        count += 1
    return count


def run_label(args: argparse.Namespace) -> dict[str, object]:
    """Import, train, propose and export, in this order, as the arguments say.

    Raises:
        TrainError: see import_edited, train_round and export_labels; or --export and --to are not given together.
        DataError: a file cannot be read or written.
    """
    if (args.export is None) != (args.to is None):
        raise TrainError("--export and --to: found one, expected both or none")
    store = open_label_store(args.out)
    report: dict[str, object] = {}
    if args.edited is not None:
        report["edits"] = import_edited(store, args.edited).report()
        store.save()
    detector = args.detector
    if args.train is not None:
        detector = train_round(store, args.train, args.set, args.detector)
        report["detector"] = str(detector)
    if args.pictures is not None:
        extractor = None if args.model is None else load_feature_extractor(args.model, args.backbone, args.input_mean)
        own = None if detector is None else TrainedDetector(detector)
        proposers = Proposers(
            priors_of(args), extractor, own, not _detector_alone(own, detector, args.out), args.descriptors
        )
        found = list_pictures(args.pictures, args.out)
        settings = [proposers.priors, None if args.model is None else _digest(args.model), args.input_mean, len(found)]
        settings += [args.descriptors] if args.descriptors != "unit" else []
        report |= propose_all(store, found, proposers, CueCache(args.out, repr(settings)))
    store.save()
    report["to_edit"] = store.write_batch(args.out / NEXT_FILE, args.batch)
    report["waiting"] = len(store.queue())
    report["sheets"] = draw_sheets(store)
    if args.export is not None:
        report["exported"] = export_labels(store, args.export, args.to)
    return report


def _detector_alone(own: TrainedDetector | None, run: Path | None, folder: Path) -> bool:
    """Return whether the detector was trained in this label folder, on enough confirmed pictures."""
    if own is None or run is None:
        return False
    return run.resolve().parent == folder.resolve() and own.pictures >= DETECTOR_ALONE_FROM


def priors_of(args: argparse.Namespace) -> Priors:
    """Return the priors that the arguments give."""
    given = {"threshold": args.threshold, "count": args.count}
    if args.area is not None:
        given |= {"least": args.area[0], "most": args.area[1]}
    if args.aspect is not None:
        given["aspect"] = args.aspect
    return Priors(**{key: value for key, value in given.items() if value is not None})


def _digest(model: Path) -> str:
    return sha256_of(model / WEIGHTS_FILE if model.is_dir() else model)


def _common(proposers: Proposers, found: list[ListedPicture], category: str) -> CommonComponent | None:
    if proposers.extractor is None:
        return None
    mine = [one for one in found if one.category == category]
    features = []
    for one in mine[:: -(-len(mine) // _SET)]:
        try:
            features.append(proposers.extractor.extract(read_image(one.path)))
        except CaptureError:
            continue  # propose_all reports it
    return colocalise(features, proposers.descriptors)


def _cells(store: LabelStore, listed: list[LabelledPicture]) -> Iterator[np.ndarray]:
    for one in listed:
        try:
            yield cell(read_image(store.folder / one.name), one)
        except CaptureError as error:
            log.warning("left out of the contact sheets: %s", error)
