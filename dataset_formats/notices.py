"""What a reader tells about its records: which it left out and why, and what deserves a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Protocol

_FIRST = 3  # examples that a line names


def printable(text: object) -> str:
    """Return a text that can be printed; it shows the bytes of a file name that is not UTF-8."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def in_bulk(what: str, examples: Collection[object], first: int = _FIRST) -> list[str]:
    """Return one line with the count and the first examples of what happened often; no line if it never did."""
    return [_line(what, len(examples), [str(one) for one in examples][:first])] if examples else []


def _line(what: str, count: int, examples: Sequence[str]) -> str:
    return f"{what}: {count} ({', '.join(examples)}{', …' if count > len(examples) else ''})"


def lost_all(records: str) -> str:
    """Return why a picture is left out that lost all of its records: what it shows is unknown, and not nothing."""
    return f"none of its {records} can be used, so that the picture is left out; correct them"


class Notices:
    """Collects what a reader of one file, or of one data set, left out and noticed."""

    def __init__(self, source: object = "") -> None:
        """Begin each line with the source, where one is given."""
        self.left_out: list[str] = []  # which record, and why
        self.counts: Counter[str] = Counter()  # records that were read, by what deserves a look
        self._prefix = f"{source}: " if source else ""
        self._examples: dict[str, list[str]] = {}

    def leave_out(self, record: str, why: str) -> None:
        """Name a record that is left out."""
        self.left_out.append(printable(f"{self._prefix}{record}: {why}"))

    def notice(self, what: str, example: str) -> None:
        """Count a record that was read, but deserves a look."""
        self.counts[what] += 1
        examples = self._examples.setdefault(what, [])
        if len(examples) < _FIRST:
            examples.append(example)

    def noticed(self) -> list[str]:
        """Return a line for each kind of thing that was noticed, with its count and the first examples."""
        kinds = self.counts.items()
        return [printable(self._prefix + _line(what, count, self._examples[what])) for what, count in kinds]


class Reported(Protocol):
    """What a reader read: it says what it left out and what it noticed."""

    left_out: list[str]
    noticed: list[str]


def report(listing: Reported, source: object, first: int = 5) -> list[str]:
    """Return lines that say what a reader left out and noticed: the counts, and the first few of each."""
    lines = []
    for what, texts in (("left out", listing.left_out), ("noticed", listing.noticed)):
        if texts:
            more = f", and {len(texts) - first} more; edge-train data lists them" if len(texts) > first else ""
            lines.append(printable(f"{source}: {what} {len(texts)}: {'; '.join(texts[:first])}{more}"))
    return lines
