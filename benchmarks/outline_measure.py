"""Measurements of benchmarks/outline.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.outline_data import TEST_SEEDS
from edge.imaging.guided_filter import refine_mask
from edge.imaging.image import decode_mask, encode_image, read_image, resize
from edge.inference.engine import open_engine
from edge.inference.preprocess import to_canvas
from edge.inference.stages import Localiser, load_stages
from edge.manifest.embedder import SilhouetteRule
from edge.manifest.manifest import parse_manifest
from edge.manifest.model import Preprocess
from edge.manifest.stages import LocaliserModel
from edge.silhouettes.rerank import silhouettes_for
from edge.silhouettes.silhouette import overlaps, silhouette_of
from edge.telemetry.timing import Timings
from edge.types import Box, Hit, Image, Silhouette
from quantize.bundle.fit_silhouettes import OFF, Similarities, fit_rule, similarities
from quantize.network_spec import model_entry, read_spec
from trainer.data.crops import predict
from trainer.metrics import bootstrap
from trainer.models.backbone import create_trunk

Mask = NDArray[np.uint8]
GUIDE_RADIUS = 0.03  # share of the longer side
REFINED, SHOWN = 21, 10  # test crops of a category that are refined at full size, and that are drawn


@dataclass(frozen=True, slots=True)
class Crop:
    """One rendered picture and its exact mask."""

    item: str
    picture: Image
    mask: Mask


def open_localiser(work: Path, ship: str) -> Localiser:
    path = work / f"models/localiser.{ship}.onnx"
    model = model_entry(read_spec(work / "models/localiser.fp32.json"), {"fp32": "model.onnx"}, "fp32", "")
    assert isinstance(model, LocaliserModel)
    return Localiser(model, open_engine(path, "onnxruntime"))


def crops_of(work: Path, category: str, part: str) -> list[Crop]:
    found = []
    for item in sorted((work / "retrieval" / category).iterdir()):
        for path in sorted(item.glob(f"{part}-*.jpg")):
            mask = decode_mask(path.with_suffix(".mask.png").read_bytes(), str(path))
            found.append(Crop(item.name, read_image(path), mask))
    return found


def categories_of(work: Path) -> list[str]:
    return sorted(path.name for path in (work / "retrieval").iterdir())


def whole(picture: Image) -> list[Box]:
    return [(0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))]


def iou(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    return float((found & true).sum() / max(1, (found | true).sum()))


def resized_to(mask: Mask, picture: Image) -> Mask:
    return resize(mask, picture.shape[1], picture.shape[0])


def refined(mask: Mask, picture: Image) -> Mask:
    """Refine a mask with the guided filter, as on a device, and resize it to the picture."""
    return resized_to(refine_mask(picture, mask, GUIDE_RADIUS), picture)


def matted(mask: Mask, picture: Image) -> Mask:
    """Refine a mask of the picture's size with closed-form matting."""
    from trainer.pasting.matting import refine_alpha

    return refine_alpha(picture, mask, max(2, round(0.02 * max(mask.shape))))


def timed(how: Callable[[], Any], spent_ms: list[float]) -> Any:
    started = time.process_time()
    result = how()
    spent_ms.append((time.process_time() - started) * 1e3)
    return result


def row(values: Sequence[float]) -> dict[str, object]:
    array = np.asarray(values, np.float64)
    return {"n": len(array), "mean": round(float(array.mean()), 4), "interval": [round(v, 4) for v in bootstrap(array)]}


def masks_of_crops(work: Path, ship: str, category: str) -> dict[str, list[float]]:
    """Return the overlap with exact masks of held-out synthetic crops, and CPU milliseconds of one thread.

    Keys: `at_mask` of every crop at the network's resolution; of some crops `full.*` at full size, `outline.*` as
    silhouettes of 64 x 64 cells, and `ms.*`.
    """
    localiser = open_localiser(work, ship)
    crops = [crop for seed in TEST_SEEDS for crop in crops_of(work, category, f"test{seed}")]
    chosen = np.linspace(0, len(crops) - 1, REFINED).astype(int).tolist()
    values: dict[str, list[float]] = {}
    sheet: list[Image] = []
    for number, crop in enumerate(crops):
        mask = localiser.locate(crop.picture, whole(crop.picture), Timings())[0]
        true = resize(crop.mask, mask.shape[1], mask.shape[0], "area") >= 128
        values.setdefault("at_mask", []).append(iou(mask >= 128, true))
        if number not in chosen:
            continue
        large = resized_to(mask, crop.picture)
        by = {"network": large}
        ms: dict[str, list[float]] = {"network": [], "guided_filter": [], "pymatting": []}
        timed(lambda c=crop: localiser.silhouettes(c.picture, whole(c.picture), Timings()), ms["network"])
        by["guided_filter"] = timed(lambda m=large, c=crop: refined(m, c.picture), ms["guided_filter"])
        by["pymatting"] = timed(lambda m=large, c=crop: matted(m, c.picture), ms["pymatting"])
        height, width = crop.mask.shape
        exact = silhouette_of(crop.mask, width, height)
        for name, found in by.items():
            values.setdefault(f"full.{name}", []).append(iou(found >= 128, crop.mask >= 128))
            values.setdefault(f"ms.{name}", []).append(ms[name][0])
            silhouette = silhouette_of(found, width, height)
            both = exact is not None and silhouette is not None
            values.setdefault(f"outline.{name}", []).append(
                float(overlaps(exact, silhouette[None])[0]) if both else 0.0
            )
        if len(sheet) < SHOWN:
            sheet.append(tile(crop, by))
    (work / f"sheet-{category}.png").write_bytes(encode_image(mosaic(sheet, 2), ".png"))
    return values


def summary(by_category: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Return means with intervals of the results of masks_of_crops."""
    pooled = {
        key: [v for values in by_category.values() for v in values[key]] for key in next(iter(by_category.values()))
    }
    report: dict[str, Any] = {
        "seeds": list(TEST_SEEDS),
        "by_category": {name: row(values["at_mask"]) for name, values in by_category.items()},
        "all": row(pooled["at_mask"]),
        "first_percentile": round(float(np.percentile(pooled["at_mask"], 1)), 4),
    }
    for kind in ("full", "outline"):
        report[kind] = {key.split(".")[1]: row(found) for key, found in pooled.items() if key.startswith(f"{kind}.")}
    report["cpu_ms_median"] = {
        key.split(".")[1]: round(float(np.median(found)), 2) for key, found in pooled.items() if key.startswith("ms.")
    }
    return report


def tile(crop: Crop, by: dict[str, Mask], side: int = 96) -> Image:
    """Draw the picture, its true mask and each predicted mask side by side."""
    masks = [np.repeat(mask[..., None], 3, axis=2) for mask in (crop.mask, *by.values())]
    return np.hstack([resize(picture, side, side, "area") for picture in (crop.picture, *masks)])


def mosaic(tiles: list[Image], across: int) -> Image:
    empty = np.zeros_like(tiles[0])
    padded = tiles + [empty] * (-len(tiles) % across)
    return np.vstack([np.hstack(padded[start : start + across]) for start in range(0, len(padded), across)])


def masks_of_photos(work: Path, data: Path, ship: str) -> dict[str, Any]:
    """Return the overlap with cut-outs of three photos of cars, which a model made, not people."""
    from edge.imaging.image import crop as cut
    from trainer.pasting.cutout_command import matted_cutout, on_white

    localiser, rows, sheet = open_localiser(work, ship), {}, []
    for path in sorted((data / "cutouts").glob("*.jpg")):
        photo = read_image(path)
        truth_path = path.with_suffix(".out.png")
        box = whole(photo)[0]
        if truth_path.exists():
            truth = decode_mask(truth_path.read_bytes(), str(truth_path))
            truth = resize(truth, photo.shape[1], photo.shape[0])
            y, x = np.nonzero(truth >= 128)
            box = (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1))
        picture, scale = cut(photo, box, 0.1), 1.0
        scale = min(1.0, 640 / max(picture.shape[:2]))
        size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        picture = resize(picture, *size, "area")
        large = resized_to(localiser.locate(picture, whole(picture), Timings())[0], picture)
        ms: list[float] = []
        by = {"network": large, "guided_filter": timed(lambda m=large, p=picture: refined(m, p), ms)}
        by["pymatting"] = timed(lambda m=large, p=picture: matted(m, p), ms)
        true = resize(cut(truth, box, 0.1), *size, "area") if truth_path.exists() else np.zeros(size[::-1], np.uint8)
        rows[path.stem] = {
            "pixels": list(size),
            "iou": {n: round(iou(m >= 128, true >= 128), 4) for n, m in by.items()} if truth_path.exists() else None,
            "cpu_ms": {"guided_filter": round(ms[0], 1), "pymatting": round(ms[1], 1)},
        }
        white = on_white(matted_cutout(picture, large))
        sheet.append(np.hstack([tile(Crop(path.stem, picture, true), by, 192), resize(white, 192, 192, "area")]))
    if sheet:
        (work / "sheet-photos.png").write_bytes(encode_image(np.vstack(sheet), ".png"))
    return rows


@dataclass(frozen=True, slots=True)
class Described:
    """Vectors and silhouettes of crops."""

    items: list[str]
    vectors: NDArray[np.float32]
    silhouettes: dict[str, list[Silhouette | None]]  # by source of the mask: true, predicted


Embed = Callable[[list[Image]], NDArray[np.float32]]


def trained(bundle: Path, category: str) -> Embed:
    """Return the demo's embedder of a category."""
    manifest = parse_manifest((bundle / "bundle.json").read_text(), str(bundle))
    embedder = load_stages(bundle, manifest, "onnxruntime").embedders[category]
    return lambda pictures: np.stack([embedder.embed(p, whole(p), Timings())[0] for p in pictures])


def untuned(weights: Path) -> Embed:
    """Return features of an untrained embedder, as in the publication: the average pool of an ImageNet network."""
    spec = Preprocess(width=96, height=96, resize="letterbox", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    trunk = create_trunk("mobilenetv2_100", None, str(weights)).eval()

    class Pooled(nn.Module):
        """Average-pooled features of unit length."""

        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.normalize(self.trunk(x)[-1].mean(dim=(2, 3)), dim=1)

    network = Pooled()
    return lambda pictures: predict(network, np.stack([to_canvas(spec, p)[0] for p in pictures]), spec, 32)


def describe(crops: list[Crop], embed: Embed, localiser: Localiser) -> Described:
    true = [silhouette_of(crop.mask, crop.mask.shape[1], crop.mask.shape[0]) for crop in crops]
    predicted = [localiser.silhouettes(crop.picture, whole(crop.picture), Timings())[0] for crop in crops]
    return Described(
        [crop.item for crop in crops], embed([crop.picture for crop in crops]), {"true": true, "predicted": predicted}
    )


def compare(queries: Described, gallery: Described, source: str) -> Similarities:
    return similarities(
        queries.vectors,
        queries.silhouettes[source],
        queries.items,
        gallery.vectors,
        gallery.silhouettes[source],
        gallery.items,
    )


def joined(one: Described, other: Described) -> Described:
    silhouettes = {source: one.silhouettes[source] + other.silhouettes[source] for source in one.silhouettes}
    return Described(one.items + other.items, np.concatenate([one.vectors, other.vectors]), silhouettes)


def retrieval(work: Path, embed: Embed, ship: str, category: str) -> dict[str, Any]:
    """Return Recall@1 in one category by gallery, source of the masks and mode."""
    localiser = open_localiser(work, ship)
    catalogue, crops, val, *tests = (
        describe(crops_of(work, category, part), embed, localiser)
        for part in ("look", "crop", "val", *(f"test{seed}" for seed in TEST_SEEDS))
    )
    galleries = {"looks_and_crops": joined(catalogue, crops), "looks": catalogue}
    return {
        name: {source: modes(gallery, val, tests, source) for source in ("true", "predicted")}
        for name, gallery in galleries.items()
    }


def modes(gallery: Described, val: Described, tests: list[Described], source: str) -> dict[str, Any]:
    """Return Recall@1 of every mode on the test crops, with weights fitted on validation, and the chosen rule."""
    held_out, queries = compare(val, gallery, source), [compare(test, gallery, source) for test in tests]
    before = [similar.is_correct(OFF).astype(np.float64) for similar in queries]
    rules: dict[str, SilhouetteRule] = {"cosine": OFF, "iou_only": SilhouetteRule(mode="iou_only")}
    rules |= {mode: fit_rule(held_out, (mode,)).best for mode in ("absolute", "aligned")}
    shipped = fit_rule(held_out)
    found = {}
    for name, rule in rules.items():
        by_seed = [similar.is_correct(rule).astype(np.float64) for similar in queries]
        correct, change = np.concatenate(by_seed), np.concatenate(by_seed) - np.concatenate(before)
        found[name] = row(correct.tolist()) | {
            "seeds": [round(float(values.mean()), 4) for values in by_seed],
            "weight": 1.0 if rule.mode == "iou_only" else rule.weight,
            "gain": round(float(change.mean()), 4),
            "gain_interval": [round(value, 4) for value in bootstrap(change)],
        }
    return found | {"validation": shipped.row()}


def rerank_ms(pictures: int = 12, items: int = 20, runs: int = 200) -> float:
    """Return the median CPU milliseconds of re-ranking the best 20 items with 12 pictures each."""
    generator = np.random.default_rng(0)
    known = {str(i): generator.integers(0, 256, (pictures, 512)).astype(np.uint8) for i in range(items)}
    ranked = silhouettes_for(SilhouetteRule(mode="aligned", weight=0.2), known)
    hits = [Hit(str(i), str(i), 0.9 - 0.01 * i) for i in range(items)]
    spent: list[float] = []
    for _ in range(runs):
        timed(lambda: ranked.rerank(hits, known["0"][0]), spent)
    return round(float(np.median(spent)), 3)
