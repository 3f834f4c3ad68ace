"""Files of results: five digits of each number, and one line for what fits on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WIDTH = 140


def write_results(path: Path, tree: dict[str, Any]) -> None:
    """Write a tree of results."""
    path.write_text(_text(_rounded(tree), 0, 0) + "\n", encoding="utf-8")


def read_table(folder: Path) -> dict[str, Any]:
    """Read a table that `edge-train table` filled, without the paths of this machine."""
    table: dict[str, Any] = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in table["settings"].items() if key not in {"data", "weights"}}
    return table | {"settings": kept}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def _text(value: Any, depth: int, before: int) -> str:
    flat = json.dumps(value)
    if not isinstance(value, dict | list) or (depth and before + len(flat) <= WIDTH):
        return flat
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    names = [f"{json.dumps(str(key))}: " for key in value] if isinstance(value, dict) else [""] * len(value)
    inner = value.values() if isinstance(value, dict) else value
    pad = "\n" + " " * (depth + 1)
    lines = [pad + name + _text(one, depth + 1, len(pad + name)) for name, one in zip(names, inner, strict=True)]
    return opening + ",".join(lines) + "\n" + " " * depth + closing
