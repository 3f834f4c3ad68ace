"""The best picture of each object that leaves without a name."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge.config.schema import UnknownsConfig
from edge.imaging import image
from edge.recognition.pipeline import Result, TrackedObject
from edge.recognition.tracker import Track
from edge.telemetry.timing import Timings
from edge.types import Category, Decision, Frame, Hit
from edge.unknowns.collector import UnknownObjects
from edge.unknowns.record import Origin
from edge.unknowns.spool import Spool
from tests.edge.messaging.test_payload import EVENT, KNOWN
from tests.fakes_engine import FakeCounts
from tests.waiting import until

NOW = 1_700_000_000.0
BOX_PX = (100.0, 60.0, 200.0, 160.0)
UNKNOWN = Decision(Category("carton", 0.9), None, "unknown_item", (Hit("c1", "Oat flakes", 0.41),))


def noise_frame(seed=1, box=BOX_PX):
    """A grey frame with a pattern in a box; those of other seeds do not look alike."""
    picture = np.full((360, 640, 3), 90, np.uint8)
    x0, y0, x1, y1 = map(int, box)
    pattern = np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    picture[y0:y1, x0:x1] = cv2.resize(pattern, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST)
    return picture


def unknown_end(track_id=7, camera="door", decision=UNKNOWN):
    return replace(EVENT, type="end", camera=camera, track_id=track_id, decision=decision)


class Shop:
    """Unknown objects with their spool and counters; call `objects` to pass it frames and events."""

    def __init__(self, folder, **config):
        self.counts, self.kept = FakeCounts(), threading.Semaphore(0)
        self.spool = Spool(folder / "unknowns", 1 << 20, self.counts)
        self.now = NOW
        self.objects = UnknownObjects(
            UnknownsConfig(upload_url="http://127.0.0.1:9", **config),
            Origin("shop", "cam-1"),
            self.spool,
            self.counts,
            is_wanted=lambda camera: camera != "counter",
            margin=lambda: 0.1,
            on_kept=self.kept.release,
            now=lambda: self.now,
        )

    def see(self, track_id=7, *, blur=0, seed=1, box=BOX_PX, weight=1.0, decision=None, camera="door"):
        picture = noise_frame(seed, box)
        frame = Frame(camera, 0, cv2.blur(picture, (blur, blur)) if blur else picture, 1, NOW + blur, "arrival")
        track = Track(track_id, box, "object", 3, 0.0, 1.0)
        self.objects.observe(frame, Result([], [TrackedObject(track, decision)], Timings(), 1, {track_id: weight}))

    def leave(self, track_id=7, decision=UNKNOWN, camera="door"):
        self.objects.observe_event(unknown_end(track_id, camera, decision))

    def dropped(self, reason):
        return self.counts.total[f"unknowns_dropped camera=door reason={reason}"]

    def files(self):
        """Return the record and the picture of each file that waits."""
        found = []
        for upload in self.spool.pending():
            with zipfile.ZipFile(io.BytesIO(upload.read())) as file:
                record = json.loads(file.read("object.json"))
                found.append((record, image.decode_image(file.read("crop.jpg"), "crop")))
        return found


@contextmanager
def shop(folder, **config):
    one = Shop(folder, **config)
    with one.objects:
        yield one


def test_best_view_is_kept_when_the_object_leaves_without_a_name(tmp_path):
    with shop(tmp_path) as one:
        for blur in (9, 0, 5):
            one.see(blur=blur)
        one.leave()
        assert one.kept.acquire(timeout=60)
    ((record, picture),) = one.files()
    assert picture.shape == (120, 120, 3)  # 100 px and what the models see around
    assert record["captured_at"] == "2023-11-14T22:13:20.000Z"  # of the sharp one
    assert (record["looks"], record["box_px"]) == (3, [10.0, 10.0, 110.0, 110.0])
    assert (record["site"], record["device"], record["camera"]) == ("shop", "cam-1", "door")
    assert (record["category"], record["reason"], record["bundle"]) == ("carton", "unknown_item", EVENT.bundle)
    assert record["top"] == [{"item": "c1", "label": "Oat flakes", "score": 0.41}]
    assert one.counts.total["unknowns camera=door"] == 1


def test_view_that_is_cut_off_counts_less(tmp_path):
    with shop(tmp_path) as one:
        one.see(seed=1)
        one.see(seed=2, box=(0.0, 60.0, 110.0, 170.0), weight=0.1)
        one.leave()
    assert one.files()[0][0]["box_px"][0] == 10.0


@pytest.mark.parametrize(
    "decision",
    [KNOWN, Decision(None, None, "unknown_category"), Decision(None, None, "too_small")],
    ids=["named", "reason not wanted", "too small"],
)
def test_other_objects_leave_no_picture(tmp_path, decision):
    with shop(tmp_path) as one:
        one.see()
        one.leave(decision=decision)
    assert one.files() == []
    assert one.objects._best == {}


def test_objects_of_other_cameras_and_small_ones_are_not_looked_at(tmp_path):
    with shop(tmp_path, min_px=64) as one:
        one.see(camera="counter")
        one.leave(camera="counter")
        one.see(box=(10.0, 10.0, 200.0, 70.0))
        one.leave()
    assert (one.files(), one.dropped("no_picture")) == ([], 1)


def test_object_that_comes_back_is_not_sent_again(tmp_path):
    with shop(tmp_path) as one:
        for track_id, seed in ((1, 1), (2, 1), (3, 2)):
            one.see(track_id, seed=seed)
            one.leave(track_id)
    assert [record["track_id"] for record, _ in one.files()] == [1, 3]
    assert one.dropped("alike") == 1


def test_pictures_are_limited_by_hour(tmp_path):
    with shop(tmp_path, per_hour=2) as one:
        for track_id in range(4):
            one.see(track_id, seed=track_id)
            one.leave(track_id)
        until(lambda: one.dropped("limit") == 2, "two are over the limit")
        one.now += 3601
        one.see(9, seed=9)
        one.leave(9)
    assert [record["track_id"] for record, _ in one.files()] == [0, 1, 9]


def test_full_queue_drops_the_oldest_view_and_no_end(tmp_path):
    one = Shop(tmp_path)  # its thread does not run yet
    one.see(1, seed=1)
    one.leave(1)
    for track_id in range(2, 12):
        one.see(track_id, seed=track_id)
    assert len(one.objects._waiting) == 9
    with one.objects:
        one.leave(11)
    assert [record["track_id"] for record, _ in one.files()] == [11]
    assert (one.dropped("busy"), one.dropped("no_picture")) == (3, 1)


def test_objects_in_view_are_bounded(tmp_path):
    with shop(tmp_path) as one:
        for track_id in range(70):
            one.see(track_id, decision=UNKNOWN)
            until(lambda: not one.objects._waiting, "the view is compared")
    assert (len(one.objects._best), one.dropped("busy")) == (64, 6)


def test_tracks_too_brief_for_an_event_make_room_first(tmp_path):
    with shop(tmp_path) as one:
        one.see(1, decision=UNKNOWN)
        for track_id in range(2, 72):
            one.see(track_id)
            until(lambda: not one.objects._waiting, "the view is compared")
        one.leave(1)
    assert [record["track_id"] for record, _ in one.files()] == [1]
    assert (len(one.objects._best), one.dropped("busy")) == (63, 0)


def test_disk_error_is_counted_and_the_next_object_goes_on(tmp_path):
    (tmp_path / "unknowns").write_text("in the way")
    with shop(tmp_path) as one:
        one.see(1, seed=1)
        one.leave(1)
        until(lambda: one.dropped("disk"), "the disk refused it")
        (tmp_path / "unknowns").unlink()
        one.see(2, seed=2)
        one.leave(2)
    assert [record["track_id"] for record, _ in one.files()] == [2]


def test_large_objects_are_scaled_down(tmp_path):
    with shop(tmp_path, max_px=100) as one:
        one.see(box=(100.0, 60.0, 300.0, 260.0))
        one.leave()
    ((record, picture),) = one.files()
    assert picture.shape == (100, 100, 3)
    assert record["box_px"] == [8.3, 8.3, 91.7, 91.7]
