"""A set of named crops, and a trainer that takes no time, for tests of the console's training."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from console.services import Services
from console.sets.crops import NewBox, set_boxes
from console.sets.pictures import add_picture
from console.sets.sets import create_set

TRAINER = '''"""Stands for edge-train: two epochs, waits for the file `go` in its folder, then a verdict and a pair."""
import json, os, sys, time
from pathlib import Path

command, arguments = sys.argv[1], sys.argv[2:]
out = Path(arguments[arguments.index("--out") + 1])
run = out / "work" / "trained" if command == "learn" else out
run.mkdir(parents=True, exist_ok=True)
print(f"{command}: 2 items <b>bold</b>", flush=True)
rows = ["epoch,lr,loss,recall_1,seconds", "1,0.1,2.5,0.5,1", "2,0.1,1.25,0.75,1"]
(run / "metrics.csv").write_text("\\n".join(rows[:2]) + "\\n")
print("trained 1/2: 100%|##########| 4/4 [00:01<00:00, loss 2.5]", file=sys.stderr, flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
(run / "metrics.csv").write_text("\\n".join(rows) + "\\n")
(run / "model.json").write_text(json.dumps({"kind": "embedder", "metrics": {"recall_1": 0.75}}))
if command == "learn":
    import csv
    listed = list(csv.DictReader(open(arguments[0])))
    answers = [
        {"path": one["path"], "box_px": None, "category": one["category"], "item": one["item"], "label": one["label"],
         "outcome": outcome, "nearest": "pear", "probability": 0.625, "similarity": 0.5}
        for one, outcome in zip(listed, ("wrong", "unknown"))
    ]
    verdict = {"held_out": 40, "right": 38, "unknown": 1, "wrong": 1, "nearest_item_right": 39,
               "nearest_category_right": 40, "lookup_ms": 12.5}
    report = {"photos": 50, "items": 2, "how": "trained: 2 epochs fit the time", "verdict": verdict, "answers": answers,
              "plan": {"how": "trained", "epochs": 2}}
    (out / "report.json").write_text(json.dumps(report))
    (out / "how-good.html").write_text("<script>alert(1)</script>")
    for name, file, text in (("bundle", "bundle.json", {"bundle_id": "fruit-1", "sequence": 1, "evaluation": {}}),
                             ("gallery", "gallery.json", {})):
        (out / "work" / name).mkdir(exist_ok=True)
        (out / "work" / name / file).write_text(json.dumps(text))
print("done")
'''


def fake_trainer(folder: Path) -> tuple[str, ...]:
    """Write the trainer, and return what stands for `python -m trainer.cli`."""
    path = folder / "fake_trainer.py"
    path.write_text(TRAINER, encoding="utf-8")
    return (sys.executable, str(path))


def write_picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
    """Write a picture of this width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))
    return path


def fruit_set(services: Services, folder: Path, per_item: int = 3) -> int:
    """Make a set of pictures that one fruit fills, all of them named."""
    with services.database.write() as connection:
        set_id = create_set(connection, 1.0, "ann", str(folder)[-80:], "folder", folder)
        for i, item in enumerate(("apple", "pear")):
            for n in range(per_item):
                path = write_picture(folder / item / f"{n}.png", 10 * i + n)
                named = {"category": "fruit", "item": item, "label": item.title(), "decided_by": "ann"}
                add_picture(connection, 1.0, set_id, f"{item}/{n}.png", path, whole=True, **named)
    return set_id


def boxed_set(services: Services, folder: Path, splits: tuple[str, ...] = ("",)) -> int:
    """Make a set with a picture for each split, with two boxes of which one is named."""
    with services.database.write() as connection:
        set_id = create_set(connection, 1.0, "ann", str(folder)[-80:], "folder", folder)
        for n, split in enumerate(splits):
            path = write_picture(folder / f"{n}.png", n)
            picture = add_picture(connection, 1.0, set_id, path.name, path, whole=False, split=split)
            assert picture is not None
            boxes = [
                NewBox(None, (0, 0, 10, 20), category="fruit", item="apple", label="Apple", decided_by="ann"),
                NewBox(None, (15, 5, 35, 25)),
            ]
            set_boxes(connection, picture, 1, boxes, "confirmed")
    return set_id
