"""Proposals by the detector of a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from console.boxes.bundle_proposals import propose_with_bundle
from edge.errors import ConsoleError
from edge.types import Detection
from tests.console_box_samples import boxes_in, made_set, set_of

NAMES = ("a.png", "b.png", "c.png")


class FakeDetector:
    """Finds what is bright."""

    def detect(self, pictures, timings):
        return [[Detection((60.0, 30.0, 120.0, 90.0), 0.8, "thing")] if one.max() > 200 else [] for one in pictures]


@dataclass
class FakeModels:
    """One bundle, with or without a detector."""

    detector: FakeDetector | None

    def load(self, choice):
        stages = SimpleNamespace(detector=self.detector)
        return SimpleNamespace(choice=SimpleNamespace(name="Shop"), models=SimpleNamespace(stages=stages))


def propose(services, set_id, detector, progress=lambda *_: None):
    return propose_with_bundle(services.database, FakeModels(detector), 1.0, set_id, "", 10, progress)


def test_a_bundle_proposes_for_what_it_can_read(services, tmp_path):
    pictures = made_set(services, tmp_path, NAMES)
    (tmp_path / "b.png").write_bytes(b"no picture any more")
    seen = []
    says = propose(services, set_of(services, pictures[0]), FakeDetector(), lambda *done: seen.append(done))
    assert says.startswith("2 boxes in 2 pictures; 1 cannot be read, the first: ")
    assert [boxes_in(services, one) for one in pictures] == [[(60, 30, 120, 90)], [], [(60, 30, 120, 90)]]
    assert seen == [(0, 3), (1, 3), (2, 3)]


def test_a_bundle_without_detector_says_so(services, tmp_path):
    cards = set_of(services, made_set(services, tmp_path, NAMES)[0])
    with pytest.raises(ConsoleError, match="Shop has no detector; choose another one, or use the cues"):
        propose(services, cards, None)
