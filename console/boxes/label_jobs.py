"""Jobs of `edge-train label`: it proposes boxes by cues, and trains detectors on what people confirmed.

A set has a label folder below the console's data. A job gets links to the pictures that it looks at: pictures stay
where they lie. When it has ended well, its `labels.json` is read.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from console.boxes.box_queue import count_boxes
from console.boxes.editing import is_same
from console.boxes.proposing import (
    ProposedBox,
    ProposedPicture,
    RoundKind,
    SetPicture,
    Taken,
    begin_round,
    need_set,
    picture_of_row,
    take_all,
    waiting_pictures,
)
from console.settings import Settings
from console.storage.database import Database
from console.training.jobs import Job, Jobs
from dataset_formats.coco.reader import write_coco
from dataset_formats.records import ONE_CATEGORY, Annotation, NamedBox
from edge.errors import ConsoleError, FinesightError
from edge.shipped.examples import shipped
from trainer.labelling.label_file import LabelledPicture
from trainer.labelling.label_store import LabelStore, open_label_store

log = logging.getLogger(__name__)

PROPOSE, TRAIN = "propose-boxes", "detector-round"  # kinds of jobs
LEAST_CONFIRMED = 5  # pictures that a detector trains on
RECIPES = {"demo-detector.yaml": "quick: minutes on two cores", "detector.yaml": "accurate: hours, better on a GPU"}
_BATCH, _EPOCHS = {"demo-detector.yaml": 16, "detector.yaml": 32}, {"demo-detector.yaml": 18, "detector.yaml": 60}
_STEPS = (
    240  # of the optimiser, at least: with fewer, a detector of a few pictures finds nothing (benchmarks/labelling.py)
)
_LINKS, _CONFIRMED = "pictures", "confirmed.json"  # in the folder of a job
_OWNER = "set-of-console.txt"  # in the label folder: when its set was made
_RECIPE = "recipe-of-console.txt"  # in the run of a detector
_DETECTORS = "detector-*"  # in the label folder: what earlier rounds trained


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to have proposed."""

    pictures: int = 500  # to look at, at most
    count: int | None = None  # largest number of objects in a picture
    least: float | None = None  # smallest share of a picture that a box covers, 0..1
    most: float | None = None  # largest share


@dataclass(frozen=True, slots=True)
class Training:
    """How to train a detector."""

    recipe: str  # of RECIPES
    epochs: int | None = None  # None: see enough_epochs
    weights: bool = False  # begin with published weights, which must be on this server


def label_folder(settings: Settings, set_id: int) -> Path:
    """Return the label folder of a set."""
    return settings.data / "labels" / str(set_id)


def live_job(jobs: Jobs, set_id: int) -> Job | None:
    """Return the job that proposes for a set or waits to, or else the last one that did."""
    mine = [one for one in jobs.listed() if one.kind in (PROPOSE, TRAIN) and one.about.get("set") == set_id]
    live = [one for one in mine if one.state in ("queued", "running")]
    return next(iter(live or mine), None)


def start_proposing(jobs: Jobs, database: Database, settings: Settings, by: str, set_id: int, wish: Wish) -> Job:
    """Start a job that proposes boxes for the pictures that wait.

    Raises:
        ConsoleError: no picture waits, or a job of this set runs.
    """
    with database.read() as rows:
        one = need_set(rows, set_id)
        pictures = waiting_pictures(rows, set_id, wish.pictures)
    _refuse_second(jobs, set_id)
    if not pictures:
        raise ConsoleError("invalid", "no picture of this set waits for boxes; add pictures")
    folder = label_folder(settings, set_id)
    _make_folder(folder, one["created_at"])
    argv = [*_command(folder), _LINKS, *_priors(wish)]
    about = {"set": set_id, "pictures": len(pictures)}
    title = f"Proposing boxes for {len(pictures):,} pictures of {one['name']}"
    return jobs.start(PROPOSE, title, argv, by, about=about, prepare=lambda job: _link(pictures, job / _LINKS))


def start_training(
    jobs: Jobs, database: Database, settings: Settings, by: str, set_id: int, training: Training, wish: Wish
) -> Job:
    """Start a job that trains a detector on the confirmed pictures, and proposes boxes for the others with it.

    Raises:
        ConsoleError: fewer than five pictures are confirmed, there is no such recipe, or a job of this set runs.
    """
    if training.recipe not in RECIPES:
        raise ConsoleError("invalid", f"recipe: expected one of {', '.join(RECIPES)}")
    with database.read() as rows:
        one = need_set(rows, set_id)
        confirmed = count_boxes(rows, set_id).confirmed
        if confirmed < LEAST_CONFIRMED:
            raise ConsoleError(
                "invalid", f"{confirmed} pictures are confirmed; training needs at least {LEAST_CONFIRMED}"
            )
        pictures = waiting_pictures(rows, set_id, wish.pictures)
    _refuse_second(jobs, set_id)
    folder = label_folder(settings, set_id)
    _make_folder(folder, one["created_at"])
    answers = _note_confirmed(database, folder, set_id)
    argv = [*_command(folder), *([_LINKS] if pictures else []), *_priors(wish)]
    argv += ["--import", _CONFIRMED] if answers else []
    argv += ["--train", str(shipped("configs") / "train" / training.recipe)]
    argv += ["--set", f"optimiser.epochs={training.epochs or enough_epochs(training.recipe, confirmed)}"]
    argv += [] if training.weights else ["--set", "backbone.pretrained=none"]
    earlier = _last_detector(folder, training.recipe)
    argv += [] if earlier is None else ["--detector", str(earlier)]

    def prepare(job: Path) -> None:
        _link(pictures, job / _LINKS)
        if answers:
            write_coco(answers, [], job / _CONFIRMED)

    about = {"set": set_id, "pictures": len(pictures), "confirmed": confirmed, "recipe": training.recipe}
    title = f"Training a detector on {confirmed:,} pictures of {one['name']}"
    return jobs.start(TRAIN, title, argv, by, about=about, prepare=prepare)


def enough_epochs(recipe: str, pictures: int) -> int:
    """Return the epochs of a recipe, or as many as a few pictures need."""
    steps = -(-pictures // _BATCH[recipe])  # of an epoch
    return max(_EPOCHS[recipe], -(-_STEPS // steps))


def take_labels(database: Database, settings: Settings, now_s: float, job: Job) -> Taken:
    """Take what a job that ended well has proposed.

    Raises:
        TrainError: its labels cannot be read.
    """
    set_id = int(job.about["set"])
    folder = label_folder(settings, set_id)
    if job.kind == TRAIN:
        _remember_recipe(folder, str(job.about.get("recipe", "")))
    store = open_label_store(folder)
    kind: RoundKind = "detector" if job.kind == TRAIN else "cues"
    taken = begin_round(database, now_s, set_id, kind, job.id)
    return take_all(database, set_id, kind, _proposed(store, folder, job.folder / _LINKS), taken)


def follow_jobs(jobs: Jobs, database: Database, settings: Settings, clock: Callable[[], float]) -> None:
    """Take the proposals of each job that ends well."""
    for kind in (PROPOSE, TRAIN):
        jobs.when_done(kind, lambda job: log.info("%s: %s", job.name, take_labels(database, settings, clock(), job)))


def name_in(folder: Path, path: Path) -> str:
    """Return the name of a picture in the files of a label folder."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "trainer.cli", "label", "-o", str(folder), "--batch", "1"]


def _priors(wish: Wish) -> list[str]:
    area = ["--area", str(wish.least or 0.0), str(wish.most or 1.0)] if wish.least or wish.most else []
    return ([] if wish.count is None else ["--count", str(wish.count)]) + area


def _refuse_second(jobs: Jobs, set_id: int) -> None:
    live = live_job(jobs, set_id)
    if live is not None and live.state in ("queued", "running"):
        raise ConsoleError("conflict", f"{live.name} is {live.state}; wait until it ends, or stop it")


def _make_folder(folder: Path, created_at: float) -> None:
    """Make the label folder of a set. What a deleted set of the same number left there is deleted."""
    mark, text = folder / _OWNER, repr(created_at)
    try:
        if not mark.is_file() or mark.read_text() != text:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            mark.write_text(text)
    except OSError as error:
        raise ConsoleError("storage", f"{folder}: cannot be written: {error.strerror}") from error


def _link(pictures: Sequence[SetPicture], folder: Path) -> None:
    """Make a folder of links: the number of a picture and its suffix."""
    try:
        folder.mkdir()
        for one in pictures:
            (folder / f"{one.id}{one.path.suffix.lower()}").symlink_to(one.path)
    except OSError as error:
        raise ConsoleError("storage", f"{folder}: cannot make links to the pictures: {error.strerror}") from error


def _proposed(store: LabelStore, folder: Path, links: Path) -> Iterator[ProposedPicture]:
    """Yield what a label folder proposes for the pictures of a job."""
    for link in sorted(links.iterdir()) if links.is_dir() else []:
        found = store.pictures.get(name_in(folder, link))
        if found is not None and found.state == "proposed" and link.stem.isdecimal():
            boxes = tuple(
                ProposedBox(one.box_px, one.score, None if one.category == ONE_CATEGORY else one.category)
                for one in found.boxes
            )
            yield ProposedPicture(int(link.stem), boxes, found.uncertainty, found.why)


def _note_confirmed(database: Database, folder: Path, set_id: int) -> list[Annotation]:
    """Make the pictures known to the label folder; return what people confirmed that it does not hold yet."""
    try:
        store = open_label_store(folder)
        answers: dict[str, Annotation] = {}
        with database.read() as rows:
            for picture, boxes in confirmed_pictures(rows, set_id):
                name = name_in(folder, picture.path)
                if name not in store.pictures:
                    store.propose(LabelledPicture(name, picture.width, picture.height))
                if not _holds(store.pictures[name], boxes):
                    size = (picture.width, picture.height)
                    answers.setdefault(name, Annotation(name, tuple(boxes), declared_size_px=size))
        store.save()
    except FinesightError as error:
        raise ConsoleError("storage", f"the label folder cannot be used: {error}") from error
    return list(answers.values())


def confirmed_pictures(rows: sqlite3.Connection, set_id: int) -> Iterator[tuple[SetPicture, list[NamedBox]]]:
    """Yield the pictures whose boxes a person confirmed, with boxes named by their class."""
    query = (
        "SELECT pictures.*, folder, sets.category AS set_category FROM pictures JOIN sets ON sets.id = set_id "
        "WHERE set_id = ? AND boxes = 'confirmed' ORDER BY pictures.id"
    )
    for row in rows.execute(query, (set_id,)):
        crops = rows.execute(
            "SELECT x0, y0, x1, y1, category FROM crops WHERE picture_id = ? AND state != 'nothing' ORDER BY id",
            (row["id"],),
        )
        yield (
            picture_of_row(row),
            [NamedBox(tuple(one)[:4], one[4] or row["set_category"] or ONE_CATEGORY) for one in crops],
        )


def _holds(known: LabelledPicture, boxes: Sequence[NamedBox]) -> bool:
    if known.state != "human" or len(known.boxes) != len(boxes):
        return False
    pairs = zip(known.boxes, boxes, strict=True)
    return all(is_same(one.box_px, two.box_px) and one.category == two.item for one, two in pairs)


def _last_detector(folder: Path, recipe: str) -> Path | None:
    """Return the run of the last detector that was trained here by the same recipe."""
    runs = [one.parent for one in folder.glob(f"{_DETECTORS}/{_RECIPE}")]
    mine = [one for one in runs if (one / _RECIPE).read_text() == recipe]
    return max(mine, key=lambda one: one.stat().st_mtime, default=None)


def _remember_recipe(folder: Path, recipe: str) -> None:
    runs = sorted(folder.glob(_DETECTORS), key=lambda one: one.stat().st_mtime)
    if runs and not (runs[-1] / _RECIPE).exists():
        (runs[-1] / _RECIPE).write_text(recipe)
