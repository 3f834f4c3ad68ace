"""`edge-train label`: propose boxes, take edited ones back, train on them, propose anew."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge.durable import sha256_of
from edge.errors import CaptureError, TrainError
from edge.imaging.image import IMAGE_SUFFIXES, encode_image, read_image
from trainer.labelling.auto_label import DETECTOR_ALONE_FROM, TrainedDetector, Proposers
from trainer.labelling.contact_sheet import cell, sheets
from trainer.labelling.cosegmentation import CommonComponent, FeatureExtractor, colocalise, load_feature_extractor
from trainer.labelling.cue_cache import CueCache
from trainer.labelling.imports import match_names, read_annotations
from trainer.labelling.label_store import LABELS_FILE, LabelStore, LabelledPicture, open_label_store
from trainer.labelling.proposals import Priors
from trainer.models.networks import WEIGHTS_FILE
from trainer.recipe import DetectorRecipe, load_recipe
from trainer.tasks.detector import train_detector

log = logging.getLogger(__name__)

NEXT_FILE = "next.json"  # what to edit next
_SET = 200  # pictures of a class that its common map is found from


@dataclass(frozen=True, slots=True)
class ListedPicture:
    """One picture of a folder."""

    path: Path
    name: str  # relative to the label folder, as its files name it
    category: str  # the sub-folder that it lies in; "object" where it lies in none


def list_pictures(root: Path, folder: Path) -> list[ListedPicture]:
    """All pictures below a folder.

    Raises:
        TrainError: there are none.
    """
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise TrainError(f"{root}: found no picture, expected at least one")
    inner = folder.resolve()
    listed = []
    for path in paths:
        if inner in path.resolve().parents:  # contact sheets, where labels are kept among the pictures
            continue
        below = path.relative_to(root).parts
        name = Path(os.path.relpath(path.resolve(), inner)).as_posix()
        listed.append(ListedPicture(path, name, below[0] if len(below) > 1 else "object"))
    return listed


def propose_all(store: LabelStore, found: list[ListedPicture], proposers: Proposers, cache: CueCache) -> dict[str, int]:
    """Propose boxes for every picture that nobody has confirmed.

    Returns:
        counts of pictures, proposed boxes, confirmed pictures that were left alone, and unreadable ones.
    """
    counts = {"pictures": 0, "boxes": 0, "confirmed": 0, "unreadable": 0}
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
        seen = cache.get(one.name, image) if proposers.use_cues else []
        if seen is None:
            if one.category not in common:
                common[one.category] = _common(proposers.extractor, found, one.category)
            seen = proposers.propose_from_cues(image, common[one.category])
            cache.put(one.name, image, seen)
        told = proposers.prelabel(image, seen)
        height, width = image.shape[:2]
        boxes = tuple(replace(box, category=one.category) for box in told.proposals)
        store.propose(LabelledPicture(one.name, width, height, boxes, "proposed", told.uncertainty, told.why))
        counts["pictures"] += 1
        counts["boxes"] += len(boxes)
    return counts


def import_edited(store: LabelStore, source: Path) -> dict[str, object]:
    """Take edited boxes; every picture of the file is confirmed.

    Returns:
        what the edits changed: the boxes before them, how many needed no edit, mean overlap of those kept.

    Raises:
        TrainError: unreadable, a picture that is not in the store, or a box outside of its picture; what came before
            is kept.
    """
    drawn = read_annotations(source)
    names = match_names(drawn, store.pictures, str(source))
    edits = [store.confirm(names[name], boxes) for name, boxes in drawn.items()]
    overlaps = [overlap for edit in edits for overlap in edit.overlaps]
    return {
        "pictures": len(edits),
        "proposed": len(overlaps) + sum(edit.removed for edit in edits),
        "untouched": sum(edit.untouched for edit in edits),
        "added": sum(edit.added for edit in edits),
        "removed": sum(edit.removed for edit in edits),
        "mean_overlap": round(float(np.mean(overlaps)), 4) if overlaps else None,
    }


def train_round(store: LabelStore, recipe: Path, overrides: list[str], start: Path | None) -> Path:
    """Train a detector on what people confirmed; the run folder is named by how often they did.

    Args:
        store: whose labels are written.
        recipe: of a detector; its scenes are those of the store.
        overrides: of the recipe.
        start: run folder of an earlier round to go on from.

    Raises:
        TrainError: fewer than five confirmed pictures, no detector's recipe, or training broke down.
    """
    if len(store.edits) < 5:
        raise TrainError(f"{store.folder}: found {len(store.edits)} confirmed pictures, expected at least five")
    labels = store.folder / LABELS_FILE
    given = [*overrides, f"scenes={{train: {str(labels.resolve())!r}}}"]
    told = load_recipe(recipe, given if start is None else [*given, f"init_from={str(start.resolve())!r}"])
    if not isinstance(told, DetectorRecipe):
        raise TrainError(f"{recipe}: kind is {told.kind!r}, expected 'detector'")
    run = store.folder / f"detector-{store.confirmations}"
    train_detector(told, run)
    return run


def draw_sheets(store: LabelStore) -> int:
    """Write contact sheets, the most uncertain pictures first, confirmed ones last; gives how many."""
    for old in store.folder.glob("sheet-*.jpg"):
        old.unlink()
    confirmed = [one for one in store.pictures.values() if one.state == "human"]
    count = 0
    for page in sheets(_cells(store, [*store.queue(), *confirmed])):
        (store.folder / f"sheet-{count:03d}.jpg").write_bytes(encode_image(page, ".jpg"))
        count += 1
    return count


def run_label(args: argparse.Namespace) -> dict[str, object]:
    """Import, train, propose: whatever the arguments ask for, in that order."""
    store = open_label_store(args.out)
    report: dict[str, object] = {}
    if args.edited is not None:
        report["edits"] = import_edited(store, args.edited)
        store.save()
    detector = args.detector
    if args.train is not None:
        detector = train_round(store, args.train, args.set, args.detector)
        report["detector"] = str(detector)
    if args.pictures is not None:
        extractor = None if args.model is None else load_feature_extractor(args.model, args.backbone, args.input_mean)
        own = None if detector is None else TrainedDetector(detector)
        proposers = Proposers(priors_of(args), extractor, own, use_cues=not _detector_alone(own, detector, args.out))
        found = list_pictures(args.pictures, args.out)
        said = [proposers.priors, None if args.model is None else _digest(args.model), args.input_mean, len(found)]
        report |= propose_all(store, found, proposers, CueCache(args.out, repr(said)))
    store.save()
    report["to_edit"] = store.write_batch(args.out / NEXT_FILE, args.batch)
    report["waiting"] = len(store.queue())
    report["sheets"] = draw_sheets(store)
    return report


def _detector_alone(own: TrainedDetector | None, run: Path | None, folder: Path) -> bool:
    """Whether a detector was trained here, on enough confirmed pictures; of another nobody knows what it knows."""
    if own is None or run is None:
        return False
    return run.resolve().parent == folder.resolve() and own.pictures >= DETECTOR_ALONE_FROM


def priors_of(args: argparse.Namespace) -> Priors:
    """What a person said of the objects."""
    given = {"threshold": args.threshold, "count": args.count}
    if args.area is not None:
        given |= {"least": args.area[0], "most": args.area[1]}
    if args.aspect is not None:
        given["aspect"] = args.aspect
    return Priors(**{key: value for key, value in given.items() if value is not None})


def _digest(model: Path) -> str:
    return sha256_of(model / WEIGHTS_FILE if model.is_dir() else model)


def _common(extractor: FeatureExtractor | None, found: list[ListedPicture], category: str) -> CommonComponent | None:
    if extractor is None:
        return None
    mine = [one for one in found if one.category == category]
    features = []
    for one in mine[:: -(-len(mine) // _SET)]:
        try:
            features.append(extractor.extract(read_image(one.path)))
        except CaptureError:
            continue  # told when its turn comes
    return colocalise(features)


def _cells(store: LabelStore, listed: list[LabelledPicture]) -> Iterator[np.ndarray]:
    for one in listed:
        try:
            yield cell(read_image(store.folder / one.name), one)
        except CaptureError as error:
            log.warning("not drawn: %s", error)
