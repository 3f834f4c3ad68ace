from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.config.schema import LiveConfig
from edge.imaging import image
from edge.imaging.pyramid import pyramid_of
from edge.pictures.live_view import LiveView, annotated, name_of
from edge.types import Decision
from tests.edge.messaging.test_payload import KNOWN
from tests.edge.pictures.picture_samples import UNKNOWN, frame_of, result_of
from tests.waiting import DEADLINE_S


@pytest.fixture
def live(counters):
    with LiveView(LiveConfig(max_fps=30, max_clients=2), counters) as running:
        yield running


def test_viewer_sees_boxes_and_names(live):
    assert live.enter("door")
    live.observe(frame_of(), result_of())
    picture = live.next_picture("door", 0, DEADLINE_S)
    shown = image.decode_image(picture.jpeg, "live")
    assert shown.shape == (360, 640, 3)
    assert shown[160, 150, 1] > shown[150, 150, 1] + 80  # the green lower edge of the box
    assert picture.names == live.names("door") == ("Red 0.5 l 97%",)


def test_nothing_is_drawn_without_a_viewer(live):
    live.observe(frame_of(), result_of())
    assert live.enter("door")
    assert live.next_picture("door", 0, 0.0).number == 0  # the grey picture
    assert live.names("door") == ()


def test_viewer_gets_each_picture_once_and_the_newest(live):
    live.enter("door")
    live.observe(frame_of(), result_of())
    first = live.next_picture("door", 0, DEADLINE_S)
    live.observe(frame_of(), result_of(decision=UNKNOWN))
    second = live.next_picture("door", first.number, DEADLINE_S)
    assert second.number > first.number
    assert second.names == ("bottle?",)


def test_too_many_viewers_are_refused_until_one_leaves(live, counters):
    assert [live.enter("door"), live.enter("roof"), live.enter("door")] == [True, True, False]
    assert counters.total("pictures_refused", reason="busy") == 1
    live.leave("roof")
    assert live.enter("door")


def test_camera_without_frames_shows_a_grey_picture(live):
    live.enter("door")
    shown = image.decode_image(live.next_picture("door", 0, 0.0).jpeg, "live")
    assert shown.shape == (360, 640, 3)


def test_picture_of_the_last_viewer_is_not_kept(live):
    live.enter("door")
    live.observe(frame_of(), result_of())
    assert live.next_picture("door", 0, DEADLINE_S).number
    live.leave("door")
    live.enter("door")
    assert live.next_picture("door", 0, 0.0).number == 0


def test_waiting_viewers_are_released_when_it_stops(counters):
    with LiveView(LiveConfig(), counters) as live:
        live.enter("door")
    assert live.next_picture("door", 0, DEADLINE_S) is None


def test_picture_that_fails_is_counted_and_the_next_one_made(live, counters):
    live.enter("door")
    live.observe(replace(frame_of(), image_rgb=np.zeros((0, 0, 3), np.uint8)), result_of())
    while not counters.total("live_failed"):
        live.next_picture("door", 0, 0.01)
    live.observe(frame_of(), result_of())
    assert live.next_picture("door", 0, DEADLINE_S).number > 0


def test_wide_frame_is_scaled_and_left_unchanged():
    frame = frame_of(width=1280, height=720)
    pyramid_of(frame).resized(320, 180)  # the detector's
    shared = [frame.image_rgb, *frame.halves.values()]
    before = [one.copy() for one in shared]
    for width, height in ((1280, 720), (640, 360), (320, 180)):
        assert annotated(frame, result_of().objects, width).shape == (height, width, 3)
    assert len(shared) == 3
    assert all(np.array_equal(*pair) for pair in zip(shared, before, strict=True))


@pytest.mark.parametrize(
    ("decision", "name"),
    [
        (KNOWN, "Red 0.5 l 97%"),
        (UNKNOWN, "bottle?"),
        (Decision(None, None, "unknown_category"), "?"),
        (None, "..."),
        (Decision(KNOWN.category, replace(KNOWN.match, probability=None), None), "Red 0.5 l"),
    ],
)
def test_name_says_how_sure_the_answer_is(decision, name):
    assert name_of(decision) == name
