"""Asks the finished recogniser about the photos that were held out, in the way a device does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median_high
from typing import Any

from dataset_formats.records import Sample
from edge.build import load_models
from edge.config.schema import EngineConfig
from edge.errors import CaptureError
from edge.imaging.image import read_image
from edge.recogniser import RecognisedObject
from edge.recognition.recognise_image import recognise_image
from edge.telemetry.timing import Timings
from edge.types import Box, Decision
from trainer.catalogue.items import item_id_of
from trainer.evaluation.answers import ListedAnswer, Outcome, list_answers

ENOUGH = 20  # fewest held-out photos for percentages


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one held-out photo."""

    sample: Sample
    outcome: Outcome
    nearest: str  # id of the nearest item, named or not; empty if nothing was searched
    category_right: bool  # of the nearest item
    probability: float | None = None  # of the named item, 0..1; None: not named, or the bundle is not calibrated
    similarity: float | None = None  # cosine to the nearest item; None: nothing was searched

    @property
    def item_id(self) -> str:
        """The id of the true item."""
        return item_id_of(self.sample.item)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answers to all of them."""

    answers: tuple[Answer, ...]
    millis: float  # of one look-up here, median
    # Of whole pictures: true objects that the detector did not find, and what it named that is none of them. None: each
    # photo shows one object.
    missed: int | None = None
    named_extra: int = 0
    unreadable: tuple[str, ...] = ()  # which held-out picture could not be read, and why

    def count(self, outcome: Outcome) -> int:
        """Return how many answers ended so."""
        return sum(answer.outcome == outcome for answer in self.answers)

    @property
    def nearest_right(self) -> int:
        """Return how many photos are nearest to their own item, named or not."""
        return sum(answer.nearest == answer.item_id for answer in self.answers)

    @property
    def categories_right(self) -> int:
        """Return how many photos are nearest to an item of their own category."""
        return sum(answer.category_right for answer in self.answers)

    def confusions(self) -> list[tuple[str, str, int, Sample]]:
        """Return true item, named item, times and one photo of each wrong answer, most frequent first."""
        wrong = [answer for answer in self.answers if answer.outcome == "wrong"]
        times = Counter((answer.item_id, answer.nearest) for answer in wrong)
        first = {(answer.item_id, answer.nearest): answer.sample for answer in reversed(wrong)}
        return [(*pair, count, first[pair]) for pair, count in times.most_common()]

    def as_json(self) -> dict[str, Any]:
        """Return the counts."""
        return {
            "held_out": len(self.answers),
            "right": self.count("right"),
            "unknown": self.count("unknown"),
            "wrong": self.count("wrong"),
            "nearest_item_right": self.nearest_right,
            "nearest_category_right": self.categories_right,
            "lookup_ms": round(self.millis, 1),
            **({"unreadable": len(self.unreadable)} if self.unreadable else {}),
            **({} if self.missed is None else {"missed": self.missed, "named_extra": self.named_extra}),
        }


def listed_answers(verdict: Verdict, sources: Mapping[str, tuple[Path, Box | None]]) -> list[dict[str, Any]]:
    """Return what was answered to each photo, for the report; see `trainer.evaluation.answers`.

    Args:
        verdict: all answers.
        sources: by file name of a copy: the photo that it was made of, and where in it the object is.
    """
    return list_answers(
        ListedAnswer(
            *sources.get(one.sample.path.name, (one.sample.path, None)), one.sample.category, one.item_id,
            one.sample.label, one.outcome, one.nearest, one.similarity or 0.0, one.probability, one.similarity,
        )
        for one in verdict.answers
    )  # fmt: skip


def answer_of(sample: Sample, found: Decision | RecognisedObject) -> Answer:
    """Return how an object was answered."""
    named = found.match.item_id if found.match else None
    nearest = named or (found.top[0].item_id if found.top else "")
    outcome: Outcome = "unknown" if named is None else "right" if named == item_id_of(sample.item) else "wrong"
    category = found.category.name if found.category else ""
    probability = found.match.probability if found.match else None
    similarity = found.top[0].score if found.top else None
    return Answer(sample, outcome, nearest, category == sample.category, probability, similarity)


def judge(bundle: Path, gallery: Path, held_out: Iterable[Sample]) -> Verdict:
    """Recognise every held-out photo; one that cannot be read is listed.

    Args:
        bundle: folder of the bundle.
        gallery: folder of a gallery without the held-out photos.
        held_out: photos, each filled by one object.

    Raises:
        BundleError, GalleryError, EngineError: the bundle or gallery cannot be used.
    """
    models = load_models(bundle, gallery, EngineConfig())
    answers, spent, unreadable = [], [], []
    for sample in held_out:
        timings = Timings()
        try:
            image_rgb = read_image(sample.path)
        except CaptureError as error:
            unreadable.append(str(error))
            continue
        decision = recognise_image(models, image_rgb, 1, timings)
        spent.append(sum(timings.stages_ms.values()))
        answers.append(answer_of(sample, decision))
    return Verdict(tuple(answers), median_high(spent or [0.0]), unreadable=tuple(unreadable))
