"""Kill `edge-sync pull` at random moments, and check after each that what serves is unchanged and the next pull works.

python -m tests.torture.kill_pull --kills 200
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from edge.bundle import slots
from edge.bundle.active_pointer import read_active_pointer, read_staged_pointer
from edge.errors import BundleError
from gallery_sync.formats.documents import Release
from tests.store_samples import trusted
from tests.sync_samples import active, newest, publish_release, pull_from, tree_hashes
from tests.sync_server import Server, serving

_CONVERGE_EVERY = 5  # kills, so that some pulls start from what several kills left


def torture(folder: Path, kills: int, seed: int) -> Counter[str]:
    """Kill pulls of a device in a folder; return how they ended.

    Raises:
        AssertionError: what serves changed, or a pull did not repair what the kills left.
    """
    chance = random.Random(seed)
    device = folder / "device"
    ended: Counter[str] = Counter()
    publish_release(folder, "bundle-0", 0, 2)
    with serving(folder / "repo") as server:
        pull_from(server, device)
        slots.activate(device, prove=trusted)
        _publish_next(folder, 1)
        whole_s = _time_of_pull(server, folder / "timed")
        for kill in range(1, kills + 1):
            before = _serving_files(device)
            ended[_kill_pull(server, device, chance.uniform(0.3, 1.1) * whole_s)] += 1
            assert _serving_files(device) == before, f"kill {kill} changed what serves"
            _check_staged(device, ended)
            if kill % _CONVERGE_EVERY == 0:
                _converge(server, device)
                _publish_next(folder, kill + 1)
        _converge(server, device)
    return ended


def _publish_next(folder: Path, number: int) -> Release:
    return publish_release(folder, f"bundle-{number}", number, 2 + number % 5)


def _command(server: Server, device: Path) -> list[str]:
    root = str(server.folder / "metadata/1.root.json")
    return [sys.executable, "-m", "gallery_sync.cli", "pull", server.url, "--state-dir", str(device), "--root", root]


def _time_of_pull(server: Server, device: Path) -> float:
    started_s = time.monotonic()
    subprocess.run(_command(server, device), check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started_s


def _kill_pull(server: Server, device: Path, after_s: float) -> str:
    with subprocess.Popen(_command(server, device), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as pulling:
        try:
            status = pulling.wait(after_s)
        except subprocess.TimeoutExpired:
            pulling.kill()
            return "killed"
    assert status == 0, f"a pull after kills ended with exit status {status}"
    return "ended before"


def _serving_files(device: Path) -> dict[str, str]:
    pointer = read_active_pointer(device)
    assert pointer is not None
    return tree_hashes(slots.slot_folder(device, pointer.slot), slots.gallery_folder(device, pointer.gallery))


def _check_staged(device: Path, ended: Counter[str]) -> None:
    """Check that what is staged is whole, or that its slot holds a newer bundle already: then nothing switches."""
    staged = read_staged_pointer(device)
    if staged is None:
        return
    bundle, _ = slots.read_bundle_and_gallery(device, staged.slot, staged.gallery)
    if bundle.manifest.bundle_id != staged.bundle_id:
        ended["slot filled, not yet staged"] += 1
        with pytest.raises(BundleError, match="install that bundle again"):
            slots.activate(device, prove=trusted)


def _converge(server: Server, device: Path) -> None:
    release, _ = newest(server.folder)
    pulled = pull_from(server, device)
    assert pulled.sequence == release.sequence
    if not pulled.serving:
        slots.activate(device, pulled.slot, pulled.gallery, prove=trusted)
    assert active(device)[0] == pulled.bundle_id
    assert sorted(path.name for path in (device / "slots").iterdir()) in (["a"], ["a", "b"])
    assert not (device / "cache" / "sync").exists()


def main() -> None:
    """Run it by hand."""
    parser = argparse.ArgumentParser(description="Kill edge-sync pull at random moments.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(dict(torture(Path(folder), arguments.kills, arguments.seed)))


if __name__ == "__main__":
    main()
