from __future__ import annotations

import queue
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config.schema import SnapshotConfig
from edge.imaging import image
from edge.pictures.snapshots import MAX_BYTES, Snapshots, encode
from tests.edge.pictures.picture_samples import UNKNOWN, event_of, frame_of, result_of
from tests.waiting import DEADLINE_S


class Published:
    """Collects what is published; `blocked` makes the thread of the snapshots wait."""

    def __init__(self):
        self.found = queue.Queue()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, camera, jpeg):
        self.may_go_on.wait(DEADLINE_S)
        self.found.put((camera, jpeg))

    def next(self):
        return self.found.get(timeout=DEADLINE_S)


@pytest.fixture
def published():
    return Published()


@pytest.fixture
def snapshots(published, counters):
    with Snapshots(SnapshotConfig(), published, counters) as running:
        yield running


def test_recognised_object_is_cut_out_with_a_margin(snapshots, published):
    snapshots.observe(frame_of(), result_of(event_of()))
    camera, jpeg = published.next()
    picture = image.decode_image(jpeg, "snapshot")
    assert (camera, picture.shape) == ("door", (130, 130, 3))  # 100 px and 15 % on each side
    assert picture[65, 65, 0] > 240
    assert picture[65, 65, 1] < 20
    assert abs(int(picture[3, 3, 1]) - 90) < 10


def test_newest_snapshot_is_kept_with_its_event(snapshots, published):
    assert snapshots.newest("door") is None
    snapshots.observe(frame_of(), result_of(event_of(event_id="first")))
    snapshots.observe(frame_of(), result_of(event_of(event_id="second")))
    jpegs = [published.next()[1] for _ in range(2)]
    assert (snapshots.newest("door").event_id, snapshots.newest("door").jpeg) == ("second", jpegs[1])


@pytest.mark.parametrize(
    "event",
    [event_of(decision=UNKNOWN), event_of(type="end"), event_of(captured_ns=99)],
    ids=["unknown", "left", "of an earlier frame"],
)
def test_other_events_make_no_picture(snapshots, published, event):
    snapshots.observe(frame_of(), result_of(event))
    snapshots.observe(frame_of("roof"), result_of(event_of(camera="roof")))
    assert published.next()[0] == "roof"


def test_full_queue_drops_the_oldest_and_counts_it(snapshots, published, counters):
    published.may_go_on.clear()
    snapshots.observe(frame_of(), result_of(*(event_of(event_id=str(number)) for number in range(20))))
    published.may_go_on.set()
    while published.next() and snapshots.newest("door").event_id != "19":  # waits for each
        pass
    dropped = counters.total("snapshots_dropped", reason="full")
    assert dropped >= 20 - 8 - 1


def test_picture_that_fails_is_counted_and_the_next_one_made(counters, published):
    def fail_once(camera, jpeg, failures=[True]):  # noqa: B006
        if failures:
            failures.pop()
            raise ValueError("broken")
        published(camera, jpeg)

    with Snapshots(SnapshotConfig(), fail_once, counters) as snapshots:
        snapshots.observe(frame_of(), result_of(event_of(), event_of()))
        published.next()
    assert counters.total("snapshots_dropped", reason="failed") == 1


def test_large_object_is_scaled_down():
    jpeg = encode(
        frame_of(width=1920, height=1080).image_rgb, event_of(box_rel=(0, 0, 1, 1)), SnapshotConfig(max_px=200)
    )
    assert image.decode_image(jpeg, "snapshot").shape == (112, 200, 3)


def test_picture_full_of_noise_stays_small_enough_for_a_broker():
    noise = np.random.default_rng(1).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    jpeg = encode(noise, event_of(box_rel=(0, 0, 1, 1)), SnapshotConfig(max_px=2048))
    assert 1000 < len(jpeg) <= MAX_BYTES


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.tuples(*[st.floats(-0.5, 1.5)] * 4), st.floats(0, 2))
def test_any_box_gives_a_picture(box, margin):
    jpeg = encode(frame_of().image_rgb, event_of(box_rel=box), SnapshotConfig(margin=margin, max_px=64))
    assert max(image.decode_image(jpeg, "snapshot").shape[:2]) <= 64
