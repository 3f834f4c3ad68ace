"""The history of a training run: metrics.csv and curves.png."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from edge.durable import write_durably
from trainer.disk_errors import report_disk_errors


def write_history(out: Path, rows: list[dict[str, float]], *, curves: bool) -> None:
    """Write the table, and with `curves` the plot; a value that was not measured in an epoch stays empty.

    Raises:
        TrainError: the disk is full or not writable.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
    with report_disk_errors(f"{out}: cannot write the history"):
        write_durably(out / "metrics.csv", text.getvalue().encode())
        if curves:  # takes half a second, as long as a small epoch
            shown = [column for column in columns if column not in {"epoch", "lr", "seconds"}]
            write_durably(out / "curves.png", _curves(rows, shown))


def _curves(rows: list[dict[str, float]], columns: list[str]) -> bytes:
    figure = Figure(figsize=(10, 4))
    FigureCanvasAgg(figure)
    losses, metrics = figure.subplots(1, 2)
    for column in columns:
        points = [(row["epoch"], row[column]) for row in rows if column in row]
        panel = losses if column.startswith("loss") else metrics
        panel.plot(*zip(*points, strict=True), marker=".", label=column)
    for panel, title in (losses, "loss"), (metrics, "validation"):
        panel.set(title=title, xlabel="epoch")
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
