"""Localiser and silhouettes: mask quality, cost, and the gain of silhouettes over vectors alone.

    python benchmarks/outline.py            # into runs/outline; finished steps are not repeated
    python benchmarks/outline.py measure    # one step of: data, train, render, quantise, measure

The embedders are those of the shipped demo bundle. Weights are fitted on validation crops; the results are of test
crops of three seeds used nowhere else. Photos: $FINESIGHT_DATA or ../shared/data; without them, their rows are omitted.
Writes benchmarks/results/outline.json and, into runs/outline, contact sheets.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
WORK = ROOT / "runs/outline"
STEPS = ("data", "train", "render", "quantise", "measure")


def main() -> None:
    """Run the selected steps, by default all."""
    for step in sys.argv[1:] or STEPS:
        print(f"== {step}", flush=True)
        {"data": data, "train": train, "render": render, "quantise": quantise, "measure": measure}[step]()


def photos() -> Path:
    return Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")).resolve()


def data() -> None:
    from benchmarks.outline_data import write_training_data

    WORK.mkdir(parents=True, exist_ok=True)
    print(write_training_data(WORK, photos()))


def train() -> None:
    command = [sys.executable, "-m", "trainer.cli", "localiser"]
    command += ["-c", str(ROOT / "benchmarks/recipes/outline-localiser.yaml"), "-o", str(WORK / "localiser")]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def render() -> None:
    from benchmarks.outline_data import render_retrieval

    render_retrieval(WORK)


def quantise() -> None:
    """Export, quantise and compare, as `edge-quantize pack` does; write the choice beside the models."""
    from quantize.build_network import Policy, build_network
    from quantize.cli import _progress
    from quantize.command import saturates
    from quantize.dataset import Data, read_samples

    folder = WORK / "models"
    folder.mkdir(exist_ok=True)
    samples = Data([s for s in read_samples(WORK / "index.csv")[0] if "/synthetic/" in str(s.path)], [])
    policy = Policy(fallback_fp32=True, saturates=saturates("this"))
    network = build_network("localiser", WORK / "localiser", folder, samples, policy, _progress)
    chosen = {"ship": network.ship, "why": network.why, "evaluation": network.evaluation}
    (folder / "localiser.choice.json").write_text(json.dumps(chosen, indent=1))
    print(network.ship, network.why)


def measure() -> None:
    from benchmarks.grocery import machine
    from benchmarks.outline_measure import (
        categories_of,
        masks_of_crops,
        masks_of_photos,
        rerank_ms,
        retrieval,
        summary,
        trained,
        untuned,
    )
    from trainer.models.networks import load_card

    card = load_card(WORK / "localiser")
    bundle, weights = ROOT / "demo/bundle", photos() / "weights/mobilenetv2_100_in1k.safetensors"
    names = categories_of(WORK)
    chosen = json.loads((WORK / "models/localiser.choice.json").read_text())
    report = {
        "localiser": {
            "parameters": parameters(),
            "epochs": {"done": epochs(), "of": card.recipe["optimiser"]["epochs"]},
            "input": [card.preprocess.width, card.preprocess.height],
            "data": card.data,
            "validation": card.metrics,
            "seed": card.seed,
            **chosen,
        },
        "masks_of_crops": summary(
            {n: _cached(f"crops-{n}", lambda n=n: masks_of_crops(WORK, chosen["ship"], n)) for n in names}
        ),
        "masks_of_photos": _cached("photos", lambda: masks_of_photos(WORK, photos(), chosen["ship"])),
        "retrieval": {
            name: _cached(f"retrieval-{name}", lambda n=name: retrieval(WORK, trained(bundle, n), chosen["ship"], n))
            for name in names
        },
        "retrieval_by_untuned_features": {
            name: _cached(f"untuned-{name}", lambda n=name: retrieval(WORK, untuned(weights), chosen["ship"], n))
            for name in (names if weights.exists() else [])
        },
        "rerank_cpu_ms": rerank_ms(),
        "date": date.today().isoformat(),  # noqa: DTZ011
        "machine": machine(),
    }
    print(json.dumps(report, indent=1))
    # write intervals and seeds in one line each
    text = re.sub(r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), json.dumps(report, indent=1))
    (ROOT / "benchmarks/results/outline.json").write_text(text + "\n")


def _cached(name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a cached measurement, or measure and cache it."""
    path = WORK / f"measured-{name}.json"
    if not path.exists():
        path.write_text(json.dumps(compute()))
    return dict(json.loads(path.read_text()))


def epochs() -> int:
    """Return the number of trained epochs; an interrupted run has fewer than its recipe."""
    return len((WORK / "localiser/metrics.csv").read_text().splitlines()) - 1


def parameters() -> int:
    from trainer.models.networks import load_model

    return sum(parameter.numel() for parameter in load_model(WORK / "localiser")[0].parameters())


if __name__ == "__main__":
    main()
