"""Damage every file of a state folder, one at a time, and start the device: `python -m tests.torture.damage_state`.

The folder holds two pairs of the demo's models and galleries. Every start must recognise a picture, whatever is
damaged.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from edge.bundle import slots
from edge.bundle.install import install_bundle, install_gallery
from edge.gallery.generation import write_gallery_index
from tests.file_damage import DAMAGES

ROOT = Path(__file__).parents[2]


def make_state(state_dir: Path, work: Path) -> None:
    """Fill a state folder: pair `demo-2` is active, `demo-1` was before."""
    demo = ROOT / "demo"
    second, fewer = work / "bundle", work / "gallery"
    shutil.copytree(demo / "bundle", second)
    manifest = json.loads((second / "bundle.json").read_text())
    (second / "bundle.json").write_text(json.dumps(manifest | {"bundle_id": "demo-2", "sequence": 2}))
    shutil.copytree(demo / "gallery", fewer)
    min(fewer.glob("*.sqlite")).unlink()
    write_gallery_index(fewer, "2026-01-01T00:00:00Z")
    for bundle, gallery in ((demo / "bundle", demo / "gallery"), (second, fewer)):
        slot = install_bundle(bundle, state_dir)
        slots.activate(state_dir, slot, install_gallery(gallery, state_dir), prove=lambda *_: [])


def write_device(work: Path, state_dir: Path) -> Path:
    """Write the configuration of a device that looks at one picture; return its path."""
    (work / "pictures").mkdir(exist_ok=True)
    shutil.copy(min((ROOT / "demo/bundle/probes").iterdir()), work / "pictures")
    config = {
        "site": "s",
        "device": "d",
        "state_dir": str(state_dir),
        "cameras": {"shelf": {"source": f"folder://{work / 'pictures'}?fps=50", "framing": "whole_frame"}},
    }
    (work / "device.yaml").write_text(json.dumps(config))
    return work / "device.yaml"


def start(work: Path, state_dir: Path) -> tuple[int, str]:
    """Run a device on one picture; return its exit status and what it logged."""
    command = [sys.executable, "-m", "edge", "run", "-c", str(write_device(work, state_dir)), "--until-end"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stderr


def main() -> int:
    """Damage, start, and print a line for each start that failed; return 1 if one did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probes", type=int, default=2, help="how many probe pictures of each slot to damage")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_state(work / "good", work)
        start(work, work / "good")  # makes the other files of a used folder
        for file in _files(work / "good", arguments.probes):
            for damage in DAMAGES:
                shutil.copytree(work / "good", work / "state")
                damage(work / "state" / file)
                status, log = start(work, work / "state")
                outcome = {0: "active pair", 3: "another pair"}.get(status, "down")
                if "ready:" not in log or "Traceback" in log:
                    outcome = "down"
                outcomes[outcome] += 1
                if outcome == "down":
                    print(f"{file} {damage.__name__}: status {status}\n{log}", flush=True)
                shutil.rmtree(work / "state")
    print(dict(outcomes))
    return 1 if outcomes["down"] else 0


def _files(state_dir: Path, probes: int) -> list[Path]:
    files = sorted(path.relative_to(state_dir) for path in state_dir.rglob("*") if path.is_file())
    pictures = {slot: [f for f in files if f.parts[:3] == ("slots", slot, "probes")] for slot in slots.SLOTS}
    left_out = {file for found in pictures.values() for file in found[probes:]}
    return [file for file in files if file not in left_out]


if __name__ == "__main__":
    sys.exit(main())
