"""Methods without training on real photos: SCDA on groceries, DDT on fruit and playing cards (data).

SCDA: 296 photos of `val` searched among five training photos of each of their 60 classes, at 224 px. DDT: at 448 px
on fruit and at 320 px on cards, most of which lie over others. Both by their commands, `edge-train table scda` and
`edge-train table ddt`. Each method is a step, and a stopped script goes on.

    .venv/bin/python benchmarks/free_methods.py [groceries] [fruit_boxes] [playing_cards]

Writes benchmarks/results/free_methods.json. Needs ../shared/data or $FINESIGHT_DATA.
"""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.results_file import read_table, write_results  # noqa: E402
from benchmarks.shared_data import DATA, TRUNK, WEIGHTS, groceries, require, write_csv  # noqa: E402

WORK, RESULT = ROOT / "runs/free_methods", ROOT / "benchmarks/results/free_methods.json"
EACH, PIXELS = 5, 224  # photos of a class in the gallery; side of the input
SEEDS = {"groceries": "0", "fruit_boxes": "0,1,2", "playing_cards": "0"}  # of the noise; nothing else is drawn


def main() -> None:
    """Fill the named tables, or all, and store what they hold so far."""
    require(WEIGHTS)
    for name in sys.argv[1:] or SEEDS:
        arguments = {
            "groceries": ["scda", "--data", str(few_groceries()), "--pixels", str(PIXELS)],
            "fruit_boxes": ["ddt", "--data", str(DATA / "fruit_boxes")],
            "playing_cards": ["ddt", "--data", str(DATA / "playing_cards/test"), "--pixels", "320"],
        }[name]
        fill(name, arguments)


def fill(name: str, arguments: list[str]) -> None:
    """Run the command of a table, and store its content."""
    from benchmarks.grocery import machine
    from trainer.cli import main as edge_train

    out = WORK / name
    command = ["table", *arguments, "-o", str(out), *TRUNK, "--seeds", SEEDS[name]]
    if edge_train(command):
        sys.exit(f"{name}: the table failed")
    rows = {row["method"]: rounded(row["measures"]) for row in read_table(out)["rows"]}
    report = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    report |= {"date": date.today().isoformat(), "machine": machine(), name: rows}  # noqa: DTZ011 the local day
    write_results(RESULT, report)


def rounded(measures: dict[str, dict[str, object]]) -> dict[str, object]:
    """Return the values of each measure over seeds; one value for what no seed changes."""
    found: dict[str, object] = {}
    for column, one in measures.items():
        values = [round(float(value), 4) for value in one["values"]]  # type: ignore[attr-defined]
        found[column] = values[0] if len(set(values)) == 1 else values
    return found


def few_groceries() -> Path:
    """Write an index of the photos of `val` and of EACH training photos of each of their classes."""
    listed = groceries()
    queries = [row for row in listed if row["split"] == "val"]
    left = dict.fromkeys((row["fine"] for row in queries), EACH)
    gallery = []
    for row in listed:
        if row["split"] == "train" and left.get(row["fine"]):
            left[row["fine"]] -= 1
            gallery.append(row)
    rows = [(DATA / row["path"], row["split"], row["coarse"], row["fine"]) for row in [*gallery, *queries]]
    return write_csv(WORK / "groceries.csv", ("path", "split", "coarse", "fine"), rows)


if __name__ == "__main__":
    main()
