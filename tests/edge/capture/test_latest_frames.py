"""The slots between capture threads and the pipeline."""

from __future__ import annotations

import threading

import numpy as np

from edge.capture.latest_frames import Mailbox
from edge.types import Frame


def a_frame(camera, index):
    return Frame(camera, index, np.zeros((2, 2, 3), np.uint8), index, 0.0, "arrival")


def taken(mailbox):
    return [(frame.camera, frame.index) for frame in iter(lambda: mailbox.take(0), None)]


def test_only_the_newest_frame_is_kept():
    mailbox = Mailbox()
    assert [mailbox.put_newest(a_frame("a", i)) for i in range(3)] == [False, True, True]
    assert taken(mailbox) == [("a", 2)]


def test_a_fast_camera_does_not_starve_a_slow_one():
    mailbox = Mailbox()
    mailbox.put_newest(a_frame("fast", 0))
    mailbox.put_newest(a_frame("slow", 0))
    assert mailbox.take(0).camera == "fast"
    for index in range(1, 5):
        mailbox.put_newest(a_frame("fast", index))
    assert taken(mailbox) == [("slow", 0), ("fast", 4)]


def test_a_newer_frame_does_not_lose_its_cameras_turn():
    mailbox = Mailbox()
    for camera, index in (("a", 0), ("b", 0), ("a", 1)):
        mailbox.put_newest(a_frame(camera, index))
    assert taken(mailbox) == [("a", 1), ("b", 0)]


def test_several_are_taken_at_once_the_longest_waiting_first():
    mailbox = Mailbox()
    for camera in "abc":
        mailbox.put_newest(a_frame(camera, 0))
    assert [frame.camera for frame in mailbox.take_several(0, 2)] == ["a", "b"]
    assert [frame.camera for frame in mailbox.take_several(0, 2)] == ["c"]
    assert mailbox.take_several(0, 2) == []


def test_take_waits_for_a_frame():
    mailbox = Mailbox()
    mailbox.add("a")
    thread = threading.Thread(target=lambda: mailbox.put_newest(a_frame("a", 7)))
    thread.start()
    assert mailbox.take(10).index == 7
    thread.join()


def test_a_file_waits_until_its_frame_is_taken():
    mailbox = Mailbox()
    mailbox.add("a")

    def put_all():
        for index in range(20):
            mailbox.put_when_free(a_frame("a", index), lambda: False)
        mailbox.remove("a")

    thread = threading.Thread(target=put_all)
    thread.start()
    assert list(range(20)) == [frame.index for frame in mailbox.frames()]
    thread.join()


def test_stopping_frees_whoever_waits_for_a_slot():
    mailbox = Mailbox()
    mailbox.put_newest(a_frame("a", 0))
    stopping = threading.Event()
    results = []
    thread = threading.Thread(target=lambda: results.append(mailbox.put_when_free(a_frame("a", 1), stopping.is_set)))
    thread.start()
    stopping.set()
    mailbox.wake()
    thread.join(10)
    assert results == [False]
    assert taken(mailbox) == [("a", 0)]


def test_what_a_camera_left_is_taken_before_the_end():
    mailbox = Mailbox()
    mailbox.add("a")
    mailbox.put_newest(a_frame("a", 3))
    mailbox.remove("a")
    assert not mailbox.drained
    assert [frame.index for frame in mailbox.frames()] == [3]
    assert mailbox.drained
