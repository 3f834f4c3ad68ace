"""Tables of HDCL and MFFG, small, on photos of groceries: `edge-train table` with three seeds.

    python benchmarks/published_losses.py              # every table, one on each core; about 15 processor-minutes
    python benchmarks/published_losses.py mffg-heads   # the same, this one first; a stopped one goes on where it was

20 items, 8 photos of each to train and 12 others of the splits `train` and `val` to test, MobileNetV2 from ImageNet
weights, 64 px, six epochs: enough to compare the methods with each other, not with what their papers print. Tables of
classes that no training saw train on all photos of the first 10 items. Writes what is measured so far into
benchmarks/results/published_losses.json. Needs photos and weights in ../shared/data or $FINESIGHT_DATA.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.grocery import machine  # noqa: E402
from edge.file_names import file_name  # noqa: E402

DATA = Path(os.environ.get("FINESIGHT_DATA", ROOT / "../shared/data")).resolve()
WEIGHTS = DATA / "weights/mobilenetv2_100_in1k.safetensors"
WORK, RESULTS = ROOT / "runs/published_losses", ROOT / "benchmarks/results/published_losses.json"
ITEMS, TRAINED, TESTED, PX, EPOCHS = 20, 8, 12, 64, 6
# The tables, and which part of each is measured first: its methods (None: all) and seeds.
TABLES: dict[str, list[tuple[str | None, str]]] = {
    "mffg-heads": [("default,literal,guarded", "0,1,2"), (None, "0,1,2")],
    "hdcl-retrieval": [(None, "0"), (None, "0,1"), (None, "0,1,2")],
    "hdcl-recognition": [(None, "0,1,2")],
    "hdcl-hardest": [(None, "0"), (None, "0,1,2")],
}


def main() -> None:
    """Fill the tables, those that are named first."""
    if not WEIGHTS.is_file():
        sys.exit(f"{WEIGHTS} is missing; set FINESIGHT_DATA to the folder that holds grocery/ and weights/")
    index = write_index()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # one thread for each: two share their cores badly
        list(pool.map(partial(fill, index), dict.fromkeys([*sys.argv[1:], *TABLES])))
    for name in TABLES:
        print((WORK / name / "table.md").read_text())


def fill(index: Path, name: str) -> None:
    """Run the command of a table, part by part, and write the results after each."""
    for methods, seeds in TABLES[name]:
        given = {
            "--data": index,
            "-o": WORK / name,
            "--weights": WEIGHTS,
            "--backbone": "mobilenetv2_100",
            "--pixels": PX,
            "--epochs": EPOCHS,
        }
        given |= {"--seeds": seeds} | ({"--methods": methods} if methods else {})
        words = [str(word) for pair in given.items() for word in pair]
        command = [sys.executable, "-m", "trainer.cli", "table", name, *words]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
        write_results()


def write_results() -> None:
    """Write the rows that are measured so far."""
    filled = {name: rows_of(name) for name in TABLES if (WORK / name / "table.json").is_file()}
    shown = {"items": ITEMS, "train": TRAINED, "test": TESTED, "px": PX, "epochs": EPOCHS}
    report = shown | {"tables": filled, "machine": machine(), "date": date.today().isoformat()}  # noqa: DTZ011
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


def rows_of(name: str) -> list[dict[str, object]]:
    """Return the rows of a filled table, with the processor time of each training where it was measured."""
    rows: list[dict[str, object]] = json.loads((WORK / name / "table.json").read_text())["rows"]
    for row in rows:
        done = sorted(WORK.glob(f"{name}/runs/{file_name(str(row['method']))}-[0-9]/measures.json"))
        row["cpu_s"] = [json.loads(path.read_text())["cpu_s"] for path in done]
    return rows


def write_index() -> Path:
    """Write the first photos of each of the first items, by name."""
    by_item = defaultdict(list)
    with (DATA / "grocery/index.csv").open() as file:
        for row in csv.DictReader(file):
            if row["split"] in {"train", "val"}:
                by_item[row["fine"]].append(row)
    enough = sorted(item for item, rows in by_item.items() if len(rows) >= TRAINED + TESTED)[:ITEMS]
    WORK.mkdir(parents=True, exist_ok=True)
    with (WORK / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "split", "category", "item"))
        for item in enough:
            for number, row in enumerate(by_item[item][: TRAINED + TESTED]):
                split = "train" if number < TRAINED else "test"
                writer.writerow((DATA / row["path"], split, row["coarse"], item))
    return WORK / "index.csv"


if __name__ == "__main__":
    main()
