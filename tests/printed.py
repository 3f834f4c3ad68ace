"""Commands and outputs that a Markdown page prints.

An `sh` block holds commands to run; the commands of a `console` block, after `$`, need a camera, a broker, a GPU or
hours. A `text` block that comes next on the page is what they print to stdout. It holds when its lines come one after
another somewhere in the output, where

* a line `...` stands for any lines, and `…` in a line for any text;
* times and memory (`7 ms`, `0.4 s`, `181 MiB`) and ids of 12 or more hexadecimal digits may be any;
* numbers with decimals may differ by `TOLERANCE`, or by that many percent if a `%` follows;
* blank lines and the width of spaces do not count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

TOLERANCE = 0.05  # of scores; 5 points of a percentage

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
_VARIES = re.compile(
    r"(?P<id>\b[0-9a-f]{12,}\b)|(?P<measure>\d+(?:\.\d+)?(?= ?(?:ms|s|min|MiB)\b))"
    r"|(?P<number>\d+\.\d+)(?P<percent> ?%)?|(?P<any>…)"
)


@dataclass(frozen=True, slots=True)
class Block:
    """Commands that a page prints together."""

    kind: str  # sh or console
    commands: str
    output: str | None  # None: the page does not print it


def blocks_of(page: Path) -> list[Block]:
    """Return the commands of a page in order."""
    fences = _FENCE.findall(page.read_text(encoding="utf-8"))
    return [
        Block(kind, _commands(body) if kind == "console" else body, after if kind_after == "text" else None)
        for (kind, body), (kind_after, after) in pairwise([*fences, ("", "")])
        if kind in {"sh", "console"}
    ]


def _commands(console: str) -> str:
    return "".join(line.removeprefix("$ ") for line in console.splitlines(keepends=True))


def first_that_differs(printed: str, came: str) -> str | None:
    """Return the first printed line, with what came in its place, that does not hold; None if all lines do."""
    lines = _lines(came)
    for part in re.split(r"^\s*\.\.\.\s*$", printed, flags=re.MULTILINE):
        wanted = _lines(part)
        ends = [start + _agreeing(wanted, lines[start:]) for start in range(len(lines) + 1)]
        found = next((start for start, end in enumerate(ends) if end - start == len(wanted)), None)
        if found is None:
            start, end = max(enumerate(ends), key=lambda one: one[1] - one[0])
            instead = lines[end] if end > start and end < len(lines) else "\n".join(lines)
            return f"printed: {wanted[end - start]}\ncame: {instead}"
        lines = lines[found + len(wanted) :]
    return None


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def _agreeing(wanted: Sequence[str], lines: Sequence[str]) -> int:
    """Return how many of the wanted lines come first in `lines`."""
    count = 0
    while count < min(len(wanted), len(lines)) and _agree(wanted[count], lines[count]):
        count += 1
    return count


def _agree(wanted: str, line: str) -> bool:
    pattern, numbers, last = "", [], 0
    for match in _VARIES.finditer(wanted):
        pattern += re.escape(wanted[last : match.start()])
        last = match.end()
        if match["number"]:
            pattern += rf"(\d+\.\d+){re.escape(match['percent'] or '')}"
            numbers.append((float(match["number"]), 100 * TOLERANCE if match["percent"] else TOLERANCE))
        else:
            pattern += {"id": "[0-9a-f]{12,}", "measure": r"\d+(?:\.\d+)?", "any": ".*"}[match.lastgroup or ""]
    found = re.fullmatch(pattern + re.escape(wanted[last:]), line)
    if found is None:
        return False
    return all(
        abs(float(got) - number) <= tolerance + 1e-9
        for got, (number, tolerance) in zip(found.groups(), numbers, strict=True)
    )
