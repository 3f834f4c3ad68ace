from edge.messaging.device_publisher import STAGE, PublishLatency
from edge.telemetry.timing import StageTimer


def test_latency_is_measured_from_capture_to_acknowledgement():
    timer, now_ns = StageTimer(), 90_000_000
    publish_latency = PublishLatency(timer, lambda: now_ns)
    publish_latency.start("a", 40_000_000)
    publish_latency.start("b", 60_000_000)
    publish_latency.finish(["a", "never started"])
    assert timer.snapshot()[STAGE].count == 1
    assert timer.snapshot()[STAGE].p50_ms == 50.0
    publish_latency.finish(["a"])
    assert timer.snapshot()[STAGE].count == 1


def test_after_an_outage_only_the_latest_events_are_measured():
    timer = StageTimer()
    publish_latency = PublishLatency(timer, lambda: 0)
    for number in range(5000):
        publish_latency.start(str(number), 0)
    publish_latency.finish(map(str, range(5000)))
    assert timer.snapshot()[STAGE].count == 4096
