"""Describes what a state folder holds: bundle slots, gallery generations, and which of them are active and staged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge.bundle.active_pointer import ActivePointer, edge_command, read_active_pointer, read_staged_pointer
from edge.bundle.layout import gallery_generations
from edge.bundle.pairs import read_pointer_or_none
from edge.bundle.slots import read_slots
from edge.gallery.generation import Gallery

_WIDEST = 48  # characters of a cell: any text names a category


def describe_bundles(state_dir: Path) -> dict[str, Any]:
    """Return the JSON of `edge bundle list`."""
    active, staged, problems = _pointers(state_dir)
    return {
        **{f"slot {slot.name}": asdict(slot) for slot in read_slots(state_dir)},
        "serving": active.model_dump() if active else None,
        "staged": staged.model_dump() if staged else None,
        "galleries": gallery_generations(state_dir),
        "problems": problems,
    }


def _pointers(state_dir: Path) -> tuple[ActivePointer | None, ActivePointer | None, list[str]]:
    """Return the pointers to the active and the staged pair, and what is wrong with their files."""
    (active, wrong), (staged, staged_wrong) = (
        read_pointer_or_none(state_dir, read) for read in (read_active_pointer, read_staged_pointer)
    )
    return active, staged, [problem for problem in (wrong, staged_wrong) if problem]


def format_bundles(state_dir: Path) -> Iterator[str]:
    """Return the lines that `edge bundle list` prints."""
    active, staged, problems = _pointers(state_dir)
    rows = [("slot", "bundle", "gallery", "state")]
    for slot in read_slots(state_dir):
        uses = [
            (pointer, _use(pointer, state))
            for pointer, state in ((active, "active"), (staged, "staged"), (active and active.previous, "previous"))
            if pointer is not None and pointer.slot == slot.name and pointer.bundle_id == slot.bundle_id
        ]
        name = slot.bundle_id or ("unreadable" if slot.problem else "-")
        rows += [(slot.name, name, pointer.gallery, state) for pointer, state in uses]
        if not uses:
            rows.append((slot.name, name, "-", "not used" if slot.bundle_id else "empty" if not slot.problem else "-"))
    yield from _table(rows)
    for slot in read_slots(state_dir):
        if slot.problem:
            yield f"slot {slot.name}: {slot.problem}"
    yield from problems
    unused = _unused_galleries(state_dir, active, staged)
    if unused:
        yield f"other galleries: {', '.join(unused)}"
    if staged is not None:
        yield f"to switch to bundle {staged.bundle_id}, run: {edge_command('bundle activate', state_dir)}"


def _use(pointer: ActivePointer, state: str) -> str:
    release, trial = pointer.release, ", on trial" if pointer.trial else ""
    return state + ("" if release is None else f", release {release.sequence} of {release.line}") + trial


def _unused_galleries(state_dir: Path, *pointers: ActivePointer | None) -> list[str]:
    used = {pointer.gallery for pointer in pointers if pointer}
    used |= {pointer.previous.gallery for pointer in pointers if pointer and pointer.previous}
    return [generation for generation in gallery_generations(state_dir) if generation not in used]


def describe_gallery(gallery: Gallery) -> dict[str, Any]:
    """Return the JSON of `edge gallery status`."""
    categories = {
        name: {"items": entry.items, "vectors": entry.vectors} for name, entry in sorted(gallery.categories.items())
    }
    return {"generation": gallery.generation, "created_at": gallery.created_at, "categories": categories}


def format_gallery(gallery: Gallery) -> Iterator[str]:
    """Return the lines that `edge gallery status` prints."""
    entries = sorted(gallery.categories.items())
    yield f"gallery {gallery.generation}, made {gallery.created_at}"
    yield from _table(
        [
            ("category", "items", "vectors"),
            *((name, str(entry.items), str(entry.vectors)) for name, entry in entries),
            ("total", str(gallery.items), str(sum(entry.vectors for _, entry in entries))),
        ],
        numbers=2,
    )


def _table(rows: Sequence[tuple[str, ...]], numbers: int = 0) -> Iterator[str]:
    """Return rows as aligned columns; the last `numbers` columns are aligned right, and long cells are cut."""
    rows = [tuple(cell if len(cell) <= _WIDEST else f"{cell[: _WIDEST - 1]}…" for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first_number = len(widths) - numbers
    for row in rows:
        cells = [
            cell.ljust(width) if i < first_number else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
