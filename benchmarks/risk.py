"""Is the risk that an operator states kept? Thresholds fitted on half of the pictures, judged on the other half.

    python benchmarks/risk.py demo         # fresh rendered views of the demo's items, by its bundle: two minutes
    python benchmarks/risk.py groceries    # `val` photos, whitened untuned features of benchmarks/whitening.py

The rules are those of `edge-quantize pack --risk`. Each picture counts in twenty rounds, in each of which a fifth of
the items is unknown. `shown` are the thresholds fitted on all pictures; `halves` are ten draws. Adds its rows to
benchmarks/results/risk.json. Needs ../shared/data or $FINESIGHT_DATA for groceries.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.grocery import machine  # noqa: E402
from benchmarks.results_file import write_results  # noqa: E402
from edge.errors import QuantizeError  # noqa: E402
from edge.types import Category  # noqa: E402
from quantize.open_set.fit_thresholds import ThresholdFit, fit_thresholds, is_accepted  # noqa: E402
from quantize.open_set.leave_items_out import Predictions, ScoredCrop, leave_items_out  # noqa: E402

RESULT = ROOT / "benchmarks/results/risk.json"
RISKS = {"demo": (0.1, 0.05, 0.02, 0.01), "groceries": (0.5, 0.4, 0.3, 0.1)}
VIEWS, DRAWS = 6, 10
Scored = tuple[list[ScoredCrop], dict[str, list[str]]]  # pictures, and items by category


def main() -> None:
    """Fit, judge and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", choices=list(RISKS))
    kind = parser.parse_args().pictures
    crops, items = demo_views() if kind == "demo" else grocery_photos()
    everything = leave_items_out(crops, items)
    rows = {f"{risk:g}": judged(everything, crops, items, risk) for risk in RISKS[kind]}
    kept = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    about = {"date": date.today().isoformat(), "machine": machine(), "pictures": len(crops)}  # noqa: DTZ011
    print(json.dumps(rows, indent=1))
    write_results(RESULT, kept | {kind: about | {"risks": rows}})


def judged(everything: Predictions, crops: Sequence[ScoredCrop], items: dict[str, list[str]], risk: float) -> Any:
    """Return what all pictures show of a risk, and what halves of them promise and keep."""
    shown = fitted(everything, items, risk)
    if isinstance(shown, str):
        return {"refused": shown}
    thresholds = [fit.open_set.threshold for fit in shown.values()]
    named = [fit.named for fit in shown.values() if fit.named is not None]
    told = {"shown": next(iter(shown.values())).rule, "thresholds": [min(thresholds), max(thresholds)]}
    kept = []
    for seed in range(DRAWS):
        order = np.random.default_rng(seed).permutation(len(crops))
        halves = [[crops[i] for i in part] for part in (order[: len(order) // 2], order[len(order) // 2 :])]
        fit = fitted(leave_items_out(halves[0], items), items, risk)
        if not isinstance(fit, str):
            kept.append(wrong_names(fit, leave_items_out(halves[1], items, seed=1)))
    return told | {
        "named_rightly": [min(named), max(named)],
        "halves": sorted(kept),
        "halves_refused": DRAWS - len(kept),
    }


def fitted(predictions: Predictions, items: dict[str, list[str]], risk: float) -> dict[str, ThresholdFit] | str:
    """Return the rules for a risk, or why it is refused."""
    try:
        return fit_thresholds(predictions, list(items), risk=risk)
    except QuantizeError as error:
        return str(error)


def wrong_names(fits: dict[str, ThresholdFit], asked: Predictions) -> float:
    """Return the share of names that are wrong."""
    named = wrong = 0
    for category, fit in fits.items():
        own = asked.select(asked.category == category)
        accepted = is_accepted(fit.open_set, own)
        named += int(accepted.sum())
        wrong += int((accepted & ~own.correct).sum())
    return wrong / max(1, named)


def demo_views() -> Scored:
    """Score fresh views of the demo's items by its bundle and gallery."""
    from benchmarks.unfamiliar import own_views
    from edge.build import load_models
    from edge.config.schema import EngineConfig
    from edge.recognition.recognise_image import extract_features
    from edge.telemetry.timing import Timings
    from trainer.synthetic.items import catalogue

    models = load_models(ROOT / "demo/bundle", ROOT / "demo/gallery", EngineConfig(backend="onnxruntime"))
    true = {item.item_id: item.category for item in catalogue()}
    items = {
        name: sorted(item for item, category in true.items() if category == name) for name in sorted(models.indexes)
    }
    crops = []
    for item, image in own_views(np.random.default_rng(1000), VIEWS):
        features = extract_features(models, image, Timings())
        scores = {}
        for one in features.categories:
            vector = features.vectors.get(one.name)
            if vector is None:  # too unlikely to be searched
                continue
            found = {hit.item_id: hit.score for hit in models.indexes[one.name].search(vector[None], 1000)[0]}
            scores[one.name] = np.array([found.get(name, -1.0) for name in items[one.name]], np.float32)
        crops.append(ScoredCrop(true[item], item, features.categories, scores))
    return crops, items


def grocery_photos() -> Scored:
    """Score `val` photos of groceries, all items together, by whitened features of the published weights."""
    from benchmarks.whitening import GATHERING, embed, samples
    from edge.gallery.item_vectors import shrink_to_centroid
    from quantize.bundle.fit_whitening import LabelledVectors, fit_map

    listed = samples()
    vectors = embed(
        argparse.Namespace(embedder="untuned", px=128, seed=0, work=ROOT / "runs/whitening"), listed, frozenset()
    )
    split = np.array([one["split"] for one in listed])
    names = np.array([one["fine"] for one in listed])
    gallery, asked = split == "train", split == "val"
    plain = np.zeros(len(listed), np.bool_)
    fit = fit_map(LabelledVectors(vectors[gallery], names[gallery], plain[gallery]))
    mapped = fit.map(vectors, plain=plain.tolist())
    searched = shrink_to_centroid(mapped[gallery], names[gallery].tolist(), GATHERING)
    items = sorted(set(names[gallery].tolist()))
    best = np.stack([(mapped[asked] @ searched[names[gallery] == item].T).max(axis=1) for item in items], axis=1)
    one = [Category("grocery", 1.0)]
    crops = [ScoredCrop("grocery", name, one, {"grocery": row}) for name, row in zip(names[asked], best, strict=True)]
    return crops, {"grocery": items}


if __name__ == "__main__":
    main()
