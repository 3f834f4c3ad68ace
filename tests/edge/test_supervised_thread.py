"""Threads that are restarted after an unexpected exception."""

from __future__ import annotations

import logging
import re
import threading

from edge.supervised_thread import SupervisedThread
from edge.telemetry.counters import Counters


class Scripted:
    """A target that takes one step of its script for each call, and a clock and a wait to go with it."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.calls = 0
        self.waited_s = []
        self.now_s = 0.0

    def __call__(self):
        self.calls += 1
        step = self.steps.pop(0) if self.steps else None
        if isinstance(step, BaseException):
            raise step
        if step is not None:  # a long run, and then a failure
            self.now_s += step
            raise OSError("late")

    def wait(self, seconds):
        self.waited_s.append(seconds)
        return False


def run(target):
    counters = Counters()
    thread = SupervisedThread("worker", target, counters, clock=lambda: target.now_s, wait=target.wait)
    thread.start()
    thread._thread.join(60)
    return thread, counters


def test_target_that_returns_ends_its_thread():
    target = Scripted()
    thread, counters = run(target)
    assert (target.calls, thread.is_alive()) == (1, False)
    assert counters.total("thread_restarts") == 0


def test_target_that_raises_is_restarted_and_counted():
    target = Scripted(KeyError("a"), ValueError("b"))
    _, counters = run(target)
    assert (target.calls, target.waited_s) == (3, [1.0, 2.0])
    assert counters.total("thread_restarts", thread="worker") == 2


def test_backoff_doubles_to_a_minute_and_resets_after_a_good_run():
    target = Scripted(*[OSError("x")] * 8, 60.0, OSError("x"))
    run(target)
    assert target.waited_s == [1, 2, 4, 8, 16, 32, 60, 60, 1, 2]


def test_same_failure_is_logged_once_with_its_traceback(caplog):
    with caplog.at_level(logging.ERROR):
        run(Scripted(OSError("one"), OSError("two"), ValueError("three")))
    assert [record.message.split()[2] for record in caplog.records] == ["OSError", "ValueError"]
    assert re.search(r"OSError at test_supervised_thread\.py:\d+: one; restarting in 1 s", caplog.records[0].message)
    assert all(record.exc_info for record in caplog.records)


def test_stop_ends_a_thread_that_waits_to_restart():
    failed = threading.Event()

    def target():
        failed.set()
        raise OSError("x")

    thread = SupervisedThread("worker", target, Counters())
    thread.start()
    assert failed.wait(60)
    assert thread.stop(5)


def test_failure_while_stopping_is_no_restart():
    stopping, counters = threading.Event(), Counters()

    def target():
        stopping.wait(5)
        raise OSError("closed under it")

    thread = SupervisedThread("worker", target, counters)
    thread.start()
    thread._stop.set()
    stopping.set()
    assert thread.stop(5)
    assert counters.total("thread_restarts") == 0


def test_thread_that_never_started_is_stopped():
    assert SupervisedThread("worker", lambda: None, Counters()).stop()


def test_exit_of_a_library_is_a_failure():
    target = Scripted(SystemExit(1))
    _, counters = run(target)
    assert (target.calls, counters.total("thread_restarts")) == (2, 1)
