"""Data cards of the real data sets, the time they take, and the altered copies that the perceptual hash finds.

    python benchmarks/data_card.py [cards | speed | copies | model | search | split ...]  # default: all

Needs the photos (../shared/data or $FINESIGHT_DATA). Writes its parts to benchmarks/results/data_card.json, and the
cards and pictures of pairs to runs/data.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks/results/data_card.json"
PHOTOS, SEED = 200, 0
MODEL_PX, LEAST = 96, 0.95  # input size, and smallest cosine of ImageNet features for a pair


def main() -> None:
    """Run the parts and write the report after each."""
    from benchmarks.grocery import machine

    data = Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")).resolve()
    if not (data / "grocery").is_dir():
        sys.exit(f"{data}/grocery is missing; set FINESIGHT_DATA to the folder that holds it")
    parts = {"cards": cards, "speed": speed, "copies": copies, "model": model, "search": search, "split": split}
    report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in sys.argv[1:] or parts:
        report[name] = parts[name](data)
        print(name, json.dumps(report[name], indent=1), flush=True)
        report |= {"date": date.today().isoformat(), "machine": machine()}  # noqa: DTZ011
        RESULTS.write_text(json.dumps(report, indent=1) + "\n")


def cards(data: Path) -> dict[str, object]:
    """Return the data cards of the real data sets."""
    from trainer.data.command import describe_data

    names = ("grocery", "playing_cards", "fruit_boxes")
    return {name: describe_data(data / name, ROOT / "runs/data" / name) | {"out": None} for name in names}


def split(data: Path) -> dict[str, object]:
    """Count near-duplicates on both sides of a stratified split, by chance and with duplicates kept together."""
    from trainer.data.command import describe_data
    from trainer.recipe_parts import Split

    report: dict[str, object] = {"seed": SEED, "val": 0.2}
    for together in (False, True):
        how = Split(how="stratified", val=0.2, seed=SEED, together=together)
        described = describe_data(data / "grocery", None, split=how)
        pictures = {name: counts["pictures"] for name, counts in described["splits"].items()}
        report["together" if together else "by_chance"] = {
            "leaks": described["duplicates"]["leaks"],
            "pictures": pictures,
        }
    return report


def model(data: Path) -> dict[str, object]:
    """Find pairs of groceries by the features of an ImageNet MobileNetV2 that was not trained on groceries."""
    import torch

    from edge.manifest.model import Preprocess
    from trainer.data.dataset import read_samples
    from trainer.data.embedding_duplicates import find_embedding_duplicates
    from trainer.models.networks import ModelCard, build_model, save_model

    torch.set_num_threads(1)
    spec = Preprocess(width=MODEL_PX, height=MODEL_PX, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    card = ModelCard(
        kind="classifier", backbone="mobilenetv2_100", preprocess=spec, strides=[], width=8, labels=["a", "b"]
    )
    folder = ROOT / "runs/data/imagenet"
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, build_model(card, str(data / "weights/mobilenetv2_100_in1k.safetensors")), card)
    started = time.perf_counter()
    pairs = find_embedding_duplicates(read_samples(data / "grocery"), folder, LEAST, f"{data}/grocery/")
    return {"px": MODEL_PX, "seconds": round(time.perf_counter() - started, 1)} | pairs | {"first": pairs["first"][:20]}


def speed(data: Path) -> dict[str, float]:
    """Measure the CPU time per picture of reading, decoding and hashing."""
    from dataset_formats.layouts import read_listing
    from trainer.data.examine import examine_listing

    listing = read_listing(data / "grocery")
    started, used = time.perf_counter(), time.process_time()
    rows, _ = examine_listing(listing, "grocery", threads=1)
    return {
        "pictures": len(rows),
        "pictures_per_s": round(len(rows) / (time.perf_counter() - started), 1),
        "pictures_per_processor_s": round(len(rows) / (time.process_time() - used), 1),
    }


def copies(data: Path) -> dict[str, object]:
    """Measure the share of altered copies found among all groceries, and the number of false pairs."""
    from edge.imaging.image import decode_image, encode_image, read_image, resize
    from trainer.data.dataset import read_samples
    from trainer.data.duplicates import near_duplicates, perceptual_hash

    def cut(image: np.ndarray, share: float) -> np.ndarray:
        y, x = (round(side * share / 2) for side in image.shape[:2])
        return image[y : image.shape[0] - y, x : image.shape[1] - x]

    alter: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "jpeg quality 30": lambda image: decode_image(encode_image(image, ".jpg", 30), "copy"),
        "half the size": lambda image: resize(image, image.shape[1] // 2, image.shape[0] // 2, "area"),
        "20 grey levels brighter": lambda image: np.clip(image.astype(np.int16) + 20, 0, 255).astype(np.uint8),
        "2 % cut off": lambda image: cut(image, 0.02),
        "5 % cut off": lambda image: cut(image, 0.05),
        "10 % cut off": lambda image: cut(image, 0.10),
        "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    }
    paths = [sample.path for sample in read_samples(data / "grocery")]
    hashes = [perceptual_hash(read_image(path)) for path in paths]
    chosen = np.random.default_rng(SEED).choice(len(paths), PHOTOS, replace=False)
    report: dict[str, object] = {"photos": PHOTOS, "among": len(paths), "seed": SEED}
    for name, change in alter.items():
        altered = [perceptual_hash(change(read_image(paths[i]))) for i in chosen]
        pairs, _ = near_duplicates([*hashes, *altered])
        crossing = [(a, b - len(paths)) for a, b in pairs.tolist() if a < len(paths) <= b]
        found = {b for a, b in crossing if chosen[b] == a}
        report[name] = {"found": len(found) / PHOTOS, "pairs_with_another_photo": len(crossing) - len(found)}
    return report


def search(_: Path) -> dict[str, float]:
    """Measure the seconds to find pairs among random hashes; the largest number is the size of RPC."""
    from trainer.data.duplicates import similar_pairs

    report = {}
    for count in (4_000, 16_000, 53_739):
        signs = np.where(np.random.default_rng(SEED).random((count, 64)) < 0.5, -0.125, 0.125).astype(np.float32)
        started = time.perf_counter()
        similar_pairs(signs, 1 - 2 * 8 / 64)
        report[str(count)] = round(time.perf_counter() - started, 2)
    return report


if __name__ == "__main__":
    main()
