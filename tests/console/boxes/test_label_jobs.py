"""Jobs of `edge-train label`: what they are given, and what is taken of what they propose."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from console.boxes.label_jobs import (
    Training,
    Wish,
    enough_epochs,
    label_folder,
    live_job,
    name_in,
    start_proposing,
    start_training,
    take_labels,
)
from console.sets.crops import NewBox
from edge.errors import ConsoleError
from tests.console_box_samples import boxes_in, confirm, made_set, propose, set_of
from trainer.labelling.imports import import_edited
from trainer.labelling.label_file import LabelledPicture
from trainer.labelling.label_store import open_label_store
from trainer.labelling.proposals import Proposal

NAMES = tuple(f"cards/{letter}.png" for letter in "abcdefg")


@dataclass
class FakeJob:
    """A job, as far as boxes look at it."""

    kind: str
    name: str
    argv: tuple[str, ...]
    about: dict[str, Any]
    folder: Path
    id: int = 1
    state: str = "queued"


@dataclass
class FakeJobs:
    """Keeps jobs, and runs none."""

    folder: Path
    started: list[FakeJob] = field(default_factory=list)

    def listed(self, limit=50):
        return self.started[::-1][:limit]

    def start(self, kind, name, argv, by, *, about=None, prepare=None):
        folder = self.folder / f"job-{len(self.started)}"
        folder.mkdir(parents=True)
        prepare(folder)
        self.started.append(FakeJob(kind, name, tuple(argv), dict(about), folder, len(self.started) + 1))
        return self.started[-1]


@pytest.fixture
def jobs(tmp_path):
    return FakeJobs(tmp_path / "jobs")


def start(services, jobs, set_id, wish=Wish()):  # noqa: B008  frozen
    return start_proposing(jobs, services.database, services.settings, "ann", set_id, wish)


def train(services, jobs, set_id, recipe="demo-detector.yaml"):
    return start_training(jobs, services.database, services.settings, "ann", set_id, Training(recipe), Wish())


def test_a_job_gets_links_to_the_pictures_that_wait(services, jobs, tmp_path):
    pictures = made_set(services, tmp_path / "set", NAMES)
    confirm(services, pictures[0])
    job = start(services, jobs, set_of(services, pictures[0]), Wish(pictures=3, count=2, least=0.01))
    links = sorted((job.folder / "pictures").iterdir())
    assert [one.resolve() for one in links] == [tmp_path / "set" / name for name in NAMES[1:4]]
    assert job.argv[3:4] + job.argv[-6:] == ("label", "pictures", "--count", "2", "--area", "0.01", "1.0")


def test_a_set_has_one_job_at_a_time(services, jobs, tmp_path):
    cards = set_of(services, made_set(services, tmp_path / "set", NAMES)[0])
    start(services, jobs, cards)
    with pytest.raises(ConsoleError, match="wait until it ends"):
        start(services, jobs, cards)
    jobs.started[0].state = "failed"
    assert live_job(jobs, cards) is jobs.started[0]
    start(services, jobs, cards)


def test_what_a_job_proposed_is_taken(services, jobs, tmp_path):
    pictures = made_set(services, tmp_path / "set", NAMES)
    cards = set_of(services, pictures[0])
    propose(services, pictures[2], (1, 1, 20, 20))
    job = start(services, jobs, cards)
    folder = label_folder(services.settings, cards)
    store = open_label_store(folder)
    for number, name in enumerate(NAMES[:3]):
        boxes = (Proposal((10, 10, 60 + number, 50), 0.8, "proposer"),) if number < 2 else ()
        shown = name_in(folder, tmp_path / "set" / name)
        store.propose(LabelledPicture(shown, 200, 120, boxes, uncertainty=0.25, why="weak box"))
    store.save()
    confirm(services, pictures[0])  # while the job ran
    taken = take_labels(services.database, services.settings, 5.0, job)
    assert (taken.pictures, taken.boxes, taken.kept, taken.nothing) == (1, 1, 1, 1)
    assert [boxes_in(services, one) for one in pictures[:3]] == [[], [(10, 10, 61, 50)], [(1, 1, 20, 20)]]


def test_a_round_needs_five_confirmed_pictures(services, jobs, tmp_path):
    pictures = made_set(services, tmp_path / "set", NAMES)
    for one in pictures[:4]:
        confirm(services, one)
    with pytest.raises(ConsoleError, match="4 pictures are confirmed; training needs at least 5"):
        train(services, jobs, set_of(services, pictures[0]))


def test_a_round_imports_what_people_confirmed(services, jobs, tmp_path):
    pictures = made_set(services, tmp_path / "set", NAMES)
    cards = set_of(services, pictures[0])
    for one in pictures[:5]:
        confirm(services, one, NewBox(None, (10, 10, 60, 50), category="can"))
    confirm(services, pictures[5])
    job = train(services, jobs, cards)
    assert "--import" in job.argv
    assert "optimiser.epochs=240" in job.argv
    assert [one.name for one in (job.folder / "pictures").iterdir()] == [f"{pictures[6]}.png"]
    store = open_label_store(label_folder(services.settings, cards))
    done = import_edited(store, job.folder / "confirmed.json")  # as the job does
    assert (len(done.edits), done.boxes, done.left_out) == (6, 5, [])
    store.save()
    job.state = "done"
    assert "--import" not in train(services, jobs, cards).argv  # nothing new
    jobs.started[-1].state = "done"
    confirm(services, pictures[1], NewBox(None, (12, 14, 60, 50), category="can"))
    again = train(services, jobs, cards)
    assert len(json.loads((again.folder / "confirmed.json").read_text())["images"]) == 1


def test_a_deleted_set_leaves_nothing_to_train_on(services, jobs, tmp_path):
    cards = set_of(services, made_set(services, tmp_path / "set", NAMES)[0])
    folder = label_folder(services.settings, cards)
    folder.mkdir(parents=True)
    (folder / "labels.json").write_text("of a set that had this number before")
    start(services, jobs, cards)
    assert not (folder / "labels.json").exists()
    (folder / "labels.json").write_text("of this set")
    jobs.started[0].state = "done"
    start(services, jobs, cards)
    assert (folder / "labels.json").exists()


def test_only_known_recipes_train(services, jobs, tmp_path):
    with pytest.raises(ConsoleError, match=r"expected one of demo-detector\.yaml"):
        train(services, jobs, 1, "../../elsewhere.yaml")


@pytest.mark.parametrize(("pictures", "epochs"), [(5, 240), (40, 80), (2000, 18)])
def test_few_pictures_are_seen_more_often(pictures, epochs):
    assert enough_epochs("demo-detector.yaml", pictures) == epochs
