"""What a fleet costs on the wire, and how soon a device has what was published.

    python benchmarks/fleet_sync.py [--checks 100] [--rounds 5]

A repository behind a static web server on loopback, an enrolled device with a kiosk (`edge run`), and its update agent
(`edge-sync agent`), as processes of their own. Bytes are counted at the sockets of the server, both directions,
headers included.

* Nothing to do: requests and bytes of a check of the agent, and its processor time by /proc/PID/task/*/schedstat.
* Gallery delta: +100 / -50 items of a gallery of 20,000 items, one vector of 256 numbers each. Its embedder is a random
  projection of the picture, so that every picture has a vector of its own; the items are pictures of noise, and 12 of
  the new ones are looked up afterwards. Bytes downloaded in all, metadata included, against the bytes of the changed
  records (ids, labels, vectors, scales, thumbnails). `searchable_s`: from the last byte that the server sent to the
  first answer of the kiosk that names a new item. Another thread looks items up all the time: `failed_queries` counts
  answers that are not the right item. `steps_s`: when each step was done, from the last byte on. Other work on the
  machine (`load_1_min`) lengthens all of it.
* Bundle by residual: bytes that `edge-sync pull` downloads, metadata included, for the demo's five embedders, detector
  and classifier in INT8 with noise on the weights: a stand-in for a fine-tuning; see residual.py for trained models.

Writes benchmarks/results/fleet_sync.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.counted_wire import Wire, counting  # noqa: E402
from benchmarks.noise_catalogue import (  # noqa: E402
    CATEGORY,
    DIM,
    ITEMS,
    SPACE,
    Pictures,
    embed,
    make_bundle,
    make_gallery,
    make_repository,
    publish,
)
from benchmarks.noisy_models import DEMO, noisy_bundle  # noqa: E402
from benchmarks.running_device import (  # noqa: E402
    Asking,
    Kiosk,
    Process,
    agent_command,
    prepare_device,
    running,
    wait_for,
)
from gallery_sync.command_line import utc_now  # noqa: E402

ADDED, DELETED = 100, 50
LOOK_S = 0.04  # between two look-ups of a new item
POLL_S = 0.5
NOISE = 0.01  # of the deviation of a tensor
TARGETS = {"bytes_to_changed": 1.25, "searchable_s": 1.0, "check_bytes": 1024, "check_cpu_ms": 50.0}


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checks", type=int, default=100, help="of the agent with nothing to do")
    parser.add_argument("--rounds", type=int, default=5, help="changes of the gallery")
    parser.add_argument("--keep", type=Path, help="use this folder, and keep it")
    arguments = parser.parse_args()
    from benchmarks import rig

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="fleet-sync-", dir=arguments.keep) as folder:
        report = measure(Path(folder), arguments.checks, arguments.rounds) | {"load_1_min": os.getloadavg()[0]}
    rig.write_report(report, ROOT / "benchmarks/results/fleet_sync.json")
    print_table(report)


def print_table(report: dict[str, Any]) -> None:
    """Print what the targets are about."""
    idle, delta, bundle = report["nothing_to_do"], report["gallery_delta"], report["bundle_by_residual"]
    rows = [
        ("nothing to do: requests", idle["requests_per_check"], "1"),
        ("nothing to do: bytes, both directions", idle["bytes_per_check"], "< 1024"),
        ("nothing to do: CPU ms", idle["cpu_ms_per_check"], "< 50"),
        ("gallery delta: bytes in all / changed records", delta["bytes_to_changed"], "<= 1.25"),
        ("gallery delta: s from the last byte to searchable, median", delta["searchable_s"], "< 1"),
        ("gallery delta: the slowest", delta["searchable_worst_s"], ""),
        ("gallery delta: failed queries", f"{delta['failed_queries']} of {delta['queries_meanwhile']}", "0"),
        ("bundle by residual: bytes in all / whole files", bundle["bytes_to_whole"], "<= 0.35"),
    ]
    for name, value, target in rows:
        print(f"{name:60} {value!s:>14} {target:>10}")


def measure(folder: Path, checks: int, rounds: int) -> dict[str, Any]:
    """Return the report, without machine and date."""
    from tests.sync_server import serving

    repo, state, pictures = folder / "repo", folder / "state", Pictures()
    keys = make_repository(repo)
    publish(repo, keys, bundle_folder=make_bundle(folder / "bundle"), gallery_folder=make_gallery(folder, pictures))
    with serving(repo, keep_alive=True) as server, counting(server) as wire:
        config = prepare_device(folder, state, repo, server.url)
        with running(agent_command(folder, state, config, POLL_S), folder / "agent.log") as agent:
            wait_for((state / "current").exists, "the first release is active")
            edge_command = [sys.executable, "-m", "edge", "run", "-c", str(config)]
            with running(edge_command, folder / "edge.log") as edge:
                kiosk = Kiosk(int(re.findall(r"port: (\d+)", config.read_text())[0]))
                wait_for(lambda: kiosk.item(pictures.encoded(1)) == pictures.item(1), "the kiosk answers")
                wait_for(lambda: json.loads((state / "agent.json").read_bytes())["state"] == "idle", "the agent rests")
                published = Published(repo, keys, pictures)
                delta = measure_delta(published, Device(state, kiosk, wire, agent, edge), rounds)
        with running(agent_command(folder, state, config, 0.1), folder / "idle.log") as agent:
            idle = measure_idle(agent.process.pid, wire, checks)
    return {"nothing_to_do": idle, "gallery_delta": delta, "bundle_by_residual": measure_residual(folder)}


# measuring


def measure_idle(pid: int, wire: Wire, checks: int) -> dict[str, Any]:
    """Return what a check costs when there is nothing new."""
    first = wire.snapshot()[0]
    wait_for(lambda: wire.snapshot()[0] >= first + 15, "the agent is at rest")
    before, cpu = wire.snapshot(), cpu_ms(pid)
    wait_for(lambda: wire.snapshot()[0] >= before[0] + checks, "the agent checks", 0.01)
    after, cpu = wire.snapshot(), cpu_ms(pid) - cpu
    requests = wire.paths[before[0] : after[0]]
    count = requests.count("/metadata/timestamp.json")  # the first question of each check
    return {
        "checks": count,
        "requests_per_check": round(len(requests) / count, 3),
        "sent_by_device": round((after[1] - before[1]) / count, 1),
        "received_by_device": round((after[2] - before[2]) / count, 1),
        "bytes_per_check": round((after[1] - before[1] + after[2] - before[2]) / count, 1),
        "cpu_ms_per_check": round(cpu / count, 2),
    }


def cpu_ms(pid: int) -> float:
    """Return the processor time of a process's threads, in ms."""
    stats = [path.read_text().split()[0] for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(map(int, stats)) / 1e6


@dataclass(frozen=True)
class Published:
    """What the server has."""

    repo: Path
    keys: Any
    pictures: Pictures


@dataclass(frozen=True)
class Device:
    """What runs."""

    state: Path
    kiosk: Kiosk
    wire: Wire
    agent: Process
    edge: Process

    def is_at_rest(self) -> bool:
        """Return whether the agent has nothing to do."""
        return bool(json.loads((self.state / "agent.json").read_bytes())["state"] == "idle")


def measure_delta(published: Published, device: Device, rounds: int) -> dict[str, Any]:
    """Change the gallery some times, and return what it costs until the device finds the new items."""
    runs, pictures = [], published.pictures
    asking = Asking(device.kiosk, pictures.encoded(1), pictures.item(1))
    try:
        for turn in range(rounds):
            runs.append(one_delta(published, device, turn))
            wait_for(device.is_at_rest, "it is confirmed")
            time.sleep(1.0)  # the device is quiet
    finally:
        asking.stop()
    counts = ("downloaded_bytes", "uploaded_bytes", "requests")
    numbers = ("bytes_to_changed", "searchable_s", "publish_to_found_s")
    return {
        "items": ITEMS,
        "dim": DIM,
        "added": ADDED,
        "deleted": DELETED,
        "rounds": rounds,
        "changed_record_bytes": round(statistics.median(run["changed"] for run in runs)),
        **{name: round(statistics.median(run[name] for run in runs)) for name in counts},
        **{name: round(statistics.median(run[name] for run in runs), 3) for name in numbers},
        "searchable_worst_s": round(max(run["searchable_s"] for run in runs), 3),
        "steps_s": {
            name: round(statistics.median(run["steps_s"][name] for run in runs), 3) for name in runs[0]["steps_s"]
        },
        "queries_meanwhile": asking.count,
        "failed_queries": asking.failed,
    }


def one_delta(published: Published, device: Device, turn: int) -> dict[str, Any]:
    """Publish one change, and wait until the device finds what is new."""
    from edge.gallery.store import quantise
    from gallery_sync.gallery_log.records import Delete, Upsert
    from gallery_sync.repository.publish import publish_gallery_change

    pictures, kiosk, wire = published.pictures, device.kiosk, device.wire
    new = range(ITEMS + turn * ADDED, ITEMS + (turn + 1) * ADDED)
    gone = range(100 + turn * DELETED, 100 + (turn + 1) * DELETED)
    upserts = []
    for number in new:
        vectors, scales = quantise(embed(pictures.rgb(number)[None]))
        metadata, thumbnail = json.dumps({"sku": number}), pictures.thumbnail(number)
        upserts.append(Upsert(pictures.item(number), f"Item {number}", metadata, thumbnail, None, vectors, scales))
    deletes = [Delete(pictures.item(number)) for number in gone]
    changed = sum(map(content_bytes, upserts)) + sum(len(one.item_id) for one in deletes)
    before = wire.snapshot()
    wanted, picture = pictures.item(new[-1]), pictures.encoded(new[-1])
    publish_gallery_change(published.repo, published.keys, utc_now(), {CATEGORY: {SPACE: [*upserts, *deletes]}})
    published_at = time.time()
    wait_for(lambda: kiosk.item(picture) == wanted, "the new item is found", LOOK_S)
    found_at, after, last_byte_at = time.time(), wire.snapshot(), wire.last_byte_at
    if any(kiosk.item(pictures.encoded(number)) != pictures.item(number) for number in new[:12]):
        raise SystemExit("a new item is not found")
    if kiosk.item(pictures.encoded(gone[0])) is not None:
        raise SystemExit("a deleted item is found")
    downloaded = after[2] - before[2]
    steps = steps_of([*device.agent.lines, *device.edge.lines], published_at, last_byte_at) | {
        "found": found_at - last_byte_at
    }
    return {
        "changed": changed,
        "downloaded_bytes": downloaded,
        "uploaded_bytes": after[1] - before[1],
        "requests": after[0] - before[0],
        "bytes_to_changed": downloaded / changed,
        "searchable_s": found_at - last_byte_at,
        "publish_to_found_s": found_at - published_at,
        "steps_s": steps,
    }


def steps_of(lines: list[tuple[float, str]], since: float, last_byte_at: float) -> dict[str, float]:
    """Return when each step was done, in seconds from the last byte, by what agent and device logged."""
    marks = {
        "applied": "agent: verify release",
        "installed": "is ready: bundle",
        "proved": "agent: armed release",
        "switched": "is active with gallery",
        "seen by edge": "loading it",
        "served by edge": "hot_swap: now using",
    }
    found = {name: [at for at, text in lines if at > since and mark in text] for name, mark in marks.items()}
    return {name: min(times) - last_byte_at for name, times in found.items() if times}


def content_bytes(one: Any) -> int:
    """Return the bytes of a changed record: its vector, scale, texts and picture."""
    texts = (one.item_id, one.label, one.metadata)
    return one.vectors_i8.nbytes + one.scales.nbytes + len(one.thumbnail or b"") + sum(map(len, texts))


def measure_residual(folder: Path) -> dict[str, Any]:
    """Return the bytes of an update of the demo's INT8 models with noise on their weights."""
    from gallery_sync.device.pull import pull
    from gallery_sync.transport.repository_files import open_transport
    from tests.sync_server import serving

    repo, state = folder / "models-repo", folder / "models-state"
    keys = make_repository(repo)
    publish(repo, keys, bundle_folder=noisy_bundle(folder / "models-1", 1, 0.0), gallery_folder=DEMO / "gallery")
    root = (repo / "metadata/1.root.json").read_bytes()
    with serving(repo, keep_alive=True) as server, counting(server) as wire:
        pull(open_transport(server.url, 20.0), state, root)
        activate(state)
        new = noisy_bundle(folder / "models-2", 2, NOISE)
        publish(repo, keys, bundle_folder=new)
        before = wire.snapshot()
        pull(open_transport(server.url, 20.0), state, root)
        after = wire.snapshot()
    whole = sum(path.stat().st_size for path in (new / "models").iterdir())
    return {
        "noise": NOISE,
        "models": len(list((new / "models").iterdir())),
        "whole_bytes": whole,
        "downloaded_bytes": after[2] - before[2],
        "uploaded_bytes": after[1] - before[1],
        "requests": after[0] - before[0],
        "bytes_to_whole": round((after[2] - before[2]) / whole, 3),
    }


def activate(state: Path) -> None:
    """Make what is staged active, without a proof."""
    from edge.bundle import slots
    from edge.bundle.active_pointer import read_staged_pointer

    staged = read_staged_pointer(state)
    if staged is None:
        raise SystemExit("nothing is staged")
    slots.activate(state, staged.slot, staged.gallery, lambda *_: [])


if __name__ == "__main__":
    main()
