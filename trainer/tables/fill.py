"""Fills a table: each method with each seed, then the mean and the spread over seeds. Goes on after a stop."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from glob import escape
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

_NOT_NOTED = "a machine that was not noted"  # rows of older versions
_DONE = "measures.json"
_COUNT = 100  # a number as large is a count or a length, no share


@dataclass(frozen=True, slots=True)
class _Row:
    """A row measured with one seed."""

    measures: Measures
    where: str  # machine and date


def fill_table(table: Table, request: Request, seeds: Sequence[int], methods: Sequence[str] | None) -> dict[str, Any]:
    """Measure what is missing; write `table.json` and `table.md` into the folder of the request after each row.

    Args:
        table: the table.
        request: data and settings.
        seeds: random seeds; a table that draws nothing at random uses the first.
        methods: rows to fill; None: all.

    Returns:
        The content of `table.json`: each method with its mean, standard deviation and 95 % interval over seeds, those
        measured by earlier calls into the same folder, too.

    Raises:
        TrainError: a method is unknown, the folder holds a table of another request or a damaged file, or a
            measurement failed.
    """
    listed = list(table.methods(request))
    if unknown := [name for name in methods or () if name not in listed]:
        raise TrainError(f"--methods: {unknown[0]!r} is no row of {table.name}; choose from {', '.join(listed)}")
    chosen = [name for name in listed if methods is None or name in methods]
    distinct = distinct_file_names(listed)  # of all rows, so that a row's folder does not depend on --methods
    names = {method: distinct[method] for method in listed}
    with report_disk_errors(f"{request.out}: the table cannot be written"):
        request.out.mkdir(parents=True, exist_ok=True)
        _keep_request(table, request)
        for seed in seeds if table.seeded else seeds[:1]:
            for method in chosen:
                place = request.runs / f"{names[method]}-{seed}"
                if not (place / _DONE).is_file():
                    _measure(table, request, method, seed, place)
                    _write(table, request, names)
        return _write(table, request, names)


def _write(table: Table, request: Request, names: dict[str, str]) -> dict[str, Any]:
    """Write and return the report of what is measured so far, by the folder name of each method."""
    report = _report(table, request, {method: _rows_of(request.runs, names[method]) for method in names})
    write_durably(request.out / "table.json", (json.dumps(report, indent=1) + "\n").encode())
    write_durably(request.out / "table.md", markdown(report).encode())
    return report


def _keep_request(table: Table, request: Request) -> None:
    """Note the request in the folder, and what the data held; refuse to mix the rows of two."""
    paths = {"data": request.data.resolve(), "root": request.root and request.root.resolve(), "out": ""}
    asked = json.loads(json.dumps({"table": table.name, **asdict(request), **paths}, default=str))
    asked["content"] = _content_of(request.data, request.out)
    note = request.out / "request.json"
    begun = any(path.is_file() for path in request.runs.rglob("*"))  # a first try with a wrong path leaves no row
    if not (note.is_file() and begun):
        write_durably(note, json.dumps(asked, sort_keys=True).encode())
        return
    kept = _read_note(note)
    if changed := [key for key in asked if kept.get(key, asked[key]) != asked[key]]:  # older notes lack `content`
        what = "pictures or labels were added or changed" if changed == ["content"] else f"other {changed[0]}"
        raise TrainError(f"{request.out}: holds a table of other data or settings ({what}); give another folder")


def _read_note(note: Path) -> dict[str, Any]:
    """Read the request of a table's folder.

    Raises:
        TrainError: the file is damaged.
    """
    try:
        kept = json.loads(note.read_bytes())
    except ValueError:
        kept = None
    if not isinstance(kept, dict):
        raise TrainError(f"{note}: is damaged; give another folder")
    return kept


def _content_of(data: Path, out: Path) -> str:
    """Return a digest of a data set: of the bytes of a file, or of the names and sizes in a folder but `out`."""
    digest = hashlib.sha256()
    if data.is_file():
        digest.update(data.read_bytes())
    for folder, folders, files in os.walk(data):
        folders[:] = sorted(name for name in folders if (Path(folder) / name).resolve() != out.resolve())
        for name in sorted(files):
            place = Path(folder) / name
            digest.update(f"{place.relative_to(data)} {place.stat().st_size if place.exists() else 0}\n".encode())
    return digest.hexdigest()[:16]


def _measure(table: Table, request: Request, method: str, seed: int, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    measures = table.measure(request, method, seed, place)
    if not measures:
        raise TrainError(f"{request.data}: {method} has nothing to measure; {table.name} needs {table.data}")
    where = f"{machine_name()}; {datetime.now(timezone.utc).date().isoformat()}"
    write_durably(place / _DONE, json.dumps({"measures": measures, "where": where}).encode())
    log.info("%s, %s, seed %d: %s", table.name, method, seed, measures)


def _rows_of(runs: Path, name: str) -> dict[int, _Row]:
    """Return what is measured of a row, by seed in order."""
    seeds = {}
    for file in runs.glob(f"{escape(name)}-*/{_DONE}"):
        start, _, seed = file.parent.name.rpartition("-")
        if start == name and seed.isdecimal():  # not that of a row whose name goes on
            seeds[int(seed)] = file
    return {seed: _kept(seeds[seed]) for seed in sorted(seeds)}


def _kept(file: Path) -> _Row:
    try:
        kept = json.loads(file.read_bytes())
        return _Row(kept["measures"], kept.get("where", _NOT_NOTED))
    except (ValueError, KeyError, TypeError) as error:
        raise TrainError(f"{file}: is damaged; delete it, and the row is measured again") from error


def _report(table: Table, request: Request, rows: dict[str, dict[int, _Row]]) -> dict[str, Any]:
    listed = [
        {
            "method": method,
            "seeds": list(by_seed),
            "measures": _over_seeds([row.measures for row in by_seed.values()]),
        }
        for method, by_seed in rows.items()
        if by_seed
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
        f"Measured on {' and on '.join(report['measured'])}. {_settings(report['settings'])}.",
        "",
        "Mean ± standard deviation [95 % interval of the mean] over seeds.",
        "",
        f"| method | seeds | {' | '.join(columns)} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for row in report["rows"]:
        cells = [_cell(row["measures"].get(column)) for column in columns]
        lines.append(f"| {row['method']} | {len(row['seeds'])} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _settings(settings: dict[str, Any]) -> str:
    """Return what the table was asked for, without the places of files on this machine."""
    kept = {"backbone": settings["backbone"], "weights": Path(settings["weights"]).name}
    kept |= {key: settings[key] or "as published" for key in ("pixels", "epochs")}
    return ", ".join([f"Data {Path(settings['data']).name}", *(f"{key} {value}" for key, value in kept.items())])


def _cell(measure: dict[str, Any] | None) -> str:
    if measure is None:
        return ""
    digits = 0 if abs(measure["mean"]) >= _COUNT else 3
    if "sd" not in measure:
        return f"{measure['mean']:.{digits}f}"
    low, high = measure["interval"]
    return f"{measure['mean']:.{digits}f} ± {measure['sd']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
