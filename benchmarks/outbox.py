"""Throughput and latency of events into the outbox and through it to a broker.

Run: python benchmarks/outbox.py [--out benchmarks/results/outbox.json]; needs mosquitto, for the real broker.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

from edge.demo.broker import EmbeddedBroker
from edge.demo.subscriber import Subscriber
from edge.messaging.outbox import Outbox
from edge.messaging.payload import event_payload
from edge.messaging.publisher import Publisher
from edge.messaging.settings import MqttSettings
from edge.telemetry.counters import Counters
from edge.telemetry.health_report import resident_bytes
from edge.telemetry.timing import percentile
from edge.types import Category, Decision, Event, Hit, Match

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))
from mosquitto import Mosquitto  # of the tests

TOPIC = "finesight/site/device/camera/events"


def sample_event(number: int) -> bytes:
    decision = Decision(
        Category("bottle", 0.98),
        Match("sku-000123", "Mineral water 0.5 l", 0.91, 0.2, 0.97),
        None,
        tuple(Hit(f"sku-00{n}", f"Mineral water {n}", 0.9 - n / 10) for n in range(5)),
    )
    latency_ms = {"detect": 9.1, "classify": 2.0, "embed": 6.5, "search": 0.4, "total": 19.2}
    event = Event(
        f"event-{number}", "new", "camera", number, time.time(), time.monotonic_ns(), "arrival", None,
        (0.1, 0.2, 0.3, 0.4), (1920, 1080), time.time(), 0.0, decision, "bundle", "gallery", latency_ms,
    )  # fmt: skip
    return event_payload(event, "site", "device", "boot", number)


def time_puts(folder: Path, count: int, per_second: int | None) -> dict[str, float]:
    """Put events at a rate, or as fast as possible; return the caller's latency and the rate to the last commit."""
    counters = Counters()
    payload = sample_event(0)
    with Outbox(folder / f"puts-{per_second}.sqlite", counters, max_memory_bytes=1 << 30, max_bytes=1 << 30) as outbox:
        latencies_ms = []
        started = time.perf_counter()
        for number in range(count):
            if per_second is not None:
                time.sleep(max(0.0, started + number / per_second - time.perf_counter()))
            called = time.perf_counter()
            outbox.put(TOPIC, payload, 1, f"e{number}")
            latencies_ms.append((time.perf_counter() - called) * 1e3)
        if not outbox.flush(60.0):
            raise SystemExit("the outbox did not write all events within 60 s")
        elapsed_s = time.perf_counter() - started
    latencies_ms.sort()
    return {
        "events": count,
        "payload_bytes": len(payload),
        "put_per_s": round(count / elapsed_s),
        "put_p50_ms": round(percentile(latencies_ms, 50), 4),
        "put_p99_ms": round(percentile(latencies_ms, 99), 4),
        "put_max_ms": round(latencies_ms[-1], 3),
    }


def time_publishing(folder: Path, name: str, host: str, port: int, count: int) -> dict[str, float]:
    """Deliver stored events to a subscriber at QoS 1, then single live events; return rate and latency."""
    counters, arrived, wanted = Counters(), threading.Semaphore(0), threading.Event()
    times: dict[str, int] = {}

    def deliver(_message: object) -> None:
        times["last"] = time.perf_counter_ns()
        wanted.set()
        arrived.release()

    # puts are faster than the disk, so waiting events need memory
    with Outbox(folder / f"{name}.sqlite", counters, max_memory_bytes=1 << 30) as outbox:
        for number in range(count):
            outbox.put(TOPIC, sample_event(number), 1, f"e{number}")
        outbox.flush(60.0)
        settings = MqttSettings("bench-out", host=host, port=port)
        with Subscriber(MqttSettings("bench-in", host=host, port=port), TOPIC, deliver):
            started = time.perf_counter()
            with Publisher(settings, outbox, counters, "finesight/site/device/available"):
                for _ in range(count):
                    if not arrived.acquire(timeout=60.0):
                        raise SystemExit(f"{name}: an event did not arrive within 60 s")
                elapsed_s = time.perf_counter() - started
                live_ms = []
                for number in range(200):
                    payload = sample_event(number)
                    wanted.clear()
                    sent = time.perf_counter_ns()
                    outbox.put(TOPIC, payload, 1, f"live{number}")
                    if not wanted.wait(10.0):
                        raise SystemExit(f"{name}: a live event did not arrive within 10 s")
                    live_ms.append((times["last"] - sent) / 1e6)
                    time.sleep(0.01)
    live_ms.sort()
    return {
        "events": count,
        "events_per_s": round(count / elapsed_s),
        "live_p50_ms": round(percentile(live_ms, 50), 2),
        "live_p99_ms": round(percentile(live_ms, 99), 2),
        "retried": counters.total("events_retried"),
    }


def time_embedded_start() -> dict[str, float]:
    started = time.perf_counter()
    with EmbeddedBroker():
        started_s = time.perf_counter() - started
    return {
        "start_ms": round(started_s * 1e3, 1),
        "stop_ms": round((time.perf_counter() - started - started_s) * 1e3, 1),
    }


def machine() -> dict[str, object]:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "outbox.json", help="report to write"
    )
    parser.add_argument("--events", type=int, default=10_000, help="number of events; default: %(default)s")
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["put, 200 per second"] = time_puts(folder, 1000, 200)
        results["put, as fast as it goes"] = time_puts(folder, options.events, None)
        with Mosquitto(folder / "mosquitto", lines=("autosave_interval 100000",)) as broker:
            results["mosquitto"] = time_publishing(folder, "mosquitto", broker.host, broker.port, options.events)
        results["embedded, start and stop"] = time_embedded_start()
        with EmbeddedBroker() as embedded:
            count = options.events // 5
            results["embedded"] = time_publishing(folder, "embedded", embedded.host, embedded.port, count)
    for title, row in results.items():
        print(f"{title:26}" + "  ".join(f"{key} {value:>8}" for key, value in row.items()))
    report = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "machine": machine(),
        "resident_bytes": resident_bytes(),
        "results": results,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
