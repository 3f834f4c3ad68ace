"""Fills a table: each method with each seed, then the mean and the spread over seeds. Goes on after a stop."""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge.durable import write_durably
from edge.errors import TrainError
from edge.file_names import distinct_file_names
from trainer.cores import machine_name
from trainer.disk_errors import report_disk_errors
from trainer.tables.table import Measures, Request, Table

log = logging.getLogger(__name__)

# Of Student's distribution, two-sided 95 %, by the number of seeds.
_STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}

_COUNT = 100  # a number as large is a count or a length, no share


@dataclass(frozen=True, slots=True)
class _Row:
    """A row measured with one seed."""

    measures: Measures
    where: str  # machine and date


def fill_table(table: Table, request: Request, seeds: Sequence[int], methods: Sequence[str] | None) -> dict[str, Any]:
    """Measure what is missing, and write `table.json` and `table.md` into the folder of the request.

    Args:
        table: the table.
        request: data and settings.
        seeds: random seeds; a table that draws nothing at random uses the first.
        methods: rows to fill; None: all.

    Returns:
        The content of `table.json`: each method with its mean, standard deviation and 95 % interval over seeds.

    Raises:
        TrainError: a method is unknown, the folder holds a table of another request or a damaged file, or a
            measurement failed.
    """
    listed = list(table.methods(request))
    if unknown := [name for name in methods or () if name not in listed]:
        raise TrainError(f"--methods: {unknown[0]!r} is no row of {table.name}; choose from {', '.join(listed)}")
    chosen = [name for name in listed if methods is None or name in methods]
    names = distinct_file_names(listed)  # of all rows, so that a row's folder does not depend on --methods
    with report_disk_errors(f"{request.out}: the table cannot be written"):
        request.out.mkdir(parents=True, exist_ok=True)
        _keep_request(table, request)
        rows: dict[str, dict[int, _Row]] = {}
        for seed in seeds if table.seeded else seeds[:1]:
            for method in chosen:
                place = request.runs / f"{names[method]}-{seed}"
                rows.setdefault(method, {})[seed] = _measured(table, request, method, seed, place)
        report = _report(table, request, rows)
        write_durably(request.out / "table.json", (json.dumps(report, indent=1) + "\n").encode())
        write_durably(request.out / "table.md", markdown(report).encode())
    return report


def _keep_request(table: Table, request: Request) -> None:
    """Note the request in the folder; refuse to mix the rows of two."""
    paths = {"data": request.data.resolve(), "root": request.root and request.root.resolve(), "out": ""}
    asked = json.dumps({"table": table.name, **asdict(request), **paths}, default=str, sort_keys=True).encode()
    note = request.out / "request.json"
    if not note.is_file():
        write_durably(note, asked)
    elif note.read_bytes() != asked:
        raise TrainError(f"{request.out}: holds a table of other data or settings; give another folder")


def _measured(table: Table, request: Request, method: str, seed: int, place: Path) -> _Row:
    done = place / "measures.json"
    if done.is_file():
        return _kept(done)
    place.mkdir(parents=True, exist_ok=True)
    measures = table.measure(request, method, seed, place)
    if not measures:
        raise TrainError(f"{request.data}: {method} has nothing to measure; {table.name} needs {table.data}")
    where = f"{machine_name()}; {datetime.now(timezone.utc).date().isoformat()}"
    write_durably(done, json.dumps({"measures": measures, "where": where}).encode())
    log.info("%s, %s, seed %d: %s", table.name, method, seed, measures)
    return _Row(measures, where)


def _kept(file: Path) -> _Row:
    try:
        kept = json.loads(file.read_bytes())
        return _Row(kept["measures"], kept["where"])
    except (ValueError, KeyError, TypeError) as error:
        raise TrainError(f"{file}: is damaged; delete it, and the row is measured again") from error


def _report(table: Table, request: Request, rows: dict[str, dict[int, _Row]]) -> dict[str, Any]:
    listed = [
        {
            "method": method,
            "seeds": sorted(by_seed),
            "measures": _over_seeds([by_seed[seed].measures for seed in sorted(by_seed)]),
        }
        for method, by_seed in rows.items()
    ]
    settings = {key: value for key, value in asdict(request).items() if key not in {"out", "root"}}
    return {
        "table": table.name,
        "source": table.source,
        "what": table.what,
        "columns": list(table.columns),
        "settings": json.loads(json.dumps(settings, default=str)),
        "measured": sorted({row.where for by_seed in rows.values() for row in by_seed.values()}),
        "rows": listed,
    }


def _over_seeds(measured: Sequence[Measures]) -> dict[str, dict[str, Any]]:
    """Return mean, standard deviation and the 95 % interval of the mean of each column."""
    summary: dict[str, dict[str, Any]] = {}
    for column in dict.fromkeys(key for one in measured for key in one):
        values = [one[column] for one in measured if column in one]
        summary[column] = {"mean": statistics.fmean(values), "values": values}
        if len(values) > 1:
            deviation = statistics.stdev(values)
            half = _student(len(values)) * deviation / len(values) ** 0.5
            mean = summary[column]["mean"]
            summary[column] |= {"sd": deviation, "interval": [mean - half, mean + half]}
    return summary


def _student(seeds: int) -> float:
    """Return the factor of the interval; beyond the table by the expansion at the normal distribution's 1.96."""
    freedom = seeds - 1
    return _STUDENT.get(seeds, 1.96 + 2.37 / freedom + 2.82 / freedom**2)


def markdown(report: dict[str, Any]) -> str:
    """Return a report as a Markdown page: one row for each method, mean ± standard deviation over seeds."""
    columns = report["columns"]
    lines = [
        f"# {report['table']}",
        "",
        f"{report['source']}. {report['what']}",
        "",
        f"Measured on {' and on '.join(report['measured'])}.",
        "",
        f"| method | seeds | {' | '.join(columns)} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for row in report["rows"]:
        cells = [_cell(row["measures"].get(column)) for column in columns]
        lines.append(f"| {row['method']} | {len(row['seeds'])} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(measure: dict[str, Any] | None) -> str:
    if measure is None:
        return ""
    digits = 0 if abs(measure["mean"]) >= _COUNT else 3
    spread = f" ± {measure['sd']:.{digits}f}" if measure.get("sd") else ""
    return f"{measure['mean']:.{digits}f}{spread}"
