"""Tables of HDCL and MFFG, small, on photos of groceries: `edge-train table` with three seeds.

    python benchmarks/published_losses.py              # every table, one on each core; about 15 processor-minutes
    python benchmarks/published_losses.py mffg-heads   # the same, this one first; a stopped one goes on where it was

20 items, 8 photos of each to train and 12 others of the splits `train` and `val` to test, MobileNetV2 from ImageNet
weights, 64 px, six epochs: enough to compare the methods with each other, not with what their papers print. Tables of
classes that no training saw train on all photos of the first 10 items. Writes what is measured so far into
benchmarks/results/published_losses.json. Needs photos and weights in ../shared/data or $FINESIGHT_DATA.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.grocery import machine  # noqa: E402
from benchmarks.results_file import read_table, write_results  # noqa: E402
from benchmarks.shared_data import DATA, TRUNK, WEIGHTS, groceries_by_item, require, write_csv  # noqa: E402
from edge.file_names import file_name  # noqa: E402

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
    require(WEIGHTS)
    index = write_index()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # one thread for each: two share their cores badly
        list(pool.map(partial(fill, index), dict.fromkeys([*sys.argv[1:], *TABLES])))
    for name in TABLES:
        print((WORK / name / "table.md").read_text())


def fill(index: Path, name: str) -> None:
    """Run the command of a table, part by part, and write the results after each."""
    for methods, seeds in TABLES[name]:
        given = {"--data": index, "-o": WORK / name, "--pixels": PX, "--epochs": EPOCHS}
        given |= {"--seeds": seeds} | ({"--methods": methods} if methods else {})
        words = [str(word) for pair in given.items() for word in pair]
        command = [sys.executable, "-m", "trainer.cli", "table", name, *words, *TRUNK]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
        report()


def report() -> None:
    """Write the rows that are measured so far."""
    filled = {name: rows_of(name) for name in TABLES if (WORK / name / "table.json").is_file()}
    shown = {"items": ITEMS, "train": TRAINED, "test": TESTED, "px": PX, "epochs": EPOCHS}
    tree = shown | {"tables": filled, "machine": machine(), "date": date.today().isoformat()}  # noqa: DTZ011
    write_results(RESULTS, tree)


def rows_of(name: str) -> list[dict[str, object]]:
    """Return the rows of a filled table, with the processor time of each training where it was measured."""
    rows: list[dict[str, object]] = read_table(WORK / name)["rows"]
    for row in rows:
        done = sorted(WORK.glob(f"{name}/runs/{file_name(str(row['method']))}-[0-9]/measures.json"))
        row["cpu_s"] = [kept["cpu_s"] for path in done if "cpu_s" in (kept := json.loads(path.read_text()))]
    return rows


def write_index() -> Path:
    """Write the first photos of each of the first items, by name."""
    by_item = groceries_by_item()
    enough = [item for item, of in by_item.items() if len(of) >= TRAINED + TESTED][:ITEMS]
    rows = []
    for item in enough:
        for number, row in enumerate(by_item[item][: TRAINED + TESTED]):
            rows.append((DATA / row["path"], "train" if number < TRAINED else "test", row["coarse"], item))
    return write_csv(WORK / "index.csv", ("path", "split", "category", "item"), rows)


if __name__ == "__main__":
    main()
