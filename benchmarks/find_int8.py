"""The INT8 form of finders on photos: how many searches still locate, and how long they take.

    python benchmarks/find_int8.py RUN ...      # run folders of finders, such as those of benchmarks/find_own.py

Calibrates on the photos that benchmarks/find_own.py cuts its own things from, and compares on photos that it has not
seen: cards of folder `test`, and every second photo of fruit. Needs ../shared/data or $FINESIGHT_DATA. Writes
benchmarks/results/find_int8.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.results_file import write_results  # noqa: E402
from benchmarks.shared_data import DATA  # noqa: E402
from dataset_formats.layouts import read_listing  # noqa: E402
from dataset_formats.listings import annotated_pictures  # noqa: E402
from quantize.build_network import Policy, build_network  # noqa: E402
from quantize.dataset import read_data  # noqa: E402

RESULT = ROOT / "benchmarks/results/find_int8.json"
PHOTOS = 24  # of playing cards, of each folder


def main() -> None:
    """Build the INT8 form of each finder, and write what it does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of finders")
    arguments = parser.parse_args()
    from benchmarks.grocery import machine

    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        scenes = write_scenes(Path(scratch) / "scenes.json")
        data = read_data(None, scenes, calibration_images=20)
        for run in arguments.runs:
            made = build_network("finder", run, Path(scratch) / run.name, data, Policy(), lambda pictures, _: pictures)
            rows[run.name] = {"ship": made.ship, "why": made.why} | made.evaluation
            print(json.dumps(rows[run.name], indent=1))
    tree = {"date": date.today().isoformat(), "machine": machine(), "finders": rows}  # noqa: DTZ011
    write_results(RESULT, tree)


def write_scenes(path: Path) -> Path:
    """List the photos with boxes in one COCO JSON, with splits `train` and `val`."""
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    names: dict[str, int] = {}
    for folder in ("playing_cards/train", "playing_cards/test", "fruit_boxes"):
        pictures = list(annotated_pictures(read_listing(DATA / folder, None, boxed=True)))[:PHOTOS]
        for number, picture in enumerate(pictures):
            unseen = folder.endswith("test") or (folder == "fruit_boxes" and number % 2)
            images.append({"id": len(images), "file_name": str(picture.path), "split": "val" if unseen else "train"})
            for box in picture.boxes:
                x0, y0, x1, y1 = box.box_px
                kind = names.setdefault(box.item, len(names) + 1)
                boxes.append({"image_id": len(images) - 1, "category_id": kind, "bbox": [x0, y0, x1 - x0, y1 - y0]})
    kinds = [{"id": number, "name": name} for name, number in names.items()]
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": kinds}))
    return path


if __name__ == "__main__":
    main()
