from edge.messaging.device_topics import STAGE, Journeys
from edge.telemetry.metrics import StageTimer


def test_an_event_is_measured_from_its_picture_to_its_acknowledgement():
    timer, now_ns = StageTimer(), 90_000_000
    journeys = Journeys(timer, lambda: now_ns)
    journeys.begin("a", 40_000_000)
    journeys.begin("b", 60_000_000)
    journeys.end(["a", "never begun"])
    assert timer.snapshot()[STAGE].count == 1
    assert timer.snapshot()[STAGE].p50_ms == 50.0
    journeys.end(["a"])
    assert timer.snapshot()[STAGE].count == 1


def test_of_an_outage_the_latest_events_are_measured():
    timer = StageTimer()
    journeys = Journeys(timer, lambda: 0)
    for number in range(5000):
        journeys.begin(str(number), 0)
    journeys.end(map(str, range(5000)))
    assert timer.snapshot()[STAGE].count == 4096
