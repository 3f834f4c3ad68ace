from __future__ import annotations

import threading

from edge.telemetry.counters import Counters


def test_labels_distinguish_causes():
    counters = Counters()
    counters.add("frames_dropped", camera="door", reason="superseded")
    counters.add("frames_dropped", 2, reason="stale", camera="door")
    counters.add("frames")
    assert counters.snapshot() == {
        "frames": 1,
        'frames_dropped{camera="door",reason="stale"}': 2,
        'frames_dropped{camera="door",reason="superseded"}': 1,
    }
    assert counters.total("frames_dropped", camera="door") == 3
    assert counters.total("frames_dropped", reason="stale") == 2
    assert counters.total("never") == 0


def test_counters_are_thread_safe():
    counters = Counters()

    def count():
        for _ in range(2000):
            counters.add("frames", camera="door")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.total("frames") == 8000
