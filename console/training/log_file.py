"""Reads the end of a log file as a terminal would show it."""

from __future__ import annotations

import os
import re
from pathlib import Path

_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MOST_LINE = 500  # characters


def read_tail(path: Path, most_bytes: int) -> str:
    r"""Return the end of a log, from the start of a line; a line that was written over (by \\r) as it was last."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most_bytes))
            data = file.read(most_bytes)
    except OSError:
        return ""
    if size > most_bytes:
        data = data.partition(b"\n")[2] or data
    return "\n".join(map(as_shown, data.decode("utf-8", "replace").split("\n")))


def as_shown(line: str) -> str:
    """Return a line as it stands after it was written over, without control characters."""
    parts = [part for part in line.split("\r") if part.strip()]
    return _CONTROLS.sub("", parts[-1] if parts else "")


def last_line(text: str) -> str:
    """Return the last line that says something, of bounded length."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_MOST_LINE] if lines else ""
