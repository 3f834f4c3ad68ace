"""CSV tables of data sets: the one reader of delimiters, quotes and headers, whatever the columns mean."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset_formats.text_files import read_text
from edge.errors import DataError

_DELIMITERS = ",;\t"
_MARK = "sep="  # a first line of Excel that states the delimiter
Row = tuple[int, dict[str, str]]  # line in the file, and values by column


@dataclass(slots=True)
class Table:
    """The rows of a CSV file that fit its header."""

    file: Path
    columns: list[str]  # in lower case, without blanks around them
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # which line, and why
    noticed: list[str] = field(default_factory=list)  # what was read, but deserves a look

    def leave_out(self, line: int, why: str) -> None:
        """Record that a line cannot be used."""
        self.left_out.append(f"{self.file}: line {line}: {why}")

    def rename(self, old: str, new: str) -> None:
        """Give a column another name."""
        self.columns = [new if name == old else name for name in self.columns]
        self.rows = [(line, {new if name == old else name: v for name, v in row.items()}) for line, row in self.rows]

    def why_empty(self) -> str:
        """Return why no row can be used."""
        if not self.left_out:
            return f"{self.file}: has no rows; list one picture in each row"
        return f"none of {len(self.left_out)} rows can be used; the first: {self.left_out[0]}"

    def require(self, *wanted: str) -> None:
        """Check that the table has columns.

        Raises:
            DataError: it lacks one.
        """
        if missing := sorted(set(wanted) - set(self.columns)):
            raise DataError(
                f"{self.file} lacks the columns {missing}; it has {sorted(filter(None, self.columns))}, "
                "separated by comma, semicolon or tab"
            )


def read_table(file: Path) -> Table:
    """Read a CSV file with a header: comma, semicolon or tab, in any Unicode encoding.

    Blanks around values do not count, nor does the case of column names. Blank rows are skipped. A row with too many
    values or broken quotes is left out.

    Raises:
        DataError: the file cannot be read, has no header, or has one column twice.
    """
    lines = list(io.StringIO(read_text(file), newline=""))
    start = next((number for number, line in enumerate(lines) if line.strip()), None)
    if start is None:
        raise DataError(f"{file}: is empty; give a header and rows")
    if lines[start].casefold().startswith(_MARK) and lines[start][len(_MARK) :].strip("\r\n") in (*_DELIMITERS,):
        delimiter, start = lines[start][len(_MARK)], start + 1
    else:
        delimiter = max(_DELIMITERS, key=lambda one: len(_first_record(lines, start, one)))
    records = _records(lines, start, delimiter)
    _, header = next(records, (0, ""))
    if isinstance(header, str):
        raise DataError(f"{file}: line {start + 1}: the header cannot be read: {header or 'it is missing'}")
    columns = [name.strip().strip("\ufeff").casefold() for name in header]
    if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise DataError(f"{file}: has the columns {twice} twice; rename or remove one of each")
    table = Table(file, columns)
    for line, record in records:
        if isinstance(record, str):
            table.leave_out(line, record)
            continue
        values = [value.strip() for value in record]
        if any(values[len(columns) :]):
            table.leave_out(
                line,
                f"has {len(values)} values for {len(columns)} columns; put a value that holds {delimiter!r} in quotes",
            )
        elif any(values):
            values += [""] * (len(columns) - len(values))
            table.rows.append((line, dict(zip(columns, values, strict=False))))
    return table


def _first_record(lines: Sequence[str], start: int, delimiter: str) -> list[str]:
    _, record = next(_records(lines, start, delimiter), (0, ""))
    return [] if isinstance(record, str) else record


def _records(lines: Sequence[str], start: int, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yield each record's first line, from 1, and its values, or why it cannot be read.

    After broken quotes, reading goes on with the next line: they spoil one line, not the rest of the file.
    """
    while start < len(lines):
        reader = csv.reader(
            (lines[number] for number in range(start, len(lines))),
            delimiter=delimiter,
            skipinitialspace=True,
            strict=True,
        )
        done = start
        try:
            for record in reader:
                yield done + 1, record
                done = start + reader.line_num
            start = len(lines)
        except csv.Error as error:
            yield done + 1, f"broken quotes or too long a value ({error}); write a quote in quotes twice"
            start = done + 1
