"""The handover of frames from capture threads to the pipeline."""

from __future__ import annotations

import threading

import numpy as np

from edge.capture.latest_frames import LatestFrames
from edge.types import Frame


def a_frame(camera, index):
    return Frame(camera, index, np.zeros((2, 2, 3), np.uint8), index, 0.0, "arrival")


def taken(latest_frames):
    return [(frame.camera, frame.index) for frame in iter(lambda: latest_frames.take(0), None)]


def test_only_the_newest_frame_is_kept():
    latest_frames = LatestFrames()
    assert [latest_frames.put_newest(a_frame("a", i)) for i in range(3)] == [False, True, True]
    assert taken(latest_frames) == [("a", 2)]


def test_fast_camera_does_not_starve_a_slow_one():
    latest_frames = LatestFrames()
    latest_frames.put_newest(a_frame("fast", 0))
    latest_frames.put_newest(a_frame("slow", 0))
    assert latest_frames.take(0).camera == "fast"
    for index in range(1, 5):
        latest_frames.put_newest(a_frame("fast", index))
    assert taken(latest_frames) == [("slow", 0), ("fast", 4)]


def test_newer_frame_keeps_its_cameras_turn():
    latest_frames = LatestFrames()
    for camera, index in (("a", 0), ("b", 0), ("a", 1)):
        latest_frames.put_newest(a_frame(camera, index))
    assert taken(latest_frames) == [("a", 1), ("b", 0)]


def test_take_several_returns_the_longest_waiting_first():
    latest_frames = LatestFrames()
    for camera in "abc":
        latest_frames.put_newest(a_frame(camera, 0))
    assert [frame.camera for frame in latest_frames.take_several(0, 2)] == ["a", "b"]
    assert [frame.camera for frame in latest_frames.take_several(0, 2)] == ["c"]
    assert latest_frames.take_several(0, 2) == []


def test_take_waits_for_a_frame():
    latest_frames = LatestFrames()
    latest_frames.add("a")
    thread = threading.Thread(target=lambda: latest_frames.put_newest(a_frame("a", 7)))
    thread.start()
    assert latest_frames.take(10).index == 7
    thread.join()


def test_put_when_free_waits_until_the_frame_is_taken():
    latest_frames = LatestFrames()
    latest_frames.add("a")

    def put_all():
        for index in range(20):
            latest_frames.put_when_free(a_frame("a", index), lambda: False)
        latest_frames.remove("a")

    thread = threading.Thread(target=put_all)
    thread.start()
    assert list(range(20)) == [frame.index for frame in latest_frames.frames()]
    thread.join()


def test_stopping_ends_put_when_free():
    latest_frames = LatestFrames()
    latest_frames.put_newest(a_frame("a", 0))
    stopping = threading.Event()
    results = []
    thread = threading.Thread(
        target=lambda: results.append(latest_frames.put_when_free(a_frame("a", 1), stopping.is_set))
    )
    thread.start()
    stopping.set()
    latest_frames.wake()
    thread.join(60)
    assert results == [False]
    assert taken(latest_frames) == [("a", 0)]


def test_last_frame_of_a_removed_camera_is_taken_before_the_end():
    latest_frames = LatestFrames()
    latest_frames.add("a")
    latest_frames.put_newest(a_frame("a", 3))
    latest_frames.remove("a")
    assert not latest_frames.drained
    assert [frame.index for frame in latest_frames.frames()] == [3]
    assert latest_frames.drained
