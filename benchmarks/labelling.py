"""Assisted labelling: proposals without training, and the gain of three rounds of editing and retraining.

    python benchmarks/labelling.py             # all steps, into runs/labelling; finished steps are not repeated
    python benchmarks/labelling.py fruit_boxes # proposals of one data set: cards_train, cards_test, fruit_boxes
    python benchmarks/labelling.py 1           # the rounds, from the first on
    python benchmarks/labelling.py measure     # only the measurement of the rounds

A *proposed box* needs no edit if it overlaps a true box by 0.7 that no better proposal has taken. A *true box* is found
if such a proposal exists. The edit of a round inserts the true boxes of the twenty most uncertain pictures of
playing_cards/train; the rest of that folder and all of playing_cards/test are then measured. The constants of the
proposers were chosen on playing_cards/train; playing_cards/test and fruit_boxes were not used before.

`rest_of_train` is the output of the command in the round, `joined` the same detector joined with cues and DDT,
`untrained` cues and DDT on the same photos. The rule that a detector of forty pictures proposes alone was chosen on
rest_of_train, in an earlier run of these rounds.

Writes benchmarks/results/labelling.json. Needs ../shared/data or $FINESIGHT_DATA.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.shared_data import DATA, WEIGHTS, require  # noqa: E402

WORK, RESULT = ROOT / "runs/labelling", ROOT / "benchmarks/results/labelling.json"
TRUNK = ["--model", str(WEIGHTS), "--input-mean", "0.5"]
BOOK = WORK / "book"
ROUNDS, STEPS = 3, (240, 180, 180)  # rounds and optimiser steps of each; later rounds continue the one before
Truth = dict[Path, np.ndarray]  # (n, 4) boxes in pixels


def main() -> None:
    """Run the selected steps."""
    require(WEIGHTS)
    for step in sys.argv[1:] or [*SETS, "1", "measure"]:
        if step in SETS:
            measure_set(step)
        elif step == "measure":
            for number in range(1, ROUNDS + 1):
                measure_round(number)
        else:
            for number in range(int(step), ROUNDS + 1):
                if not (BOOK / f"round-{number}.json").exists():
                    run_round(number)
    print(json.dumps(results(), indent=1))


def results() -> dict[str, object]:
    return json.loads(RESULT.read_text()) if RESULT.exists() else {}


def record(key: str, value: object) -> None:
    report = results() | {key: value, "date": date.today().isoformat(), "machine": machine()}  # noqa: DTZ011
    print(key, json.dumps(value), flush=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n")


def machine() -> str:
    from benchmarks.grocery import machine as describe

    return describe()


def cards(split: str) -> Truth:
    from benchmarks.playing_cards import true_cards

    truth = {}
    for xml in sorted((DATA / "playing_cards" / split).glob("*.xml")):
        photo, found = true_cards(xml)
        truth[photo] = rows([list(box) for _, box in found])
    return truth


def fruit() -> Truth:
    from edge.imaging.image import read_image

    truth = {}
    for entry in json.loads((DATA / "fruit_boxes/boxes.json").read_text())["files"]:
        photo = DATA / "fruit_boxes" / entry["filename"]
        height, width = read_image(photo).shape[:2]
        boxes = [[t["left"], t["top"], t["left"] + t["width"], t["top"] + t["height"]] for t in entry["tags"]]
        truth[photo] = rows(boxes) * np.array([width, height] * 2, np.float32)
    return truth


def rows(boxes: list[list[float]]) -> np.ndarray:
    return np.asarray(boxes, np.float32).reshape(-1, 4)


SETS = {"cards_train": lambda: cards("train"), "cards_test": lambda: cards("test"), "fruit_boxes": fruit}


def measure_set(name: str) -> None:
    """Measure every cue alone, all cues, cues with DDT, and with priors from one example box."""
    from edge.imaging.image import read_image
    from trainer.labelling.proposals import Priors, propose, select_best
    from trainer.labelling.regions import CUES, box_of_map, scda_map

    truth = SETS[name]()
    images = {path: read_image(path) for path in truth}
    example = example_priors(truth, images)
    methods = {"cues and DDT": (Priors(), True, CUES), "cues": (Priors(), False, CUES)}
    methods |= {f"{cue} alone": (Priors(), False, (cue,)) for cue in CUES}
    methods |= {"cues and DDT, one example box": (example, True, CUES)}
    for way, (priors, with_common, using) in methods.items():
        if f"{name}: {way}" in results():
            continue
        shown, trunk_s, _ = common_maps(name, images) if with_common else ({}, 0.0, {})
        started = time.process_time()
        found = {path: propose(image, priors, shown.get(path), using) for path, image in images.items()}
        seconds = (time.process_time() - started) / len(truth) + trunk_s
        kept = {path: [list(box.box_px) for box in select_best(boxes, priors)] for path, boxes in found.items()}
        row = {"pictures": len(truth)} | measure({path: rows(boxes) for path, boxes in kept.items()}, truth)
        record(f"{name}: {way}", row | {"cpu_s_per_picture": round(seconds, 3)})
    if f"{name}: SCDA box" in results():
        return
    shown, _, features = common_maps(name, images)
    for way, maps, level in (
        ("DDT box", shown, 0.0),
        ("DDT box, half of the largest", shown, 0.5),
        ("SCDA box", {path: scda_map(feature) for path, feature in features.items()}, 0.0),
    ):
        boxes = {path: box_of_map(one, *images[path].shape[1::-1], level) for path, one in maps.items()}
        found = {path: rows([list(box)] if box else []) for path, box in boxes.items()}
        record(f"{name}: {way}", {"pictures": len(truth)} | measure(found, truth))


def common_maps(name: str, images: dict[Path, np.ndarray]) -> tuple[dict, float, dict]:
    """Return the DDT map of each picture, the CPU seconds per picture, and the feature maps; cached in a file."""
    from trainer.labelling.cosegmentation import colocalise, load_feature_extractor

    path = WORK / f"{name}.pickle"
    if not path.exists():
        extractor = load_feature_extractor(WEIGHTS, "mobilenetv2_100", 0.5)
        started = time.process_time()
        features = {path: extractor.extract(image) for path, image in images.items()}
        common = colocalise(features.values())
        shown = {path: common.activation(feature) for path, feature in features.items()}
        WORK.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps((shown, (time.process_time() - started) / len(images), features)))
    return pickle.loads(path.read_bytes())  # noqa: S301 our own


def example_priors(truth: Truth, images: dict[Path, np.ndarray]) -> object:
    """Return priors from the first true box of the first picture: size within a factor of 4, shape of 2."""
    from trainer.labelling.proposals import Priors

    path = next(iter(truth))
    width, height = truth[path][0, 2:] - truth[path][0, :2]
    share = width * height / (images[path].shape[0] * images[path].shape[1])
    return Priors(share / 4, min(0.9, share * 4), (width / height / 2, width / height * 2))


def measure(found: dict[Path, np.ndarray], truth: Truth) -> dict[str, object]:
    """Compare the boxes of each picture, best first, with the true boxes."""
    from edge.inference.postprocess import iou_matrix

    counts, overlaps = [], []
    for path, boxes in found.items():
        overlap = iou_matrix(boxes, truth[path]) if len(boxes) else np.zeros((0, len(truth[path])), np.float32)
        overlaps += overlap.max(axis=0, initial=0.0).tolist()
        matched = {iou: hits(overlap.copy(), iou) for iou in (0.7, 0.5)}
        clean = float(matched[0.7] == len(boxes) == len(truth[path]))
        counts.append([matched[0.7], matched[0.5], len(boxes), len(truth[path]), clean])
    table = np.array(counts)
    total = table.sum(axis=0)
    return {
        "proposed": int(total[2]),
        "true": int(total[3]),
        "proposed_without_edit": ratio(table, 0, 2),
        "true_found_70": ratio(table, 0, 3),
        "true_found_50": ratio(table, 1, 3),
        "pictures_without_any_edit": round(float(table[:, 4].mean()), 4),
        "mean_overlap_of_true": round(float(np.mean(overlaps)), 4),
    }


def hits(overlap: np.ndarray, iou: float) -> int:
    matched = 0
    for row in overlap:  # each row is a view: a true box is matched once
        best = int(row.argmax()) if len(row) else -1
        if best >= 0 and row[best] >= iou:
            matched += 1
            overlap[:, best] = -1.0
    return matched


def ratio(table: np.ndarray, above: int, below: int) -> dict[str, object]:
    """Return a share over all pictures, with its 95 % bootstrap interval over pictures."""
    drawn = np.random.default_rng(0).integers(len(table), size=(1000, len(table)))
    sums = table[drawn].sum(axis=1)
    low, high = np.quantile(sums[:, above] / np.maximum(sums[:, below], 1), [0.025, 0.975])
    share = table[:, above].sum() / max(1.0, table[:, below].sum())
    return {"share": round(float(share), 4), "interval": [round(float(low), 4), round(float(high), 4)]}


def run_round(number: int) -> None:
    """Edit the twenty most uncertain pictures, train on all edited ones, and propose for the rest, by the command."""
    truth = {path.resolve(): boxes for path, boxes in cards("train").items()}
    where = [str(DATA / "playing_cards/train"), "-o", str(BOOK), *TRUNK]
    if not (BOOK / "labels.json").exists():
        label(where)
    edited = BOOK / f"edited-{number}.json"
    if not edited.exists():
        edited.write_text(json.dumps(edit(json.loads((BOOK / "next.json").read_text()), truth)))
    steps = STEPS[number - 1]
    training = [f"backbone.pretrained={WEIGHTS}", f"optimiser.epochs={steps // (2 * number)}", "optimiser.threads=1"]
    command = [*where, "--import", str(edited), *(part for one in training for part in ("--set", one))]
    command += ["--train", str(ROOT / "benchmarks/recipes/labelling-detector.yaml")]
    if number > 1:
        command += ["--detector", str(BOOK / f"detector-{20 * (number - 1)}")]
    started, used = time.monotonic(), os.times()
    result = label(command)
    cpu_s = os.times().children_user + os.times().children_system - used.children_user - used.children_system
    result |= {"steps": steps, "seconds": round(time.monotonic() - started, 1), "cpu_s": round(cpu_s, 1)}
    result["labels"] = json.loads((BOOK / "labels.json").read_text())
    (BOOK / f"round-{number}.json").write_text(json.dumps(result))


def measure_round(number: int) -> None:
    """Measure the proposals of a round's detector, with and without cues and DDT, on the rest and the test photos."""
    from edge.imaging.image import read_image
    from trainer.labelling.auto_label import DETECTOR_ALONE_FROM, TrainedDetector

    path = BOOK / f"round-{number}.json"
    if f"round_{number}" in results() or not path.exists():
        return
    result = json.loads(path.read_text())
    tree = result["labels"]
    truth = {path.resolve(): boxes for path, boxes in cards("train").items()}
    rest = {(BOOK / i["file_name"]).resolve(): i["id"] for i in tree["images"] if i["state"] == "proposed"}
    listed = {path: boxes_of(tree, identity) for path, identity in rest.items()}
    detector = TrainedDetector(Path(str(result["detector"])))
    seen = {path: detector.propose(read_image(path)) for path in [*rest, *cards("test")]}
    test = cards("test")
    photos = list(test)
    value = {key: result[key] for key in ("steps", "seconds", "cpu_s", "edits")} | {
        "speaks_alone": 20 * number >= DETECTOR_ALONE_FROM,
        "rest_of_train": {"pictures": len(rest)} | measure(listed, truth),
        "rest_of_train, joined": measure(fused({path: seen[path] for path in rest}, cue_proposals()), truth),
        "rest_of_train, untrained": measure(fused({path: [] for path in rest}, cue_proposals(), untrained=True), truth),
        "test": {"pictures": len(test)}
        | measure(proposed(detector, photos, test_cue_proposals(photos), 20 * number < DETECTOR_ALONE_FROM), test),
        "test, joined": measure(fused({path: seen[path] for path in photos}, test_cue_proposals(photos)), test),
    }
    record(f"round_{number}", value)


def label(arguments: list[str]) -> dict[str, object]:
    command = [str(ROOT / ".venv/bin/python"), "-m", "trainer.cli", "label", *arguments]
    print("$", *command, flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def edit(tree: dict[str, list[dict]], truth: Truth) -> dict[str, list[dict]]:
    """Return the edited labels: the true boxes."""
    annotations = []
    for image in tree["images"]:
        for x0, y0, x1, y1 in truth[(BOOK / image["file_name"]).resolve()].tolist():
            annotations.append({"image_id": image["id"], "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]})
    return {"images": tree["images"], "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}


def boxes_of(tree: dict[str, list[dict]], identity: int) -> np.ndarray:
    mine = [entry["bbox"] for entry in tree["annotations"] if entry["image_id"] == identity]
    return rows([[x, y, x + width, y + height] for x, y, width, height in mine])


def cue_proposals() -> dict[Path, list]:
    """Read the proposals of cues and DDT for the photos of the label folder."""
    from trainer.labelling.cue_cache import CUE_CACHE_FILE
    from trainer.labelling.label_file import proposal_from_json

    lines = [json.loads(line) for line in (BOOK / CUE_CACHE_FILE).read_text().splitlines() if line]
    return {(BOOK / line["picture"]).resolve(): [proposal_from_json(box) for box in line["seen"]] for line in lines}


def test_cue_proposals(paths: list[Path]) -> dict[Path, list]:
    """Return the proposals of cues and DDT for the test photos; cached in a file."""
    from edge.imaging.image import read_image
    from trainer.labelling.proposals import Priors, propose

    kept = WORK / "test-seen.pickle"
    if not kept.exists():
        images = {path: read_image(path) for path in paths}
        shown, _, _ = common_maps("cards_test", images)
        kept.write_bytes(pickle.dumps({path: propose(image, Priors(), shown[path]) for path, image in images.items()}))
    return pickle.loads(kept.read_bytes())  # noqa: S301 our own


def proposed(detector: object, paths: list[Path], seen: dict[Path, list], use_cues: bool) -> dict[Path, np.ndarray]:
    """Return the boxes that a detector proposes, with cues if `use_cues`."""
    from edge.imaging.image import read_image
    from trainer.labelling.auto_label import Proposers
    from trainer.labelling.proposals import Priors

    proposers = Proposers(Priors(), None, detector, use_cues)
    result = {path: proposers.prelabel(read_image(path), seen[path]).proposals for path in paths}
    return {path: rows([list(box.box_px) for box in boxes]) for path, boxes in result.items()}


def fused(found: dict[Path, list], seen: dict[Path, list], *, untrained: bool = False) -> dict[Path, np.ndarray]:
    """Return the proposals of detector, cues and DDT fused; `untrained`: of cues and DDT only."""
    from trainer.labelling.auto_label import fuse
    from trainer.labelling.proposals import Priors, select_best

    return {
        path: rows(
            [list(box.box_px) for box in select_best(seen[path] if untrained else fuse(boxes, seen[path]), Priors())]
        )
        for path, boxes in found.items()
    }


if __name__ == "__main__":
    main()
