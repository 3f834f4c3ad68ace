"""Asks the finished recogniser about whole pictures that were held out: what it finds, and how it names that."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataset_formats.records import AnnotatedPicture, NamedBox, Sample
from edge.recogniser import Recogniser
from edge.types import Box
from learn.box_matches import match_boxes
from learn.judge import Answer, Verdict, answer_of
from trainer.recipe import LEAST_VISIBLE

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

    Args:
        bundle: folder of the bundle.
        gallery: folder of a gallery without these pictures.
        pictures: with named boxes.
        crops: pictures of single objects to show people; an object without one is shown by its whole picture.

    Raises:
        BundleError, GalleryError, EngineError: the bundle or gallery cannot be used.
        CaptureError: a picture cannot be read.
    """
    recogniser = Recogniser.load(bundle, gallery)
    answers: list[Answer] = []
    places: dict[str, tuple[Path, Box | None]] = {}
    missed = extra = count = complete = 0
    spent = []
    for picture in pictures:
        started = time.perf_counter()
        found = recogniser.recognise(picture.path, framing="detect").objects
        spent.append(1000 * (time.perf_counter() - started))
        own = [(number, box) for number, box in enumerate(picture.boxes) if box.visible >= LEAST_VISIBLE]
        boxes = [np.asarray([one.box_px for one in listed], np.float32).reshape(-1, 4) for listed in (found, _of(own))]
        matches = match_boxes(boxes[0], -np.arange(len(found), dtype=np.float32), boxes[1])
        told = []
        for match in matches.matched:
            number, box = own[match.true]
            path = (crops or {}).get((picture.path, number), picture.path)
            places[path.name] = (picture.path, box.box_px)
            told.append(answer_of(Sample(path, picture.split, box.category, box.item), found[match.found]))
        named_extra = sum(found[row].match is not None for row in matches.unmatched)
        answers += told
        missed, extra, count = missed + len(matches.missed), extra + named_extra, count + 1
        complete += not matches.missed and not named_extra and all(one.outcome == "right" for one in told)
    verdict = Verdict(tuple(answers), sorted(spent)[len(spent) // 2] if spent else 0.0, missed, extra)
    return SceneVerdict(verdict, places, count, complete)


def _of(numbered: list[tuple[int, NamedBox]]) -> list[NamedBox]:
    return [box for _, box in numbered]
