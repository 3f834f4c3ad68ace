"""`edge-train learn --from-scenes` as a shop would run it, judged on whole pictures of a split that it never touched.

    python benchmarks/from_scenes.py playing_cards --names benchmarks/recipes/card_names.csv --minutes 14
    python benchmarks/from_scenes.py fruit_boxes --minutes 3

Learns from the scenes in ../shared/data (or $FINESIGHT_DATA), and then finds and names the objects of the split `test`;
a data set without it is judged on what `learn` held out. Killed, it goes on where it was. Adds a row to
benchmarks/results/from_scenes.json: what the detector found, missed and doubled, and what was named rightly.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.grocery import machine  # noqa: E402
from benchmarks.results_file import write_results  # noqa: E402
from benchmarks.shared_data import DATA, WEIGHTS, require  # noqa: E402
from dataset_formats.layouts import read_listing  # noqa: E402
from learn.from_scenes import learn_from_scenes  # noqa: E402
from learn.judge import Verdict  # noqa: E402
from learn.scene_judge import SceneVerdict, judge_scenes  # noqa: E402
from learn.scene_set import named_pictures, read_names  # noqa: E402
from learn.steps import LearnOptions  # noqa: E402
from quantize.detector_specs import find_spec  # noqa: E402
from trainer.metrics import bootstrap  # noqa: E402

RESULTS = ROOT / "benchmarks/results/from_scenes.json"


def main() -> None:
    """Measure one data set, and add its row to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder in the shared data: playing_cards or fruit_boxes")
    parser.add_argument("--names", type=Path, help="what the names of the boxes mean")
    parser.add_argument("--minutes", type=float, default=14.0, help="default: %(default)g")
    parser.add_argument("--detector", type=Path, help="ONNX file to use instead of training a detector")
    parser.add_argument("--keep-labels", help="labels of that detector, comma-separated")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/from_scenes", help="default: %(default)s")
    given = parser.parse_args()
    require(WEIGHTS, DATA / given.data)
    spec = None
    if given.detector is not None:
        spec = find_spec(given.detector, None, given.keep_labels.split(",") if given.keep_labels else None)
    out = given.work / given.data
    options = LearnOptions(
        DATA / given.data,
        out,
        weights=str(WEIGHTS),
        minutes=given.minutes,
        names=given.names,
        detector=given.detector,
        detector_spec=spec,
    )
    report = learn_from_scenes(options)
    row = row_of(report) | {"date": datetime.now(tz=timezone.utc).date().isoformat(), "machine": machine()}
    if report["scenes"]["untouched_test_pictures"]:
        row["test"] = counts_of(judge_test(options))
    rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    name = given.data if given.detector is None else f"{given.data}, {given.detector.stem}"
    write_results(RESULTS, rows | {name: row})
    print(json.dumps(row, indent=1))


def row_of(report: dict[str, Any]) -> dict[str, Any]:
    """Return what a reader of the results needs of a report."""
    detector, classifier = report["detector"], report["classifier"]
    return {
        "scenes": report["scenes"],
        "minutes": report["minutes"],
        "plan": report["plan"],
        "detector": {key: value for key, value in detector.items() if key != "metrics"} | detector.get("metrics", {}),
        "crops": {key: report["crops"][key] for key in ("boxes", "splits", "mean_iou", "never_found")},
        "classifier_accuracy": None if classifier is None else classifier["metrics"]["accuracy"],
        "embedders": [{key: one[key] for key in ("categories", "how", "nearest")} for one in report["embedders"]],
        "held_out": report["verdict"] | report["pictures"],
    }


def judge_test(options: LearnOptions) -> SceneVerdict:
    """Ask the finished recogniser about the pictures of `test`, with a gallery of what it learned from."""
    names = {} if options.names is None else read_names(options.names)
    pictures = named_pictures(read_listing(options.photos, boxed=True), names)
    work = options.out / "work"
    gallery = work / "judged" if (work / "judged").is_dir() else work / "gallery"
    return judge_scenes(work / "bundle", gallery, [one for one in pictures if one.split == "test"])


def counts_of(found: SceneVerdict) -> dict[str, Any]:
    """Return the counts, and shares of all true objects with their intervals over objects."""
    verdict = found.verdict
    shares = {
        "found": [True] * len(verdict.answers),
        "named_rightly": [one.outcome == "right" for one in verdict.answers],
        "named_wrongly": [one.outcome == "wrong" for one in verdict.answers],
        "nearest_item_right": [one.nearest == one.item_id for one in verdict.answers],
        "category_right": [one.category_right for one in verdict.answers],
    }
    measured = {name: interval(verdict, values) for name, values in shares.items()}
    return {"pictures": found.pictures, "all_right": found.all_right, **verdict.as_json(), "shares": measured}


def interval(verdict: Verdict, values: list[bool]) -> dict[str, Any]:
    """Return the share of all true objects, missed ones included, and its 95 % interval."""
    every = np.array([*values, *[False] * (verdict.missed or 0)], np.float64)
    return {"mean": float(every.mean()), "interval": list(bootstrap(every))}


if __name__ == "__main__":
    main()
