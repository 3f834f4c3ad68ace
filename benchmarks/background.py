"""Does it pay to remove the background? `data.cut_to_mask` on groceries and playing cards, with and without.

    python benchmarks/background.py masks groceries     # masks of photos: plain backgrounds, GrabCut (minutes)
    python benchmarks/background.py localise groceries  # a localiser
    python benchmarks/background.py untuned groceries   # published features, with and without the background
    python benchmarks/background.py outlines groceries  # silhouettes beside those features
    python benchmarks/background.py tuned groceries     # fine-tuned embedders of three seeds, the same
    python benchmarks/background.py masks cards ...     # the same on cards

Finished steps are not repeated. There are no true masks of these photos, so the localiser learns from what can be had:
catalogue pictures on a plain background (exact), laid on photos of shelves while training; and GrabCut's masks of
packages and of boxed cards, where a mask is neither small nor ragged. It starts from ImageNet weights. Each embedder
searches `val` photos among `train` ones. Writes benchmarks/results/background.json. Needs ../shared/data or
$FINESIGHT_DATA.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.grocery import machine  # noqa: E402
from benchmarks.playing_cards import true_cards  # noqa: E402
from benchmarks.results_file import write_results  # noqa: E402
from benchmarks.shared_data import DATA, WEIGHTS, groceries, require, write_csv  # noqa: E402
from dataset_formats.decode import read_image  # noqa: E402
from edge.errors import CaptureError  # noqa: E402
from edge.imaging.image import crop, encode_image, encode_mask, plain_background_mask  # noqa: E402
from edge.silhouettes.silhouette import silhouette_of  # noqa: E402
from quantize.bundle.fit_silhouettes import fit_rule, similarities  # noqa: E402
from trainer.data.crops import load_crops, predict  # noqa: E402
from trainer.embedder_recipe import EmbedderRecipe  # noqa: E402
from trainer.loop.training_loop import keep_freed_memory  # noqa: E402
from trainer.metrics import bootstrap  # noqa: E402
from trainer.model_setup import preprocess_of  # noqa: E402
from trainer.models.localiser_network import MaskNetwork  # noqa: E402
from trainer.models.networks import load_card, load_model  # noqa: E402
from trainer.pasting.cutout_command import predict_mask  # noqa: E402
from trainer.pasting.mask_sources import box_agreement, grabcut  # noqa: E402
from trainer.recipe import LocaliserRecipe  # noqa: E402
from trainer.recipe_parts import CropData  # noqa: E402
from trainer.tasks.embedder import train_embedders  # noqa: E402
from trainer.tasks.embedder_metrics import validate_embedder  # noqa: E402
from trainer.tasks.general_embedder import make_general_embedder  # noqa: E402
from trainer.tasks.localiser import train_localiser  # noqa: E402

RESULTS = ROOT / "benchmarks/results/background.json"
HALF = [0.5, 0.5, 0.5]
SEEDS = (0, 1, 2)
STUDENT = 4.30  # two-sided 95 %, of three seeds
SMALL = {"evaluate_every": 100, "device": "cpu", "threads": 1}  # an evaluation at the end alone
MASKS_PER_ITEM, PHOTOS_PER_ITEM = 3, 8
VAL_EVERY = 6  # of card photos, and of masks
MARGIN = 0.1


def main() -> None:
    """Run one step on one data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["masks", "localise", "untuned", "outlines", "tuned"])
    parser.add_argument("data", choices=["groceries", "cards"])
    parser.add_argument("--px", type=int, default=96, help="width and height of every input; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=4, help="of the tuned embedders; default: %(default)s")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/background", help="default: %(default)s")
    arguments = parser.parse_args()
    require(WEIGHTS)
    keep_freed_memory()
    work = arguments.work.resolve() / arguments.data
    steps = {
        "masks": write_masks,
        "localise": train_one_localiser,
        "untuned": measure_untuned,
        "outlines": measure_outlines,
        "tuned": measure_tuned,
    }
    steps[arguments.step](work, arguments)


def write_masks(work: Path, arguments: argparse.Namespace) -> None:
    """Write the crops of the data set, and the masks that can be had, each with an index."""
    if (work / "masks.csv").is_file():
        return
    (work / "pictures").mkdir(parents=True, exist_ok=True)
    crops, boxed = _groceries() if arguments.data == "groceries" else _cards(work)
    write_csv(work / "index.csv", ("path", "split", "category", "item"), crops)
    rows, refused = [], Counter[str]()
    for number, (path, box) in enumerate(boxed):
        image = read_image(path)
        mask = plain_background_mask(image) if box is None else grabcut(image, box)
        why = "nothing found" if mask is None else _flaw(np.asarray(mask, np.bool_), box)
        refused[why] += 1
        if mask is None or why:
            continue
        name = work / f"pictures/mask-{number}.png"
        name.write_bytes(encode_mask(np.asarray(mask > 0, np.uint8) * np.uint8(255)))
        rows.append((path, name, "val" if number % VAL_EVERY == 0 and box is not None else "train"))
    write_csv(work / "masks.csv", ("path", "mask", "split"), rows)
    (work / "masks.json").write_text(
        json.dumps({"tried": len(boxed), "used": refused.pop(""), "refused": dict(refused)})
    )


def _flaw(mask: np.ndarray, box: tuple[float, ...] | None) -> str:
    """Return why a mask of GrabCut is not used; empty if it is."""
    share = float(mask.mean())
    if box is None:
        return ""
    if not 0.12 < share < 0.75:
        return "too small or too large"
    return "" if box_agreement(mask, box) > 0.6 else "does not fill its box"


def _groceries() -> tuple[list[tuple[Any, ...]], list[tuple[Path, tuple[float, ...] | None]]]:
    listed = groceries()
    searched = {row["fine"] for row in listed if row["split"] == "val"}
    shown: Counter[str] = Counter()
    masked: Counter[str] = Counter()
    crops, boxed = [], []
    for row in listed:
        path, split = DATA / row["path"], row["split"]
        if split == "iconic":
            boxed.append((path, None))
        if split == "train" and row["family"] == "Packages" and masked[row["fine"]] < MASKS_PER_ITEM:
            masked[row["fine"]] += 1
            height, width = read_image(path).shape[:2]
            boxed.append((path, (0.15 * width, 0.12 * height, 0.85 * width, 0.88 * height)))
        shown[row["fine"]] += split == "train"
        if row["fine"] in searched and (split == "val" or (split == "train" and shown[row["fine"]] <= PHOTOS_PER_ITEM)):
            crops.append((path, split, row["family"], row["fine"]))
    return crops, boxed


def _cards(work: Path) -> tuple[list[tuple[Any, ...]], list[tuple[Path, tuple[float, ...] | None]]]:
    crops, boxed = [], []
    for number, xml in enumerate(sorted((DATA / "playing_cards/train").glob("*.xml"))):
        photo, truth = true_cards(xml)
        try:
            image = read_image(photo)
        except CaptureError as error:
            print(f"skipped {error}")
            continue
        for card, (rank, box) in enumerate(truth):
            path = work / f"pictures/{photo.stem}-{card}.jpg"
            part = crop(image, box, MARGIN)
            path.write_bytes(encode_image(part, ".jpg"))
            crops.append((path, "val" if number % VAL_EVERY == 0 else "train", "card", rank))
            edge_x, edge_y = (side * MARGIN / (1 + 2 * MARGIN) for side in (part.shape[1], part.shape[0]))
            boxed.append((path, (edge_x, edge_y, part.shape[1] - edge_x, part.shape[0] - edge_y)))
    return crops, boxed


def train_one_localiser(work: Path, arguments: argparse.Namespace) -> None:
    """Train the localiser: from ImageNet weights for the few masks of groceries, from nothing for cards."""
    published = {"name": "mobilenetv2_100", "pretrained": str(WEIGHTS), "options": {"pad_type": ""}}
    few = arguments.data == "groceries"
    recipe = LocaliserRecipe(
        kind="localiser",
        data={"index": work / "masks.csv"},
        input={"width": arguments.px, "height": arguments.px, "resize": "stretch", "mean": HALF, "std": HALF},
        backbone=published if few else None,
        width=32 if few else 12,
        paste=0.6,
        optimiser={"epochs": 12 if few else 20, "batch": 16, "lr": 2e-3, "trunk_lr": 0.3} | SMALL,
    )
    started = time.process_time()
    card = train_localiser(recipe, work / "localiser-0")
    print(card.metrics, f"{time.process_time() - started:.0f} CPU s", flush=True)


def measure_untuned(work: Path, arguments: argparse.Namespace) -> None:
    """Make an untuned embedder with and without the background, and count silhouettes beside it."""
    plain = load_crops(CropData(index=work / "index.csv"), preprocess_of(_recipe(work, arguments, 0, cut=False)))
    rows: dict[str, Any] = {"items": len(plain.items), "train": len(plain.train), "val": len(plain.val)}
    right = {}
    for cut in (False, True):
        run = work / f"untuned-{cut}"
        if not (run / "model.json").is_file():
            make_general_embedder(_recipe(work, arguments, 0, cut=cut), run)
        right[cut] = validate_embedder(load_model(run)[0], plain)["recall_1_train"]
    categories = np.array([sample.category for sample in plain.val])
    for name in ["all", *plain.categories]:
        chosen = np.ones(len(categories), bool) if name == "all" else categories == name
        change = 100 * (right[True] - right[False])[chosen]
        rows[name] = {
            "queries": int(chosen.sum()),
            "kept": round(100 * float(right[False][chosen].mean()), 1),
            "cut": round(100 * float(right[True][chosen].mean()), 1),
            "gain": round(float(change.mean()), 1),
            "gain_interval": [round(one, 1) for one in bootstrap(change, 0)],
        }
    _add(work, arguments, {"untuned": rows})


def measure_tuned(work: Path, arguments: argparse.Namespace) -> None:
    """Fine-tune embedders with and without the background, for each seed; of groceries, of the packages alone."""
    recipes = {(cut, seed): _recipe(work, arguments, seed, cut=cut) for seed in SEEDS for cut in (False, True)}
    if arguments.data == "groceries":  # the other photos show heaps of fruit: there is no one object to cut out
        for key, recipe in recipes.items():
            only = recipe.data.model_copy(update={"categories": ["Packages"]})
            recipes[key] = recipe.model_copy(update={"data": only})
    first = recipes[False, SEEDS[0]]
    plain = load_crops(first.data, preprocess_of(first))
    found: dict[bool, list[float]] = defaultdict(list)
    for (cut, seed), recipe in recipes.items():
        run = work / f"tuned-{cut}-{seed}"
        if not (run / "model.json").is_file():
            train_embedders(recipe, run)
        right = validate_embedder(load_model(run)[0], plain)["recall_1_train"]
        found[cut].append(100 * float(right.mean()))
        print(run.name, found[cut][-1], flush=True)
    gains = [one - other for one, other in zip(found[True], found[False], strict=True)]
    row: dict[str, Any] = {"items": len(plain.items), "train": len(plain.train), "val": len(plain.val)}
    row |= {"epochs": arguments.epochs, "seeds": list(SEEDS)}
    for name, values in ("kept", found[False]), ("cut", found[True]):
        row[name] = {"mean": round(statistics.mean(values), 1), "sd": round(statistics.stdev(values), 1)}
    half = STUDENT * statistics.stdev(gains) / len(gains) ** 0.5
    mean = statistics.mean(gains)
    row |= {"gain": round(mean, 1), "gain_interval": [round(mean - half, 1), round(mean + half, 1)]}
    _add(work, arguments, {"tuned": row})


def _add(work: Path, arguments: argparse.Namespace, measured: dict[str, Any]) -> None:
    rows = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    row: dict[str, Any] = {"px": arguments.px, "masks": json.loads((work / "masks.json").read_text())}
    row["localiser"] = load_card(work / "localiser-0").metrics
    row |= {"machine": machine(), "date": date.today().isoformat()}  # noqa: DTZ011
    rows[arguments.data] = rows.get(arguments.data, {}) | row | measured
    write_results(RESULTS, rows)
    print(json.dumps(measured, indent=1), flush=True)


def _recipe(work: Path, arguments: argparse.Namespace, seed: int, *, cut: bool) -> EmbedderRecipe:
    data: dict[str, Any] = {"index": work / "index.csv"}
    if cut:
        data["cut_to_mask"] = work / "localiser-0"
    return EmbedderRecipe(
        kind="embedder",
        seed=seed,
        data=data,
        input={"width": arguments.px, "height": arguments.px, "mean": HALF, "std": HALF, "crop_margin": 0.0},
        backbone={"name": "mobilenetv2_100", "pretrained": str(WEIGHTS), "options": {"pad_type": ""}},
        augment={"flip": arguments.data == "groceries"},
        optimiser={"epochs": arguments.epochs} | SMALL,
    )


def measure_outlines(work: Path, arguments: argparse.Namespace) -> None:
    """Measure what each way of counting silhouettes gains over the untuned vectors alone, by category.

    The weights are fitted on the pictures that they are measured on, as `edge-quantize pack` does.
    """
    crops = load_crops(CropData(index=work / "index.csv"), preprocess_of(_recipe(work, arguments, 0, cut=False)))
    embedder, _ = load_model(work / "untuned-False")
    localiser, card = load_model(work / "localiser-0")
    assert isinstance(localiser, MaskNetwork)
    found: dict[str, dict[str, dict[str, object]]] = {}
    train = crops.train_canvases()
    vectors = [predict(embedder, canvases, crops.spec) for canvases in (crops.val_canvases, train)]
    shapes = []
    for canvases, samples in (crops.val_canvases, crops.val), (train, crops.train):
        masks = [predict_mask(localiser, card, canvas) for canvas in canvases]
        sizes = [read_image(sample.path).shape for sample in samples]
        shapes.append([silhouette_of(mask, size[1], size[0]) for mask, size in zip(masks, sizes, strict=True)])
    for category in crops.categories:
        queries, known = (
            [i for i, s in enumerate(part) if s.category == category] for part in (crops.val, crops.train)
        )
        similar = similarities(
            vectors[0][queries],
            [shapes[0][i] for i in queries],
            [crops.val[i].item for i in queries],
            vectors[1][known],
            [shapes[1][i] for i in known],
            [crops.train[i].item for i in known],
        )
        found[category] = {mode: fit_rule(similar, mode).row() for mode in ("absolute", "aligned", "iou_only")}
    _add(work, arguments, {"outline": found})


if __name__ == "__main__":
    main()
