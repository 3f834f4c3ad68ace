"""Synthetic expansion: detector and recognition with and without pasted scenes, equal steps, three seeds.

    python benchmarks/expansion.py              # into runs/expansion; finished trainings are not repeated
    python benchmarks/expansion.py --minutes 5  # starts no training after 5 minutes

Cards: a detector trained on twenty (or five) photos of the playing cards' train folder, against the same photos plus
scenes with their cards, cut from true boxes, pasted in. Each seed has other photos; the score is mAP on the test
folder. It also measures the masks that self-tuning would keep (expansion_guard.py). Groceries: an embedder trained on
augmented catalogue pictures only, against the same pictures pasted onto photos; the score is Recall@1 of the photos of
split `val` among the catalogue pictures. The same comparison runs first with a linear map on frozen features
(expansion_probe.py). Writes benchmarks/results/expansion.json after each training.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from trainer.pasting.paste import SceneLayout  # noqa: E402
from trainer.recipe import DetectorRecipe  # noqa: E402

SEEDS = (0, 1, 2)
PHOTOS, FEW_PHOTOS = 20, 5  # number of photos of cards with true boxes
CARD_SCENES, PHOTO_TIMES = 120, 5  # a tenth of the scenes is for validation; every photo is listed five times
CARD_LAYOUT = SceneLayout(384, 512, (1, 5), (0.25, 0.7), turn_deg=180.0)  # portrait photos, cards in any direction
CARD_STEPS, CARD_BATCH, CARD_PX = 312, 4, 192
GROCERY_STEPS, GROCERY_PX = 60, 96
RESULT = ROOT / "benchmarks/results/expansion.json"


def main() -> None:
    """Run the missing trainings, and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no training after this many minutes")
    parser.add_argument("--only", default="", help="run only trainings whose name starts with this")
    parser.add_argument("--prepare", action="store_true", help="only paste the scenes")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs/expansion", help="folder for data and results; default: %(default)s"
    )
    arguments = parser.parse_args()
    data = Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")).resolve()
    for name in ("playing_cards/train", "grocery/iconic"):
        if not (data / name).is_dir():
            sys.exit(f"{data / name} is missing; set FINESIGHT_DATA to the folder that holds it")
    work = arguments.work.resolve()
    first_started = time.monotonic()
    if arguments.prepare:
        prepare(work, data)
        return
    for name, seed, step in plan(work, data):
        done = work / f"{name}-{seed}.json"
        if done.exists() or not name.startswith(arguments.only):
            continue
        if time.monotonic() - first_started > 60 * arguments.minutes:
            print("time is up; run again to continue")
            break
        started = time.monotonic()
        found = step(seed)
        done.write_text(json.dumps(found | {"seconds": round(time.monotonic() - started, 1)}))
        record(work)
    record(work)


def plan(work: Path, data: Path) -> list[tuple[str, int, Callable[[int], dict[str, Any]]]]:
    """Return all trainings, seed by seed, the main comparisons first."""
    rooms, shops = background_folders(work, data)

    def cards(backgrounds: Path | None, photos: int = PHOTOS) -> Callable[[int], dict[str, Any]]:
        return lambda seed: card_arm(work, data, seed, backgrounds, photos)

    def groceries(backgrounds: Path | None) -> Callable[[int], dict[str, Any]]:
        return lambda seed: grocery_arm(work, data, seed, backgrounds)

    def probes(backgrounds: Path | None) -> Callable[[int], dict[str, Any]]:
        return lambda seed: probe_arm(work, data, seed, backgrounds)

    first = [("cards_photos_alone", cards(None)), ("cards_pasted_on_photos", cards(shops))]
    first += [("cards_few_photos_alone", cards(None, FEW_PHOTOS))]
    first += [("cards_pasted_on_few_photos", cards(shops, FEW_PHOTOS))]
    first.append(("cards_guard", lambda seed: guard_arm(work, data, seed, shops)))
    second = [("groceries_catalogue_alone", groceries(None)), ("groceries_pasted_on_rooms", groceries(rooms))]
    probed = [("groceries_probe_catalogue_alone", probes(None)), ("groceries_probe_pasted_on_rooms", probes(rooms))]
    later = [
        ("cards_self_tuned", lambda seed: self_tuned_arm(work, data, seed, shops)),
        ("groceries_pasted_on_shop_photos", groceries(shops)),
        ("cards_pasted_on_drawn_places", cards(Path("plain"))),
    ]
    return [(name, seed, step) for arms in (first, probed, second, later) for seed in SEEDS for name, step in arms]


def prepare(work: Path, data: Path) -> None:
    """Paste the scenes of every seed."""
    rooms, shops = background_folders(work, data)
    for seed in SEEDS:
        for backgrounds in (shops, Path("plain")):
            card_scenes(work, read_cards(work, data)["train"], seed, backgrounds, PHOTOS)
        for backgrounds in (rooms, shops):
            grocery_scenes(work, data, seed, backgrounds)


def card_scenes(work: Path, every: Path, seed: int, backgrounds: Path, photos: int) -> tuple[Path, dict[str, int]]:
    """Return the folder of a seed's photos with pasted scenes, and the number of cut-outs."""
    folder = work / f"cards-{backgrounds.name}-{photos}-{seed}"
    return folder, pasted(folder, few_photos(work, every, seed, photos), None, None, seed, backgrounds, "cards")


def grocery_scenes(work: Path, data: Path, seed: int, backgrounds: Path) -> tuple[Path, dict[str, int]]:
    """Return the folder of a seed's pasted catalogue pictures, and the number of cut-outs."""
    folder = work / f"groceries-{backgrounds.name}-{seed}"
    return folder, pasted(folder, data / "grocery/index.csv", data, ["iconic"], seed, backgrounds, "groceries")


def background_folders(work: Path, data: Path) -> tuple[Path, Path]:
    """Return folders of links to background photos: rooms (the card photos), and a shop (split train, unlabelled)."""
    rooms, shops = work / "rooms", work / "shops"
    for folder in (rooms, shops):
        folder.mkdir(parents=True, exist_ok=True)
    photos = [path for path in (data / "playing_cards/train").iterdir() if path.suffix.lower() != ".xml"]
    rows = [row for row in csv.DictReader((data / "grocery/index.csv").open()) if row["split"] == "train"]
    for folder, paths in ((rooms, photos), (shops, [data / row["path"] for row in rows[::13]])):
        for path in paths:
            link = folder / path.name
            if not link.is_symlink():
                link.symlink_to(path)
    return rooms, shops


def card_arm(work: Path, data: Path, seed: int, backgrounds: Path | None, photos: int) -> dict[str, Any]:
    """Train a detector on some photos and score it on the test folder."""
    from trainer.evaluation.evaluate_models import evaluate_detector
    from trainer.tasks.detector import train_detector

    all_scenes = read_cards(work, data)
    name = "alone" if backgrounds is None else backgrounds.name
    source, steps_per_epoch, counts = few_photos(work, all_scenes["train"], seed, photos), photos // CARD_BATCH, {}
    if backgrounds is not None:
        folder, counts = card_scenes(work, all_scenes["train"], seed, backgrounds, photos)
        source = folder / "scenes.json"
        listed = sum(image["split"] == "train" for image in json.loads(source.read_text())["images"])
        steps_per_epoch = listed // CARD_BATCH
    out = work / f"detector-{name}-{photos}-{seed}"
    recipe = card_recipe(data, seed, source, all_scenes["probe"], steps_per_epoch)
    train_detector(recipe, out)
    found = evaluate_detector(out, all_scenes["test"], None, "test")
    return (
        {key: found[key] for key in ("map50", "map50_95", "images")} | counts | {"steps": steps(out, steps_per_epoch)}
    )


def card_recipe(data: Path, seed: int, source: Path, probe: Path, steps_per_epoch: int) -> DetectorRecipe:
    """Return the recipe: the same network and number of steps for all."""
    return DetectorRecipe(
        kind="detector",
        seed=seed,
        scenes={"train": source, "val_splits": ["train"], "val": probe},
        input={"width": CARD_PX, "height": CARD_PX, "crop_margin": 0.0},
        backbone=backbone(data, [8, 16, 32]),
        augment={"scale": [0.5, 1.3], "flip": True, "rotate_deg": 10.0, "erase": 0.0},
        optimiser=optimiser(CARD_STEPS / steps_per_epoch, CARD_BATCH, 0.3, 2e-3),
    )


def self_tuned_arm(work: Path, data: Path, seed: int, backgrounds: Path) -> dict[str, Any]:
    """Train two rounds: twenty photos with pastes, then also cut-outs from the other photos without their boxes."""
    from trainer.evaluation.evaluate_models import evaluate_detector
    from trainer.pasting.background import photo_backgrounds
    from trainer.pasting.cutouts import read_cutouts
    from trainer.pasting.scenes import SceneGenerator
    from trainer.pasting.self_tuning.rounds import SelfTuning, self_tune

    all_scenes = read_cards(work, data)
    source = few_photos(work, all_scenes["train"], seed, PHOTOS)
    others = tuple(path for path, _ in other_photos(all_scenes["train"], source))
    listed = CARD_SCENES * 9 // 10 + PHOTOS * PHOTO_TIMES
    recipe = card_recipe(data, seed, source, all_scenes["probe"], listed // CARD_BATCH)
    generator = SceneGenerator(tuple(read_cutouts(source).found), photo_backgrounds(backgrounds)[0], CARD_LAYOUT)
    out = work / f"self-tuned-{seed}"
    rounds = self_tune(SelfTuning(recipe, generator, others, 2, CARD_SCENES, PHOTO_TIMES, seed), out)
    scores = [
        evaluate_detector(out / f"round-{number}/detector", all_scenes["test"], None, "test") for number in (0, 1)
    ]
    return {
        "map50": scores[1]["map50"],
        "map50_95": scores[1]["map50_95"],
        "first_round": {key: scores[0][key] for key in ("map50", "map50_95")},
        "images": scores[0]["images"],
        "rounds": [{key: one[key] for key in ("cutouts", "images", "boxes", "kept", "dropped")} for one in rounds],
    }


def guard_arm(work: Path, data: Path, seed: int, backgrounds: Path) -> dict[str, Any]:
    """Measure the masks that the detector of pasted scenes would give the next round, on unseen photos."""
    from benchmarks.expansion_guard import guard

    every = read_cards(work, data)["train"]
    source = few_photos(work, every, seed, PHOTOS)
    return guard(work / f"detector-{backgrounds.name}-{PHOTOS}-{seed}", other_photos(every, source))


def other_photos(every: Path, source: Path) -> list[tuple[Path, Any]]:
    """Return the photos that are not among a seed's twenty, with their true boxes."""
    from trainer.data.dataset import read_scenes

    used = {scene.path for scene in read_scenes(source)[0]}
    return [(scene.path, scene.boxes_px) for scene in read_scenes(every)[0] if scene.path not in used]


def steps(out: Path, per_epoch: int) -> int:
    """Return the number of steps that were run."""
    return per_epoch * sum(1 for _ in csv.DictReader((out / "metrics.csv").open()))


def backbone(data: Path, strides: list[int] | None) -> dict[str, Any]:
    weights = str(data / "weights/mobilenetv2_100_in1k.safetensors")
    common = {"name": "mobilenetv2_100", "options": {"pad_type": ""}, "pretrained": weights}
    return common | {"strides": strides, "freeze_bn": True, "frozen_stages": 3}


def optimiser(epochs: float, batch: int, trunk_lr: float, lr: float) -> dict[str, Any]:
    count = max(1, round(epochs))
    return {
        "epochs": count, "batch": batch, "lr": lr, "trunk_lr": trunk_lr, "evaluate_every": count, "ema": 0.95,
        "device": "cpu", "threads": 1,
    }  # fmt: skip


def read_cards(work: Path, data: Path) -> dict[str, Path]:
    """Write the boxes of the photos as COCO JSON; `probe` is one photo, because training needs validation."""
    from benchmarks.playing_cards import convert

    folder = work / "cards"
    convert(data / "playing_cards", folder)
    val, train = (json.loads((folder / f"{name}.json").read_text()) for name in ("val", "train"))
    shift = 10_000  # added to image ids, because both files number from the same start
    for image in val["images"]:
        image["id"] += shift
    for one in val["annotations"]:
        one["image_id"] += shift
    every = {key: train[key] + val[key] for key in ("images", "annotations")} | {"categories": train["categories"]}
    (folder / "every.json").write_text(json.dumps(every))
    keep_images(folder / "every.json", [every["images"][0]["id"]], folder / "probe.json")
    return {"train": folder / "every.json", "test": folder / "test.json", "probe": folder / "probe.json"}


def few_photos(work: Path, every: Path, seed: int, photos: int) -> Path:
    """Choose photos of the train folder, by seed."""
    path = work / f"photos-{photos}-{seed}.json"
    identities = [image["id"] for image in json.loads(every.read_text())["images"]]
    chosen = np.random.default_rng(seed).permutation(len(identities))[:photos]
    keep_images(every, [identities[i] for i in chosen], path)
    return path


def keep_images(source: Path, identities: list[int], out: Path) -> None:
    tree, kept = json.loads(source.read_text()), set(identities)
    tree["images"] = [image for image in tree["images"] if image["id"] in kept]
    tree["annotations"] = [one for one in tree["annotations"] if one["image_id"] in kept]
    out.write_text(json.dumps(tree))


def pasted(
    out: Path, source: Path, root: Path | None, splits: list[str] | None, seed: int, backgrounds: Path, kind: str
) -> dict[str, int]:
    """Paste the scenes of a source, unless it is done; return the number of cut-outs."""
    from trainer.pasting.background import drawn_background, photo_backgrounds
    from trainer.pasting.cutouts import read_cutouts
    from trainer.pasting.scenes import SceneGenerator, expand

    record_path = out / "cutouts.json"
    if record_path.exists():
        return dict(json.loads(record_path.read_text()))
    taken = read_cutouts(source, root, splits)
    background = drawn_background if backgrounds.name == "plain" else photo_backgrounds(backgrounds)[0]
    if kind == "cards":
        made = SceneGenerator(tuple(taken.found), background, CARD_LAYOUT)
        expand(made, out, CARD_SCENES, seed, real=source, real_times=PHOTO_TIMES)
    else:  # close up, as the photos of the shop are
        expand(
            SceneGenerator(tuple(taken.found), background, SceneLayout(320, 320, (1, 3), (0.4, 0.95))), out, 300, seed
        )
    record_path.write_text(json.dumps({"cutouts": len(taken.found), "cutouts_skipped": len(taken.skipped)}))
    return dict(json.loads(record_path.read_text()))


def grocery_arm(work: Path, data: Path, seed: int, backgrounds: Path | None) -> dict[str, Any]:
    """Train one embedder of all items on catalogue pictures; search the val photos among them."""
    from trainer.embedder_recipe import EmbedderRecipe
    from trainer.tasks.embedder import train_embedders

    name = "alone" if backgrounds is None else backgrounds.name
    folder, counts = work / f"groceries-{name}-{seed}", {}
    index = data / "grocery/index.csv"
    if backgrounds is not None:
        folder, counts = grocery_scenes(work, data, seed, backgrounds)
    folder.mkdir(parents=True, exist_ok=True)
    table = write_grocery_index(folder, index, data)
    out = work / f"embedder-{name}-{seed}"
    recipe = EmbedderRecipe(
        kind="embedder",
        seed=seed,
        data={"index": table, "root": data, "train_splits": ["catalogue", "train"], "val_splits": []},
        input={"width": GROCERY_PX, "height": GROCERY_PX, "crop_margin": 0.0, "mean": [0.5] * 3, "std": [0.5] * 3},
        backbone=backbone(data, None),
        heads=["class"], dim=256, width=0, grid=1, pairs=0.3, scale=20.0, images_per_class=2, classes_per_batch=16,
        decorrelation=0.1, label_smoothing=0.0, dropout=0.0, centre_lr=1.0,
        batches_per_epoch=GROCERY_STEPS // 4,
        augment={"scale": [0.5, 1.3], "shift": 0.12, "rotate_deg": 20.0, "flip": True, "colour": 0.3, "erase": 0.15},
        optimiser=optimiser(4, 32, 0.1, 1e-3),
    )  # fmt: skip
    card = train_embedders(recipe, out)[0]
    made = {"trained_on": card.data["train"], "steps": steps(out, GROCERY_STEPS // 4)}
    return counts | made | recall(out, index, data)


def recall(out: Path, index: Path, data: Path) -> dict[str, float]:
    """Search the photos of val among all 81 catalogue pictures, and among those of their own category."""
    from benchmarks.expansion_probe import recalls
    from trainer.data.crops import predict
    from trainer.data.dataset import choose, read_samples
    from trainer.data.pictures import load_canvases
    from trainer.models.networks import load_model

    model, card = load_model(out)
    samples = read_samples(index, data)
    queries, canvases, _ = load_canvases(choose(samples, ["val"]), card.preprocess)
    known, known_canvases, _ = load_canvases(choose(samples, ["iconic"]), card.preprocess, ["iconic"])
    vectors = (predict(model, pictures, card.preprocess) for pictures in (canvases, known_canvases))
    return recalls(*vectors, queries, known) | {"images": len(queries)}


def probe_arm(work: Path, data: Path, seed: int, backgrounds: Path | None) -> dict[str, Any]:
    """Train a linear map on frozen features on the same pictures."""
    from benchmarks.expansion_probe import probe
    from trainer.data.dataset import choose, read_samples

    index, folder = data / "grocery/index.csv", work / f"groceries-alone-{seed}"
    if backgrounds is not None:
        folder, _ = grocery_scenes(work, data, seed, backgrounds)
    folder.mkdir(parents=True, exist_ok=True)
    train = choose(read_samples(write_grocery_index(folder, index, data), data), ["catalogue", "train"])
    samples = read_samples(index, data)
    weights = data / "weights/mobilenetv2_100_in1k.safetensors"
    return probe(weights, train, choose(samples, ["val"]), choose(samples, ["iconic"]), seed)


def write_grocery_index(folder: Path, index: Path, data: Path) -> Path:
    """Write an index of catalogue pictures, twice (a class needs two), pasted crops if any, and the photos of val."""
    header = ("path", "split", "category", "item")
    rows = []
    for row in csv.DictReader(index.open()):
        if row["split"] in ("iconic", "val"):
            split = "catalogue" if row["split"] == "iconic" else "val"
            rows += [(data / row["path"], split, row["coarse"], row["fine"])] * (2 if split == "catalogue" else 1)
    if (folder / "index.csv").exists():
        crops = (row for row in csv.DictReader((folder / "index.csv").open()) if row["path"].startswith("crops/"))
        rows += [(folder / row["path"], "train", row["category"], row["item"]) for row in crops]
    table = folder / "mixed.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return table


def record(work: Path) -> None:
    """Write mean and deviation of each arm; arms without trainings in the folder stay as they were."""
    from benchmarks.grocery import machine

    arms: dict[str, dict[str, Any]] = {}
    for path in sorted(work.glob("*-[0-9].json")):
        name = path.stem[:-2]
        if name.startswith(("cards_", "groceries_")):
            arms.setdefault(name, {})[path.stem[-1]] = json.loads(path.read_text())
    report: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    made = {"date": date.today().isoformat(), "machine": machine()}  # noqa: DTZ011
    for name, by_seed in arms.items():
        runs = list(by_seed.values())
        measures = [
            key for key in ("map50", "map50_95", "recall_1", "recall_5", "recall_1_in_true_category") if key in runs[0]
        ]
        values = {key: [run[key] for run in runs] for key in measures}
        report[name] = (
            made
            | {"seeds": [int(seed) for seed in by_seed], "runs": runs}
            | {
                key: {"mean": mean(found), "deviation": stdev(found) if len(found) > 1 else None}
                for key, found in values.items()
            }
        )
    print(json.dumps(report, indent=1))
    RESULT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
