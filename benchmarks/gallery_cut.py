"""How near the cut vectors of a whole embedder are to those of its part, by the demo's three-headed embedders.

    python benchmarks/gallery_cut.py

`edge gallery cut` refuses an embedder whose own vectors are not the cut ones. Forms differ: the whole embedder may run
in INT8 and its part in FP32. So the INT8 vectors of gallery pictures, cut, are compared with the FP32 ones, for each
choice of heads; and with those of the embedders of other categories, which were trained apart and must be refused.
Writes benchmarks/results/gallery_cut.json in half a minute.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.grocery import machine  # noqa: E402
from benchmarks.results_file import write_results  # noqa: E402
from edge.bundle.bundle import read_bundle  # noqa: E402
from edge.gallery.cut import LEAST_COSINE, LEAST_MEAN, cut_vectors  # noqa: E402
from edge.gallery.generation import read_gallery  # noqa: E402
from edge.gallery.store import read_thumbnails  # noqa: E402
from edge.imaging.image import decode_image  # noqa: E402
from edge.inference.stages import load_stages  # noqa: E402
from edge.shipped.examples import shipped  # noqa: E402
from edge.telemetry.timing import Timings  # noqa: E402
from edge.types import FloatArray  # noqa: E402

RESULTS = ROOT / "benchmarks/results/gallery_cut.json"
PARTS = (("class",), ("class", "local"), ("class", "outline"))
PICTURES = 16


def main() -> None:
    """Measure every category of the demo, and write the results."""
    bundle, gallery = read_bundle(shipped("demo") / "bundle"), read_gallery(shipped("demo") / "gallery")
    int8, fp32 = (
        load_stages(bundle.folder, bundle.manifest, "onnxruntime", precision=form).embedders
        for form in ("int8", "fp32")
    )
    parts: dict[str, Any] = {}
    for heads in PARTS:
        rows: dict[str, list[float]] = {"same": [], "same_least": [], "trained_apart": []}
        for category in gallery.categories:
            found = list(read_thumbnails(gallery.path(category)))[:PICTURES]
            pictures = [decode_image(data, item) for item, data in found]
            model = int8[category].model
            part = [head for head in model.heads if head.name in heads]

            def cut(embedder: Any, pictures: list[Any] = pictures, model: Any = model, part: Any = part) -> FloatArray:
                return cut_vectors(embedder.embed_whole(pictures, Timings()), model.heads, part)

            whole = cut(int8[category])
            same = (whole * cut(fp32[category])).sum(axis=1)
            rows["same"].append(float(same.mean()))
            rows["same_least"].append(float(same.min()))
            rows["trained_apart"] += [
                float((whole * cut(fp32[other])).sum(axis=1).mean())
                for other in gallery.categories
                if other != category
            ]
        parts[" + ".join(heads)] = {
            "mean_cosine_of_the_worst_category": min(rows["same"]),
            "least_cosine": min(rows["same_least"]),
            "largest_mean_cosine_trained_apart": max(rows["trained_apart"]),
        }
    report = {
        "date": datetime.now(tz=timezone.utc).date().isoformat(),
        "machine": machine(),
        "demanded": {"mean": LEAST_MEAN, "each": LEAST_COSINE},
        "categories": len(gallery.categories),
        "pictures_of_each": PICTURES,
        "parts": parts,
    }
    write_results(RESULTS, report)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
