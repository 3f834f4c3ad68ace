"""How long an operator waits for enrolments and releases, and how large the signed list of many categories is.

    python benchmarks/fleet_signing.py [--devices 500] [--only enrol|publish|list]

* enrol: `edge-sync enrolment new` for a batch, with and without claims, as a process of its own; the longest text of a
  QR code of them.
* publish: the demo for the first time, as a process; a new name for one item of the gallery of `fleet_sync.py` (20,000
  items), likewise.
* list: bytes of the signed metadata of the role `gallery` with 5,000 categories, the most that a line has.

Other work on the machine (`load_1_min`) lengthens all of it. Writes benchmarks/results/fleet_signing.json.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--only", choices=("enrol", "publish", "list"))
    arguments = parser.parse_args()
    from benchmarks import rig

    report: dict[str, Any] = {"load_1_min": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(prefix="fleet-signing-") as name:
        folder = Path(name)
        if arguments.only in (None, "enrol"):
            report["enrol"] = measure_enrolments(folder, arguments.devices)
        if arguments.only in (None, "publish"):
            report["publish"] = measure_publishing(folder)
        if arguments.only in (None, "list"):
            report["list"] = measure_list()
    rig.write_report(report, ROOT / "benchmarks/results/fleet_signing.json")


def timed(*words: object) -> float:
    """Run `edge-sync` and return how long it took, in seconds."""
    started = time.monotonic()
    command = [sys.executable, "-m", "gallery_sync.cli", *map(str, words)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return round(time.monotonic() - started, 2)


def measure_enrolments(folder: Path, devices: int) -> dict[str, Any]:
    """Return how long a batch takes, and its longest text."""
    repo, found = folder / "enrolling", dict[str, Any](devices=devices)
    timed("init", repo, "--line", "shop", "--development")
    where = ("--url", "https://updates.example.net/shop", "--broker", "mqtts://broker.example.net")
    for name, more in (("plain", ()), ("claims", ("--claims",))):
        out = folder / name
        took = timed("enrolment", "new", repo, *where, "--group", "store-7", "--count", devices, *more, "-o", out)
        with (out / "devices.csv").open(encoding="utf-8") as file:
            longest = max(len(row["text"]) for row in csv.DictReader(file))
        found[name] = {"s": took, "longest_text": longest}
    return found


def measure_publishing(folder: Path) -> dict[str, Any]:
    """Return how long a first release and a change of one item take."""
    from benchmarks import noise_catalogue

    demo, repo = folder / "demo", folder / "publishing"
    timed("init", demo, "--line", "shop", "--development")
    first_s = timed("publish", demo, "--bundle", ROOT / "demo/bundle", "--gallery", ROOT / "demo/gallery")
    bundle = noise_catalogue.make_bundle(folder / "bundle")
    pictures = noise_catalogue.Pictures()
    gallery = noise_catalogue.make_gallery(folder, pictures)
    timed("init", repo, "--line", "bench", "--development")
    items_s = timed("publish", repo, "--bundle", bundle, "--gallery", gallery)
    rename_s = timed("gallery", "rename", repo, noise_catalogue.CATEGORY, pictures.item(7), "Another name")
    return {"demo_s": first_s, "items": noise_catalogue.ITEMS, "first_with_items_s": items_s, "one_item_s": rename_s}


def measure_list() -> dict[str, Any]:
    """Return the bytes of the signed list of 5,000 categories."""
    from datetime import datetime, timezone

    from securesystemslib.signer import CryptoSigner
    from tuf.api.metadata import Metadata, TargetFile, Targets

    from gallery_sync.formats.documents import gallery_targets
    from gallery_sync.formats.fields import MOST_CATEGORIES

    role = Targets(expires=datetime(2030, 1, 1, tzinfo=timezone.utc))
    paths = gallery_targets("shop", [f"category-{number:04d}" for number in range(MOST_CATEGORIES)]).values()
    for path in paths:
        role.targets[path] = TargetFile.from_data(path, path.encode(), ["sha256"])
    signed = Metadata(role)
    signed.sign(CryptoSigner.generate_ed25519())
    return {"categories": MOST_CATEGORIES, "bytes": len(signed.to_bytes())}


if __name__ == "__main__":
    main()
