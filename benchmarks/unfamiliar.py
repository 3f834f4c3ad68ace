"""How the demo's bundle names what it does not know (empty places, shop photos), beside its own items.

    python benchmarks/unfamiliar.py                # two minutes on one core

One crop each: fresh rendered views of the demo's items (half of them set the limit, as packing does with held-out
crops; the other half is reported), `val` photos of groceries, and empty rendered places. The item alone decides, then
category and item together (the product of their probabilities, ADR of the open-set decision), then with the limit of
`quantize.open_set.familiarity`. Writes benchmarks/results/unfamiliar.json. Needs ../shared/data or $FINESIGHT_DATA.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import get_args

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.grocery import machine  # noqa: E402
from benchmarks.results_file import write_results  # noqa: E402
from benchmarks.shared_data import DATA, groceries  # noqa: E402
from edge.build import load_models  # noqa: E402
from edge.config.schema import EngineConfig  # noqa: E402
from edge.imaging.image import read_image, set_threads  # noqa: E402
from edge.recognition import decision  # noqa: E402
from edge.recognition.loaded_models import LoadedModels  # noqa: E402
from edge.recognition.recognise_image import extract_features  # noqa: E402
from edge.telemetry.timing import Timings  # noqa: E402
from edge.types import UNFAMILIAR, Category, Hit, Image  # noqa: E402
from trainer.synthetic.background import Kind, backdrop  # noqa: E402
from trainer.synthetic.crop import crop  # noqa: E402
from trainer.synthetic.items import catalogue  # noqa: E402

RESULTS = ROOT / "benchmarks/results/unfamiliar.json"
SHARE = 0.01  # of the crops that set the limit
EMPTY = 120


@dataclass(frozen=True, slots=True)
class Look:
    """What the models made of one crop."""

    item: str | None  # the true one; None: it is in no gallery
    categories: list[Category]
    hits: dict[str, list[Hit]]
    largest_logit: float


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=6, help="of each item, half of them for the limit; default: 6")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="default: 0 1 2")
    arguments = parser.parse_args()
    set_threads(1)
    models = load_models(ROOT / "demo/bundle", ROOT / "demo/gallery", EngineConfig(backend="onnxruntime"))
    photos = [look(models, None, image) for image in shop_photos()]
    rows = []
    for seed in arguments.seeds:
        rng = np.random.default_rng(1000 + seed)
        own = [look(models, item, image) for item, image in own_views(rng, arguments.views)]
        empty = [look(models, None, image) for image in empty_places(rng)]
        limit = float(np.quantile([one.largest_logit for one in own[::2]], SHARE, method="lower"))
        for name, looks in (("own items", own[1::2]), ("shop photos", photos), ("empty places", empty)):
            row = {"seed": seed, "shown": name, "crops": len(looks), **outcomes(models, looks, limit)}
            rows.append(row)
            print(row, flush=True)
    report = {"machine": machine(), "date": date.today().isoformat(), "share": SHARE, "rows": rows}  # noqa: DTZ011
    write_results(RESULTS, report)


def look(models: LoadedModels, item: str | None, image: Image) -> Look:
    """Classify, embed and search one crop."""
    features = extract_features(models, image, Timings())
    whole = [(0.0, 0.0, float(image.shape[1]), float(image.shape[0]))]
    assert models.stages.classifier is not None
    logits = models.stages.classifier.logits(image, whole, Timings())
    return Look(item, features.categories, models.search(features.vectors, features.silhouette), float(logits.max()))


def own_views(rng: np.random.Generator, views: int) -> Iterator[tuple[str, Image]]:
    """Yield rendered views of the demo's items, as a detector cuts them out."""
    items = catalogue()
    for item in items:
        for _ in range(views):
            yield item.item_id, crop(item, [other for other in items if other is not item][:4], rng, 160)


def shop_photos() -> Iterator[Image]:
    """Yield every second `val` photo of the groceries."""
    listed = [row for row in groceries() if row["split"] == "val"]
    for row in listed[::2]:
        yield read_image(DATA / row["path"])


def empty_places(rng: np.random.Generator) -> Iterator[Image]:
    """Yield empty rendered places of every kind."""
    kinds = get_args(Kind)
    for kind in kinds:
        for _ in range(EMPTY // len(kinds)):
            yield np.ascontiguousarray(backdrop(rng, kind, 240, 200)[0])


def outcomes(models: LoadedModels, looks: list[Look], limit: float) -> dict[str, float]:
    """Return the shares of right and wrong names by each rule."""
    found = {}
    least = decision.MIN_PROBABILITY
    for name, probability, uses_limit in (
        ("item alone", 0.0, False),
        ("category and item", least, False),
        ("with the limit", least, True),
    ):
        decision.MIN_PROBABILITY = probability
        right = wrong = 0
        for one in looks:
            factor = UNFAMILIAR if uses_limit and one.largest_logit < limit else 1.0
            categories = [Category(c.name, c.score * factor) for c in one.categories]
            match = models.decide(categories, one.hits).match
            right += match is not None and match.item_id == one.item
            wrong += match is not None and match.item_id != one.item
        found[f"{name}: right"] = round(right / len(looks), 4)
        found[f"{name}: wrong"] = round(wrong / len(looks), 4)
    decision.MIN_PROBABILITY = least
    return found


if __name__ == "__main__":
    main()
