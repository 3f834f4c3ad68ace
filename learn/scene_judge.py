"""Asks the finished recogniser about whole pictures that were held out: what it finds, and how it names that."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_high

import numpy as np

from dataset_formats.records import AnnotatedPicture, Sample
from edge.errors import CaptureError
from edge.recogniser import RecognisedObject, Recogniser
from edge.types import Box
from learn.box_matches import match_boxes
from learn.judge import Answer, Verdict, answer_of
from trainer.recipe_parts import LEAST_VISIBLE

CropOf = Mapping[tuple[Path, int], Path]  # by scene and number of the true box: the picture that was cut out


@dataclass(frozen=True, slots=True)
class SceneVerdict:
    """The verdict about whole pictures."""

    verdict: Verdict
    # by file name of a shown picture: the scene, and where in it the object is
    places: Mapping[str, tuple[Path, Box | None]] = field(default_factory=dict)
    pictures: int = 0
    all_right: int = 0  # pictures in which every object was found and named rightly, and nothing else was named


def judge_scenes(
    bundle: Path, gallery: Path, pictures: Iterable[AnnotatedPicture], crops: CropOf | None = None
) -> SceneVerdict:
    """Find and name the objects of whole pictures, as `edge recognise --framing detect` does.

    A picture that cannot be read is listed, and in no count.

    Args:
        bundle: folder of the bundle.
        gallery: folder of a gallery without these pictures.
        pictures: with named boxes.
        crops: pictures of single objects to show people; an object without one is shown by its whole picture.

    Raises:
        BundleError, GalleryError, EngineError: the bundle or gallery cannot be used.
    """
    recogniser = Recogniser.load(bundle, gallery)
    asked: list[_AskedPicture] = []
    spent, unreadable = [], []
    for picture in pictures:
        started = time.perf_counter()
        try:
            found = recogniser.recognise(picture.path, framing="detect").objects
        except CaptureError as error:
            unreadable.append(str(error))
            continue
        spent.append(1000 * (time.perf_counter() - started))
        asked.append(_answers_to(picture, found, crops or {}))
    answers = tuple(answer for one in asked for answer in one.answers)
    missed, extra = sum(one.missed for one in asked), sum(one.named_extra for one in asked)
    verdict = Verdict(answers, median_high(spent or [0.0]), missed, extra, tuple(unreadable))
    places = {name: place for one in asked for name, place in one.places.items()}
    return SceneVerdict(verdict, places, len(asked), sum(one.is_all_right for one in asked))


@dataclass(frozen=True, slots=True)
class _AskedPicture:
    """The answers to one whole picture."""

    answers: list[Answer]  # one for each true object that was found
    places: dict[str, tuple[Path, Box | None]]  # as SceneVerdict.places
    missed: int  # true objects
    named_extra: int  # objects that were named and are none of the true ones

    @property
    def is_all_right(self) -> bool:
        """Whether every object was found and named rightly, and nothing else was named."""
        return not self.missed and not self.named_extra and all(one.outcome == "right" for one in self.answers)


def _answers_to(picture: AnnotatedPicture, found: Sequence[RecognisedObject], crops: CropOf) -> _AskedPicture:
    """Compare what was found in one picture with its true boxes."""
    own = [(number, box) for number, box in enumerate(picture.boxes) if box.visible >= LEAST_VISIBLE]
    found_px, true_px = (
        np.asarray([one.box_px for one in listed], np.float32).reshape(-1, 4)
        for listed in (found, [box for _, box in own])
    )
    matches = match_boxes(found_px, -np.arange(len(found), dtype=np.float32), true_px)
    answers: list[Answer] = []
    places: dict[str, tuple[Path, Box | None]] = {}
    for match in matches.matched:
        number, box = own[match.true]
        path = crops.get((picture.path, number), picture.path)
        places[path.name] = (picture.path, box.box_px)
        answers.append(answer_of(Sample(path, picture.split, box.category, box.item), found[match.found]))
    named_extra = sum(found[row].match is not None for row in matches.unmatched)
    return _AskedPicture(answers, places, len(matches.missed), named_extra)
