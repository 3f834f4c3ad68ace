"""Whole pictures that were held out, asked of a recogniser whose answers are scripted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dataset_formats.records import AnnotatedPicture, NamedBox
from edge.errors import CaptureError
from edge.recogniser import RecognisedObject, Recognition
from edge.types import Hit, Match
from learn import scene_judge
from learn.page import headline
from learn.scene_judge import judge_scenes

LEFT, RIGHT = (10.0, 10.0, 50.0, 50.0), (60.0, 10.0, 100.0, 50.0)
JAM = RecognisedObject(LEFT, "object", None, Match("jam", "Jam", 0.9, 0.5, None), None, (Hit("jam", "Jam", 0.9),))


class Scripted:
    """Finds a jam on the left of every picture; one named after `broken` cannot be read."""

    @classmethod
    def load(cls, *_):
        return cls()

    def recognise(self, path, **_):
        if "broken" in path.name:
            raise CaptureError(f"{path}: cannot read picture")
        return Recognition((JAM, replace(JAM, box_px=(10.0, 60.0, 50.0, 90.0))), 120, 100, "b", "g")


@pytest.fixture
def ask(monkeypatch):
    monkeypatch.setattr(scene_judge, "Recogniser", Scripted)

    def asked(*names):
        boxes = (NamedBox(LEFT, "jam"), NamedBox(RIGHT, "tea"))
        return judge_scenes(Path("b"), Path("g"), [AnnotatedPicture(Path(name), "val", boxes) for name in names])

    return asked


def test_an_unreadable_picture_spoils_no_other(ask):
    found = ask("1.jpg", "broken.jpg", "2.jpg")
    verdict = found.verdict
    assert (found.pictures, found.all_right) == (2, 0)
    assert (len(verdict.answers), verdict.count("right"), verdict.missed, verdict.named_extra) == (2, 2, 2, 2)
    assert verdict.unreadable == ("broken.jpg: cannot read picture",)
    assert verdict.as_json()["unreadable"] == 1
    assert "unreadable" not in ask("1.jpg").verdict.as_json()


def test_no_readable_picture_is_no_verdict(ask):
    found = ask("broken.jpg")
    assert (found.pictures, len(found.verdict.unreadable)) == (0, 1)
    assert "nobody knows yet" in headline(found.verdict)
