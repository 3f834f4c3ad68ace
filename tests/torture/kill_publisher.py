"""Kill a publishing device again and again, restart its broker now and then, and look for lost events.

    python -m tests.torture.kill_publisher FOLDER KILLS SEED

Each round forks a device with an outbox in FOLDER, a publisher and a real mosquitto. It makes events until it is
killed (SIGKILL) at a random moment. It reports through a pipe, which survives it, which events were on disk and which
the broker had acknowledged. A subscriber with a lasting session collects what arrives. In the end one device sends what
is left. An event is lost if it was on disk, or acknowledged, and never arrived.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from edge.demo.subscriber import Subscriber
from edge.messaging.outbox import Outbox
from edge.messaging.publisher import Listeners, Publisher
from edge.telemetry.counters import Counters
from tests.integration.mosquitto import Mosquitto
from tests.integration.mqtt_samples import AVAILABLE, EVENTS, ReceivedMessages, settings
from tests.waiting import until

_LONGEST_LIFE_S = 0.4
_RESTART = 0.1  # of the rounds
_BREAK_S = 0.003  # between two events


def device(path: Path, broker: Mosquitto, pipe: int, round_number: int) -> None:
    """Make events and publish them, until killed."""
    rng = random.Random(round_number)

    def report(kind: str, event_ids: list[str]) -> None:
        os.write(pipe, f"{kind} {' '.join(event_ids)}\n".encode())

    outbox = Outbox(path, Counters())
    listeners = Listeners(lambda event_ids: report("acknowledged", event_ids))
    publisher = Publisher(settings(broker, "device", window=8), outbox, Counters(), AVAILABLE, listeners=listeners)
    publisher.start()
    number, unsure = 0, []
    while True:
        event_id = f"{round_number}-{number}"
        payload = {"id": event_id, "filling": "x" * rng.randint(0, 900), "historical": False}
        outbox.put(EVENTS, json.dumps(payload, separators=(",", ":")).encode(), rng.choice((0, 1, 2)), event_id)
        number, unsure = number + 1, [*unsure, event_id]
        time.sleep(_BREAK_S)
        if number % 8 == 0 and outbox.flush(1.0):
            report("stored", unsure)
            unsure = []


def run_and_kill(path: Path, broker: Mosquitto, round_number: int, rng: random.Random) -> list[list[str]]:
    """Run one device until it is killed; return the words of its whole reports."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ours)
            device(path, broker, theirs, round_number)
        finally:  # never go on as the parent
            os._exit(1)
    os.close(theirs)
    os.set_blocking(ours, False)
    text, end = b"", time.monotonic() + rng.uniform(0.02, _LONGEST_LIFE_S)
    restart = end - 0.1 if rng.random() < _RESTART else None
    while (now := time.monotonic()) < end:
        if restart is not None and now > restart:
            restart = None
            broker.stop()
            broker.start()
        try:
            text += os.read(ours, 65536)
        except BlockingIOError:
            time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.set_blocking(ours, True)
    with os.fdopen(ours, "rb") as rest:
        text += rest.read()
    return [line.split() for line in text[: text.rfind(b"\n") + 1].decode().splitlines()]


def main(folder: Path, kills: int, seed: int) -> None:
    """Print a JSON report."""
    rng, path, received = random.Random(seed), folder / "outbox.sqlite", ReceivedMessages()
    stored: set[str] = set()
    acknowledged: list[str] = []
    with (
        Mosquitto(folder / "mosquitto") as broker,
        Subscriber(settings(broker, "subscriber"), "fs/#", received, resume=True),
    ):
        for round_number in range(kills):
            for kind, *event_ids in run_and_kill(path, broker, round_number, rng):
                stored.update(event_ids) if kind == "stored" else acknowledged.extend(event_ids)
        counters = Counters()
        with (
            Outbox(path, counters) as outbox,
            Publisher(settings(broker, "device"), outbox, counters, AVAILABLE) as publisher,
        ):
            until(lambda: publisher.connected and outbox.depth()[0] == 0, "the rest sent")
            set_aside = len(outbox.newest_set_aside())
        wanted = stored | set(acknowledged)
        until(lambda: wanted <= {event["id"] for event in received.events()}, "all of them received")
    arrived = Counter(event["id"] for event in received.events())
    report = {
        "kills": kills,
        "stored": len(stored),
        "acknowledged": len(acknowledged),
        "arrived": len(arrived),
        "lost": sorted((stored | set(acknowledged)) - set(arrived)),
        "arrived_more_than_once": sum(count > 1 for count in arrived.values()),
        "most_copies": max(arrived.values()),
        "set_aside": set_aside,
        "damaged": counters.total("outbox_damaged"),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
