"""A kiosk that follows a camera and enrols items."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

from edge.errors import TaughtItemsError
from edge.imaging import image
from edge.kiosk import session as kiosk_session
from edge.kiosk.kiosk import Kiosk
from edge.kiosk.taught_items import TaughtItems
from edge.kiosk.taught_store import TaughtStore
from edge.recognition.pipeline import Result, TrackedObject
from edge.recognition.recognise_image import recognise_image
from edge.recognition.tracker import Track
from edge.telemetry.counters import Counters
from edge.telemetry.timing import Timings
from edge.types import Category, Decision, Match
from tests.edge.kiosk.kiosk_samples import FAR, scripted_models
from tests.fakes_engine import FixedIndex, frame_at

OATS = Decision(Category("carton", 0.9), Match("c1", "Oat flakes", 0.9, 0.5, 0.97), None)
SIDES = [np.random.default_rng(n).integers(0, 255, (48, 64, 3), dtype=np.uint8) // 4 + n * 40 for n in range(4)]


class FakeDevice:
    """A device with scripted models, to which the taught items are added."""

    def __init__(self, store):
        self.counters = Counters()
        self.observers = []
        self._taught_items = TaughtItems(store, lambda *_: frozenset(), self.counters)
        self.models = scripted_models(indexes={"carton": FixedIndex(FAR)})

    def refresh_overlay(self):
        self.models = self._taught_items.add_to(self.models)


@pytest.fixture
def store(tmp_path):
    return TaughtStore(tmp_path, 5)


@pytest.fixture
def kiosk(store):
    return Kiosk(FakeDevice(store), store, "counter", 3, 8)


def show(kiosk, picture, decision=None, camera="counter", track_id: int | None = 1):
    """Pass a recognised frame to the kiosk, without its thread."""
    box = (0.0, 0.0, 64.0, 48.0)
    objects = [] if track_id is None else [TrackedObject(Track(track_id, box, "object", 3, 0.0, 0.0), decision)]
    kiosk._newest = None
    kiosk.observe(frame_at(1.0, picture, camera), Result([], objects, Timings(), 0))
    if kiosk._newest is not None:
        kiosk._process_frame(*kiosk._newest)


def test_recognised_frame_changes_the_state_and_its_version(kiosk):
    before = kiosk.state()[0]
    show(kiosk, SIDES[0], OATS)
    version, session, _ = kiosk.state()
    assert (session.phase, session.decision) == ("answer", OATS)
    assert version > before
    show(kiosk, SIDES[0], OATS)
    assert kiosk.state()[0] == version  # nothing visible has changed


def test_frames_of_another_camera_are_ignored(kiosk):
    show(kiosk, SIDES[0], OATS, camera="door")
    assert kiosk.state()[1].phase == "no_picture"


def test_live_picture_is_encoded_only_while_watched(kiosk):
    show(kiosk, SIDES[0])
    assert kiosk.live_picture() == (0, b"")
    show(kiosk, np.zeros((600, 1200, 3), np.uint8))
    number, jpeg = kiosk.live_picture()
    assert number == 1
    assert image.decode_image(jpeg, "live").shape == (480, 960, 3)


def test_each_side_is_taken_once(kiosk):
    show(kiosk, SIDES[0])
    kiosk.start_enrolment()
    for side in (SIDES[0], SIDES[0], SIDES[1]):
        show(kiosk, side)
    _, session, progress = kiosk.state()
    assert (session.phase, progress.pictures, progress.wanted, progress.verdict) == ("teaching", 2, 3, "take")
    show(kiosk, SIDES[1])
    assert kiosk.state()[2].verdict == "same"
    show(kiosk, SIDES[2], track_id=None)
    assert (kiosk.state()[2].pictures, kiosk.state()[2].verdict) == (2, "moving")
    assert image.decode_image(kiosk.enrolment_picture(1), "look").shape == SIDES[1].shape
    assert kiosk.enrolment_picture(2) is kiosk.enrolment_picture(-1) is None


def test_item_is_searchable_when_enrol_returns(kiosk, store):
    show(kiosk, SIDES[0])
    kiosk.start_enrolment()
    show(kiosk, SIDES[0])
    show(kiosk, SIDES[1])
    enrolment = kiosk.enrol("Red thing", None)
    assert (enrolment.item.label, enrolment.item.looks, enrolment.recognised) == ("Red thing", 2, 2)
    assert store.items() == [enrolment.item]
    assert kiosk.state()[1].phase == "waiting"
    kiosk.forget(enrolment.item.item_id)
    assert store.items() == []
    assert "carton" in kiosk.models.indexes


def test_enrolment_reports_an_item_that_is_not_recognised(kiosk):
    """The classifier says tyre, which has no embedder; the item is saved under the category that people named."""
    kiosk._device.models = scripted_models(odds=(1.0, 99.0), indexes={"carton": FixedIndex(FAR)})
    show(kiosk, SIDES[0])
    kiosk.start_enrolment()
    show(kiosk, SIDES[0])
    assert kiosk.enrol("Red thing", "carton").recognised == 0


@pytest.mark.parametrize(("label", "category"), [("", None), ("Red thing", "no such")])
def test_failed_enrolment_keeps_its_pictures(kiosk, label, category):
    show(kiosk, SIDES[0])
    kiosk.start_enrolment()
    show(kiosk, SIDES[0])
    with pytest.raises(TaughtItemsError):
        kiosk.enrol(label, category)
    assert kiosk.state()[1].phase == "teaching"
    assert kiosk.enrolment_picture(0) is not None


def test_restarting_the_enrolment_drops_its_pictures(kiosk):
    show(kiosk, SIDES[0])
    kiosk.start_enrolment()
    show(kiosk, SIDES[0])
    kiosk.start_enrolment()
    assert (kiosk.enrolment_picture(0), kiosk.state()[2].pictures) == (None, 0)
    kiosk.end_enrolment()
    assert kiosk.state()[1].phase == "waiting"


def test_thread_processes_frames_and_stops(kiosk):
    changed = threading.Event()
    process = kiosk._process_frame
    kiosk._process_frame = lambda *newest: (process(*newest), changed.set())
    with kiosk:
        kiosk._device.observers[0](frame_at(1.0, SIDES[0], "counter"), Result([], [], Timings(), 0))
        assert changed.wait(60)
    assert kiosk.state()[1].phase == "waiting"
    assert kiosk._device.observers == []


def test_failed_frame_is_counted(kiosk):
    failed = threading.Event()

    def fail(*_):
        failed.set()
        raise cv2.error("broken")

    kiosk._process_frame = fail
    with kiosk:
        kiosk.observe(frame_at(1.0, SIDES[0], "counter"), Result([], [], Timings(), 0))
        assert failed.wait(60)
    assert kiosk._device.counters.total("kiosk_failed") == 1


def test_negative_item_vetoes_a_match(kiosk, store):
    show(kiosk, SIDES[0])
    kiosk.start_enrolment()
    show(kiosk, SIDES[0])
    show(kiosk, SIDES[1])
    enrolment = kiosk.enrol("Price tag", "carton", negative=True)
    assert (enrolment.item.negative, enrolment.recognised, enrolment.warnings) == (True, 2, [])
    decision = recognise_image(kiosk.models, SIDES[0], 8, Timings())
    assert (decision.match, decision.reason) == (None, "unknown_item")
    assert "Price tag" not in [hit.label for hit in decision.top]
    assert TaughtStore(store._folder, 5).items()[0].negative


def test_enrolment_warns_of_few_pictures_and_a_lookalike(store):
    device = FakeDevice(store)
    device.models = scripted_models()  # answers Oat flakes at 0.9 to any query
    kiosk = Kiosk(device, store, "counter", 3, 8)
    show(kiosk, SIDES[0])
    kiosk.start_enrolment()
    show(kiosk, SIDES[0])
    warnings = kiosk.enrol("Red thing", None).warnings
    assert [(one.kind, one.other and one.other.label) for one in warnings] == [
        ("few_looks", None),
        ("near_another", "Oat flakes"),
    ]


def test_thread_survives_an_unexpected_error(kiosk, monkeypatch, caplog):
    processed = threading.Event()

    def pass_time(*_):
        raise KeyError("unexpected")

    def wait(_):  # before the thread starts again
        kiosk.observe(frame_at(1.0, SIDES[0], "counter"), Result([], [], Timings(), 0))
        return False

    monkeypatch.setattr(kiosk_session, "pass_time", pass_time)
    monkeypatch.setattr(kiosk, "_process_frame", lambda *_: processed.set())
    monkeypatch.setattr(kiosk._thread, "_wait", wait)
    with kiosk:
        assert processed.wait(60)
    assert kiosk._device.counters.total("thread_restarts", thread="kiosk") >= 1
    assert "thread kiosk: KeyError at test_kiosk.py:" in caplog.text
