"""Real boxes: train the project's detector and a rank embedder on playing cards, and score both on the test split.

    python benchmarks/playing_cards.py      # into runs/cards; finished steps are not repeated

Needs the playing-card photos (../shared/data/playing_cards or $FINESIGHT_DATA/playing_cards). The data
set is small, so the interval is wide. Writes benchmarks/results/playing_cards.json.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
BIN = ROOT / ".venv/bin"
VAL_EVERY = 6  # every sixth train photo is for validation


def main() -> None:
    """Convert the data, train, score."""
    from benchmarks.grocery import machine

    data = Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")).resolve()
    if not (data / "playing_cards/train").is_dir():
        sys.exit(f"{data}/playing_cards is missing; set FINESIGHT_DATA to the folder that holds it")
    work = ROOT / "runs/cards"
    convert(data / "playing_cards", work)
    recipes = ROOT / "benchmarks/recipes"
    weights = f"backbone.pretrained={data / 'weights/mobilenetv2_100_in1k.safetensors'}"
    for kind in ("detector", "embedder"):
        command = [BIN / "edge-train", kind, "-c", recipes / f"cards-{kind}.yaml", "-o", work / kind, "--set", weights]
        print("$", *command, flush=True)
        subprocess.run([str(part) for part in command], cwd=ROOT, check=True)
    report = score(work) | {"date": date.today().isoformat(), "machine": machine()}  # noqa: DTZ011
    print(json.dumps(report, indent=1))
    (ROOT / "benchmarks/results/playing_cards.json").write_text(json.dumps(report, indent=1) + "\n")


def convert(cards: Path, work: Path) -> None:
    """Write the boxes as COCO JSON for the detector, and every card as a crop with its rank for the embedder."""
    from edge.errors import CaptureError
    from edge.imaging.image import crop, encode_image, read_image

    if (work / "index.csv").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, str, str]] = []
    scenes: dict[str, dict[str, list[object]]] = {
        split: {"images": [], "annotations": [], "categories": [{"id": 1, "name": "card"}]}
        for split in ("train", "val", "test")
    }
    for folder in ("train", "test"):
        for number, xml in enumerate(sorted((cards / folder).glob("*.xml"))):
            split = "val" if folder == "train" and number % VAL_EVERY == 0 else folder
            photo, truth = true_cards(xml)
            try:
                picture = read_image(photo)
            except CaptureError as error:
                print(f"skipped {error}")
                continue
            scenes[split]["images"].append({"id": len(rows) + number, "file_name": str(photo)})
            image_id = len(rows) + number
            for card, (rank, (x0, y0, x1, y1)) in enumerate(truth):
                scenes[split]["annotations"].append(
                    {"id": len(rows), "image_id": image_id, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
                )
                path = Path("crops") / split / f"{photo.stem}-{card}.jpg"
                (work / path).parent.mkdir(parents=True, exist_ok=True)
                (work / path).write_bytes(encode_image(crop(picture, (x0, y0, x1, y1), 0.1), ".jpg"))
                rows.append((str(path), split, "card", rank))
    for split, tree in scenes.items():
        (work / f"{split}.json").write_text(json.dumps(tree))
    with (work / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "split", "category", "item"), *rows])


def true_cards(xml: Path) -> tuple[Path, list[tuple[str, tuple[float, float, float, float]]]]:
    """Return the photo of an annotation file, and rank and box of each card in it."""
    photo = next(path for path in xml.parent.glob(f"{xml.stem}.*") if path.suffix.lower() != ".xml")
    nodes = ET.parse(xml).getroot().findall("object")  # noqa: S314, a trusted data set
    sides = ("xmin", "ymin", "xmax", "ymax")
    return photo, [
        (node.findtext("name", ""), tuple(float(node.findtext(f"bndbox/{side}", "0")) for side in sides))
        for node in nodes
    ]


def score(work: Path) -> dict[str, object]:
    """Return the mAP50 of the detector and the rank accuracy of the embedder on true boxes, both on test."""
    report = work / "report.json"
    command = [BIN / "edge-train", "evaluate", "--query", "test", "--left-out", "0", "-o", report]
    command += ["--embedder", work / "embedder", "--data", work / "index.csv", "--gallery", "train"]
    command += ["--detector", work / "detector", "--scenes", work / "test.json"]
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    evaluation = json.loads(report.read_text())
    (column,) = evaluation["columns"].values()
    return {"detector": evaluation["detector"], "ranks": column["retrieval"]}


if __name__ == "__main__":
    main()
