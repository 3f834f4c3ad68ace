"""Kills a process with an outbox again and again, and reports lost events: `outbox_kills.py FILE ROUNDS SEED`.

Each round forks a device that puts, stores, delivers and acknowledges events, and kills it at a random moment. The
device reports through a pipe, which survives it: `stored` after a flush, `delivered` before the acknowledgement.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from edge.messaging.outbox import Outbox
from edge.telemetry.counters import Counters

_MOST_REPORTS = 12  # before it is killed
_BETWEEN_S = 0.003  # longest life after the last of these


def device(path: Path, pipe: int, round_number: int, rng: random.Random) -> None:
    """Put and deliver events until killed."""
    outbox = Outbox(path, Counters(), commit_interval_s=0.0)
    os.write(pipe, b"open\n")
    number = 0
    while True:
        fresh = [f"{round_number}-{number + offset}" for offset in range(rng.randint(1, 8))]
        number += len(fresh)
        for event_id in fresh:
            outbox.put("t/events", b"x" * rng.randint(10, 4000), rng.randint(0, 1), event_id)
        if outbox.flush():
            os.write(pipe, f"stored {' '.join(fresh)}\n".encode())
        arrived = [message.event_id for message in outbox.pending(rng.randint(1, 8))]
        os.write(pipe, f"delivered {' '.join(arrived)}\n".encode())
        outbox.acknowledge(arrived)


def run_and_kill(path: Path, round_number: int, rng: random.Random) -> list[list[str]]:
    """Run one device until it is killed, some reports later; return the words of its reports."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        device(path, theirs, round_number, random.Random(round_number))
    os.close(theirs)
    wanted = rng.randint(1, _MOST_REPORTS) if rng.random() < 0.9 else 0  # 0: it may die while opening the file
    text = b""
    while text.count(b"\n") < wanted and (more := os.read(ours, 1 << 16)):
        text += more
    time.sleep(rng.uniform(0.0, _BETWEEN_S))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(ours, "rb") as rest:
        text += rest.read()
    return [line.split() for line in text[: text.rfind(b"\n") + 1].decode("ascii").splitlines()]


def main(path: Path, rounds: int, seed: int) -> None:
    rng = random.Random(seed)
    stored: set[str] = set()
    delivered: set[str] = set()
    lost, doubled, died_early, died_midway = set(), 0, 0, 0
    for round_number in range(rounds):
        reports = run_and_kill(path, round_number, rng)
        died_early += not reports
        died_midway += bool(reports) and reports[-1][0] != "delivered"
        for kind, *event_ids in reports:
            {"stored": stored, "delivered": delivered, "open": set()}[kind].update(event_ids)
        counters = Counters()
        with Outbox(path, counters) as outbox:
            waiting = [message.event_id for message in outbox.pending(1_000_000)]
        doubled += len(waiting) - len(set(waiting))
        lost |= stored - delivered - set(waiting)
        lost |= {"the file"} if counters.total("outbox_damaged") else set()
    answer = {
        "stored": len(stored),
        "delivered": len(delivered),
        "lost": sorted(lost),
        "doubled": doubled,
        "died_early": died_early,
        "died_midway": died_midway,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
