"""A kiosk that follows a camera, and is taught."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

from edge.errors import TaughtItemsError
from edge.imaging import image
from edge.kiosk.kiosk import Kiosk
from edge.kiosk.taught_items import TaughtItems
from edge.kiosk.taught_store import TaughtStore
from edge.recognition.pipeline import Result, TrackedObject
from edge.recognition.recognise_image import recognise_image
from edge.recognition.tracker import Track
from edge.telemetry.metrics import Counters
from edge.telemetry.timing import Timings
from edge.types import Category, Decision, Match
from tests.edge.kiosk.kiosk_samples import FAR, scripted_models
from tests.fakes_engine import FixedIndex, frame_at

OATS = Decision(Category("carton", 0.9), Match("c1", "Oat flakes", 0.9, 0.5, 0.97), None)
SIDES = [np.random.default_rng(n).integers(0, 255, (48, 64, 3), dtype=np.uint8) // 4 + n * 40 for n in range(4)]


class FakeDevice:
    """Serves one pair, dressed by an overlay."""

    def __init__(self, store):
        self.counters = Counters()
        self.observers = []
        self._overlay = TaughtItems(store, lambda *_: False, self.counters)
        self.models = scripted_models(indexes={"carton": FixedIndex(FAR)})

    def refresh_overlay(self):
        self.models = self._overlay.over(self.models)


@pytest.fixture
def store(tmp_path):
    return TaughtStore(tmp_path, 5)


@pytest.fixture
def kiosk(store):
    return Kiosk(FakeDevice(store), store, "counter", 3, 8)


def show(kiosk, picture, decision=None, camera="counter", track_id: int | None = 1):
    """A frame that was recognised, followed at once instead of by the kiosk's thread."""
    box = (0.0, 0.0, 64.0, 48.0)
    objects = [] if track_id is None else [TrackedObject(Track(track_id, box, "object", 3, 0.0, 0.0), decision)]
    kiosk._newest = None
    kiosk.observe(frame_at(1.0, picture, camera), Result([], objects, Timings(), 0))
    if kiosk._newest is not None:
        kiosk._follow(*kiosk._newest)


def test_what_the_camera_sees_becomes_the_state_and_a_new_version_of_it(kiosk):
    before = kiosk.state()[0]
    show(kiosk, SIDES[0], OATS)
    version, session, _ = kiosk.state()
    assert (session.phase, session.decision) == ("answer", OATS)
    assert version > before
    show(kiosk, SIDES[0], OATS)
    assert kiosk.state()[0] == version  # nothing that is shown has changed


def test_another_camera_is_not_followed(kiosk):
    show(kiosk, SIDES[0], OATS, camera="door")
    assert kiosk.state()[1].phase == "no_picture"


def test_the_live_picture_is_made_only_while_somebody_asks_for_it(kiosk):
    show(kiosk, SIDES[0])
    assert kiosk.live() == (0, b"")
    show(kiosk, np.zeros((600, 1200, 3), np.uint8))
    number, jpeg = kiosk.live()
    assert number == 1
    assert image.decode_image(jpeg, "live").shape == (480, 960, 3)


def test_looks_are_taken_of_each_side_once_and_shown(kiosk):
    show(kiosk, SIDES[0])
    kiosk.begin_teaching()
    for side in (SIDES[0], SIDES[0], SIDES[1]):
        show(kiosk, side)
    _, session, teaching = kiosk.state()
    assert (session.phase, teaching.looks, teaching.wanted, teaching.verdict) == ("teaching", 2, 3, "take")
    show(kiosk, SIDES[1])
    assert kiosk.state()[2].verdict == "same"
    show(kiosk, SIDES[2], track_id=None)
    assert (kiosk.state()[2].looks, kiosk.state()[2].verdict) == (2, "moving")
    assert image.decode_image(kiosk.look(1), "look").shape == SIDES[1].shape
    assert kiosk.look(2) is kiosk.look(-1) is None


def test_what_was_taught_is_searched_when_teach_returns(kiosk, store):
    show(kiosk, SIDES[0])
    kiosk.begin_teaching()
    show(kiosk, SIDES[0])
    show(kiosk, SIDES[1])
    lesson = kiosk.teach("Red thing", None)
    assert (lesson.item.label, lesson.item.looks, lesson.recognised) == ("Red thing", 2, 2)
    assert store.items() == [lesson.item]
    assert kiosk.state()[1].phase == "waiting"
    kiosk.forget(lesson.item.item_id)
    assert store.items() == []
    assert "carton" in kiosk.models.indexes


def test_a_thing_that_is_taught_but_not_recognised_says_so(kiosk):
    """The classifier sees a tyre, which has no embedder: it is only learnt as what people call it."""
    kiosk._device.models = scripted_models(odds=(1.0, 99.0), indexes={"carton": FixedIndex(FAR)})
    show(kiosk, SIDES[0])
    kiosk.begin_teaching()
    show(kiosk, SIDES[0])
    assert kiosk.teach("Red thing", "carton").recognised == 0


@pytest.mark.parametrize(("label", "category"), [("", None), ("Red thing", "no such")])
def test_what_cannot_be_taught_keeps_its_looks_to_try_again(kiosk, label, category):
    show(kiosk, SIDES[0])
    kiosk.begin_teaching()
    show(kiosk, SIDES[0])
    with pytest.raises(TaughtItemsError):
        kiosk.teach(label, category)
    assert kiosk.state()[1].phase == "teaching"
    assert kiosk.look(0) is not None


def test_starting_over_forgets_the_looks(kiosk):
    show(kiosk, SIDES[0])
    kiosk.begin_teaching()
    show(kiosk, SIDES[0])
    kiosk.begin_teaching()
    assert (kiosk.look(0), kiosk.state()[2].looks) == (None, 0)
    kiosk.end_teaching()
    assert kiosk.state()[1].phase == "waiting"


def test_the_thread_follows_and_ends(kiosk):
    changed = threading.Event()
    follow = kiosk._follow
    kiosk._follow = lambda *newest: (follow(*newest), changed.set())
    with kiosk:
        kiosk._device.observers[0](frame_at(1.0, SIDES[0], "counter"), Result([], [], Timings(), 0))
        assert changed.wait(5)
    assert kiosk.state()[1].phase == "waiting"
    assert kiosk._device.observers == []


def test_a_frame_that_fails_is_counted_and_the_next_is_followed(kiosk):
    failed = threading.Event()

    def fail(*_):
        failed.set()
        raise cv2.error("broken")

    kiosk._follow = fail
    with kiosk:
        kiosk.observe(frame_at(1.0, SIDES[0], "counter"), Result([], [], Timings(), 0))
        assert failed.wait(5)
    assert kiosk._device.counters.total("kiosk_failed") == 1


def test_what_is_taught_as_negative_vetoes_and_other_looks_are_still_named(kiosk, store):
    show(kiosk, SIDES[0])
    kiosk.begin_teaching()
    show(kiosk, SIDES[0])
    show(kiosk, SIDES[1])
    lesson = kiosk.teach("Price tag", "carton", negative=True)
    assert (lesson.item.negative, lesson.recognised, lesson.concerns) == (True, 2, [])
    decision = recognise_image(kiosk.models, SIDES[0], 8, Timings())
    assert (decision.match, decision.reason) == (None, "unknown_item")
    assert "Price tag" not in [hit.label for hit in decision.top]
    assert TaughtStore(store._folder, 5).items()[0].negative


def test_the_person_is_told_of_few_looks_and_of_a_lookalike(store):
    device = FakeDevice(store)
    device.models = scripted_models()  # answers Oat flakes at 0.9, whatever it is asked
    kiosk = Kiosk(device, store, "counter", 3, 8)
    show(kiosk, SIDES[0])
    kiosk.begin_teaching()
    show(kiosk, SIDES[0])
    concerns = kiosk.teach("Red thing", None).concerns
    assert [(one.kind, one.other and one.other.label) for one in concerns] == [
        ("few_looks", None),
        ("near_another", "Oat flakes"),
    ]
