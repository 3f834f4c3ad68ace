"""Taught items over a bundle that was trained on other things: catalogue pictures of groceries over the demo's bundle.

    python benchmarks/taught_foreign.py            # needs the groceries, see benchmarks/grocery.py

Every second catalogue picture is used to choose the ratio (`--choose`), the others are reported (with `--all`, all of
them together). A kiosk is taught 1 to 40 of them with one picture each, or with three, and is shown other views: easy
ones (the same picture in other light, size, place and blur, turned a little, on another background, as JPEG), hard ones
(more of each, in perspective), and photos of the same things in shops. "others" are views of things that it was not
taught. The demo's own new items follow: five pictures each, eight others, as in benchmarks/openset.py. Writes
benchmarks/results/taught_foreign.json.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from edge.build import load_models  # noqa: E402
from edge.config.schema import EngineConfig  # noqa: E402
from edge.imaging.image import encode_image, read_image, set_threads  # noqa: E402
from edge.kiosk import taught_index  # noqa: E402
from edge.kiosk.taught_embeddings import ItemEmbeddings, embed_item  # noqa: E402
from edge.kiosk.taught_index import WithTaught, with_taught  # noqa: E402
from edge.kiosk.taught_store import TaughtItem  # noqa: E402
from edge.recognition.loaded_models import LoadedModels  # noqa: E402
from edge.recognition.recognise_image import ImageFeatures, extract_features  # noqa: E402
from edge.telemetry.timing import Timings  # noqa: E402
from edge.types import Image  # noqa: E402

DATA = Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")).resolve()
SIDE = 240  # pixels of a view
VIEWS = 4  # of each item, easy and hard
SHOP_EVERY = 3  # of the shop photos, one of this many is shown
DRAWS = {1: 6, 3: 4, 10: 2, 40: 1, 81: 1}  # how often so many items are drawn
LOOKS = (1, 3)
RATIOS = (0.9, 0.85, 0.8)
NEW_ITEMS, NEW_LOOKS, NEW_QUERIES = 4, 5, 8  # of each of the demo's categories


@dataclass(frozen=True, slots=True)
class Query:
    """A view of an item."""

    item: str
    features: ImageFeatures


def main() -> None:
    """Measure and write the report."""
    from benchmarks.grocery import machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="try several ratios on the other half of the items")
    parser.add_argument("--all", action="store_true", help="teach all items at once instead")
    arguments = parser.parse_args()
    set_threads(1)
    models = load_models(ROOT / "demo/bundle", ROOT / "demo/gallery", EngineConfig(backend="onnxruntime"))
    half = 0 if arguments.choose else 1
    drawn = [count for count in DRAWS if (count > 40) == arguments.all]
    listed = enumerate(catalogue_pictures())
    pictures = {name: picture for n, (name, picture) in listed if arguments.all or n % 2 == half}
    queries = foreign_queries(models, pictures)
    report: dict[str, Any] = {"items": len(pictures), "machine": machine(), "date": date.today().isoformat()}  # noqa: DTZ011
    for looks in LOOKS:
        taught = {
            name: teach(models, name, None, [picture, *(vary(picture, [n, k, 7]) for k in range(1, looks))])
            for n, (name, picture) in enumerate(pictures.items())
        }
        for count in drawn:
            for ratio in RATIOS if arguments.choose else (None, taught_index.MAX_RATIO):
                name = f"{looks} looks, {count} items, " + ("thresholds alone" if ratio is None else f"ratio {ratio}")
                report[name] = {kind: ask(models, taught, some, count, ratio) for kind, some in queries.items()}
                print(name, json.dumps(report[name]), flush=True)
    for ratio in () if arguments.all else RATIOS if arguments.choose else (None, taught_index.MAX_RATIO):
        report[f"demo's new items, ratio {ratio}"] = own_items(models, ratio)
        print(ratio, json.dumps(report[f"demo's new items, ratio {ratio}"]))
    if not arguments.choose:
        out = ROOT / "benchmarks/results/taught_foreign.json"
        before = json.loads(out.read_text()) if out.is_file() else {}
        key = "all items" if arguments.all else "half of the items"
        out.write_text(json.dumps({**before, key: report}, indent=1) + "\n")


def catalogue_pictures() -> Iterable[tuple[str, Image]]:
    """Yield the catalogue pictures of the groceries, by item."""
    for row in csv.DictReader((DATA / "grocery/index.csv").open()):
        if row["split"] == "iconic":
            yield row["fine"], read_image(DATA / row["path"])


def foreign_queries(models: LoadedModels, pictures: dict[str, Image]) -> dict[str, list[Query]]:
    """Return the views of the items, by kind."""
    queries: dict[str, list[Query]] = {"easy": [], "hard": [], "shop": []}
    for kind in ("easy", "hard"):
        for n, (name, picture) in enumerate(pictures.items()):
            views = [vary(picture, [n, k, kind == "hard"], hard=kind == "hard") for k in range(VIEWS)]
            queries[kind] += [Query(name, extract_features(models, view, Timings())) for view in views]
    rows = csv.DictReader((DATA / "grocery/index.csv").open())
    for row in [row for row in rows if row["split"] == "test" and row["fine"] in pictures][::SHOP_EVERY]:
        features = extract_features(models, read_image(DATA / row["path"]), Timings())
        queries["shop"].append(Query(row["fine"], features))
    return queries


def vary(picture: Image, seed: Sequence[int], *, hard: bool = False) -> Image:
    """Return another photo of what a picture on white shows."""
    rng = np.random.default_rng(seed)
    _, areas = cv2.connectedComponents((picture.min(axis=2) >= 245).astype(np.uint8))
    outer = np.unique(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]))
    white = cv2.GaussianBlur(np.isin(areas, outer[outer > 0]).astype(np.float32), (0, 0), 0.8)
    height, width = picture.shape[:2]
    most_degrees, smallest, largest = (30, 0.5, 1.2) if hard else (10, 0.72, 1.05)
    zoom, degrees = rng.uniform(smallest, largest), rng.uniform(-most_degrees, most_degrees)
    place = np.eye(3)
    place[:2] = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, zoom * SIDE / max(height, width))
    place[:2, 2] += [SIDE / 2 - width / 2, SIDE / 2 - height / 2] + rng.uniform(-0.06, 0.06, 2) * SIDE
    if hard:
        corners = np.float32([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]])
        moved = corners + np.float32(rng.uniform(-0.1, 0.1, (4, 2)) * SIDE)
        place = cv2.getPerspectiveTransform(corners, moved) @ place
    shown = cv2.warpPerspective(picture, place, (SIDE, SIDE), flags=cv2.INTER_AREA, borderValue=(255, 255, 255))
    behind = cv2.warpPerspective(white, place, (SIDE, SIDE), borderValue=1.0)[..., None]
    across, down = np.meshgrid(*[np.linspace(-0.5, 0.5, SIDE)] * 2)
    slope = rng.uniform(-0.12, 0.12, 2)
    backdrop = rng.uniform(90, 250) * (1 + rng.uniform(-0.06, 0.06, 3))
    light = (1 + slope[0] * across + slope[1] * down)[..., None]
    scene = (1 - behind) * shown + behind * np.clip(backdrop * light, 0, 255)
    scene *= rng.uniform(0.7, 1.25) * (1 + rng.uniform(-0.05, 0.05, 3))
    scene = 255 * np.clip(scene / 255, 0, 1) ** rng.uniform(0.85, 1.2)
    worse = 2 if hard else 1
    if (blur_px := rng.uniform(0, 1.3) * worse) > 0.3:
        scene = cv2.GaussianBlur(scene, (0, 0), blur_px)
    scene = np.clip(scene + rng.normal(0, rng.uniform(0, 4) * worse, scene.shape), 0, 255).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", scene[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 92))])[1]
    return np.ascontiguousarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1])


def teach(
    models: LoadedModels, name: str, category: str | None, pictures: Sequence[Image]
) -> tuple[TaughtItem, ItemEmbeddings]:
    """Embed an item as a kiosk does."""
    number = hashlib.sha256(name.encode()).hexdigest()[:12]
    item = TaughtItem(item_id=f"taught-{number}", label=name, category=category, taught_at="", looks=len(pictures))
    return item, embed_item(models, item, [encode_image(one, ".jpg", 95) for one in pictures], {})[0]


def ask(
    models: LoadedModels,
    taught: dict[str, tuple[TaughtItem, ItemEmbeddings]],
    queries: Sequence[Query],
    count: int,
    ratio: float | None,
) -> dict[str, float]:
    """Return the shares of answers in percent: right and wrong of the items taught, and named of the others."""
    total: Counter[str] = Counter()
    for draw in range(DRAWS[count]):
        rng = np.random.default_rng([count, draw])
        names = rng.choice(sorted(taught), min(count, len(taught)), replace=False).tolist()
        total += answers(models, [taught[name] for name in names], queries, ratio)
    return percentages(total)


def answers(
    models: LoadedModels,
    taught: Iterable[tuple[TaughtItem, ItemEmbeddings]],
    queries: Sequence[Query],
    ratio: float | None,
) -> Counter[str]:
    """Count the answers of a kiosk that was taught these items; without a ratio, the thresholds decide alone."""
    live = dict(taught)
    kiosk = with_taught(models, live)
    if ratio is None:
        bare = {n: replace(s, ratio_test=None) if isinstance(s, WithTaught) else s for n, s in kiosk.indexes.items()}
        kiosk = replace(kiosk, indexes=bare)
    labels = {item.label for item in live}
    before, taught_index.MAX_RATIO = taught_index.MAX_RATIO, ratio or 1.0
    total: Counter[str] = Counter()
    for query in queries:
        match = kiosk.decide(query.features.categories, kiosk.search(query.features.vectors)).match
        known = "taught" if query.item in labels else "others"
        outcome = "unknown" if match is None else "right" if match.label == query.item else "wrong"
        if outcome == "wrong" and match is not None and match.label not in labels:
            total[f"{known} taken for the demo's"] += 1
        total[f"{known} {outcome}"] += 1
        total[known] += 1
    taught_index.MAX_RATIO = before
    return total


def percentages(total: Counter[str]) -> dict[str, float]:
    """Return each outcome in percent of the queries of its kind, and how many those are."""
    shares = {
        name: round(100 * count / total[name.split()[0]], 1) for name, count in sorted(total.items()) if " " in name
    }
    return {**shares, **{name: count for name, count in total.items() if " " not in name}}


def own_items(models: LoadedModels, ratio: float | None) -> dict[str, Any]:
    """Teach items of the demo's world that no training used, one at a time, then all at once."""
    from trainer.synthetic.crop import crop
    from trainer.synthetic.items import catalogue, invent_items

    def queries(items: Iterable[Any], count: int, seed: int) -> dict[str, list[Image]]:
        views = {}
        for item in items:
            rngs = [np.random.default_rng([seed, *item.item_id.encode(), n]) for n in range(count)]
            views[item.label] = [crop(item, catalogue(), rng, int(rng.integers(150, 177))) for rng in rngs]
        return views

    new = invent_items(6, NEW_ITEMS, taken=invent_items(1, 10))
    lessons, tests = queries(new, NEW_LOOKS, 905), queries(new, NEW_QUERIES, 906)
    taught = {item.label: teach(models, item.label, item.category, lessons[item.label]) for item in new}
    known = queries(catalogue(), 3, 902)
    one: Counter[str] = Counter()
    for label, views in tests.items():
        features = [Query(label, extract_features(models, view, Timings())) for view in views]
        one += answers(models, [taught[label]], features, ratio)
    demo = [Query(label, extract_features(models, view, Timings())) for label, views in known.items() for view in views]
    beside = answers(models, taught.values(), demo, ratio)
    return {"each taught alone": percentages(one), "the demo's items beside all": percentages(beside)}


if __name__ == "__main__":
    main()
