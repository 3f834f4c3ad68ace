"""Print the lines of each package, and the modules and functions that are longer than the house style aims for."""

from __future__ import annotations

import ast
from pathlib import Path

MODULE_LINES, FUNCTION_LINES = 300, 40


def main() -> None:
    """Print the table."""
    root = Path(__file__).parent.parent
    long: list[str] = []
    for package in ("dataset_formats", "edge", "gallery_sync", "quantize", "trainer", "tests", "benchmarks"):
        files = sorted((root / package).rglob("*.py"))
        lines = 0
        for file in files:
            text = file.read_text(encoding="utf-8")
            count = text.count("\n")
            lines += count
            if package in ("tests", "benchmarks"):
                continue
            name = file.relative_to(root)
            if count > MODULE_LINES:
                long.append(f"  {name}: {count} lines")
            long += [
                f"  {name}:{node.lineno} {node.name}: {(node.end_lineno or 0) - node.lineno} lines"
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > FUNCTION_LINES
            ]
        print(f"{package:14} {len(files):4} files {lines:6} lines")
    print(f"longer than {MODULE_LINES} lines a module or {FUNCTION_LINES} a function:", *(long or ["  none"]), sep="\n")


if __name__ == "__main__":
    main()
