"""What urgent deletions took away on a device: receipts, and how far they are applied in each gallery.

Rules this module keeps:
1. The file `erased.json` only spares work. Where it is gone, deletions are looked up again in the stores.
2. What the device reports is read from the stores, too: it is true also after a crash that lost a receipt.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.bundle.active_pointer import ActivePointer, read_staged_pointer
from edge.bundle.layout import gallery_folder
from edge.bundle.pairs import read_pointer_or_none
from edge.durable import set_aside, write_durably
from edge.errors import FinesightError
from edge.gallery.generation import read_gallery
from gallery_sync.gallery_log.apply import read_state

log = logging.getLogger(__name__)

RECORD_NAME = "erased.json"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased of one category."""

    category: str
    sequence: int  # gallery sequence of the newest urgent deletion that was applied
    items: int  # distinct items that were there
    generations: tuple[str, ...]  # that they were erased from
    erased_at: str  # ISO 8601, UTC


@dataclass(frozen=True, slots=True)
class Erasure:
    """The result of a run."""

    receipts: tuple[Receipt, ...] = ()
    problems: tuple[str, ...] = ()  # deletions that were not applied, each with its reason


class Record(BaseModel):
    """The content of erased.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    generations: dict[str, dict[str, int]] = {}  # gallery sequence by generation and category
    unfinished: bool = False  # copies of what was erased may still be there


def read_record(state_dir: Path) -> Record:
    """Return how far the deletions of each generation are known to be applied: nothing if the file is damaged."""
    try:
        return Record.model_validate_json((state_dir / RECORD_NAME).read_bytes())
    except (OSError, ValidationError, RecursionError) as error:  # the deletions are looked up again
        log.debug("%s: %s", state_dir / RECORD_NAME, error)
        return Record()


def write_record(state_dir: Path, generations: Mapping[str, Mapping[str, int]], *, unfinished: bool = False) -> None:
    """Write how far the deletions of each generation are applied.

    Raises:
        OSError: the disk failed.
    """
    path, record = state_dir / RECORD_NAME, {"generations": generations, "unfinished": unfinished}
    set_aside(path)
    write_durably(path, json.dumps(record).encode() + b"\n")


def generations_of(*pointers: ActivePointer | None) -> Iterator[str]:
    """Yield the generations that pointers name, each once."""
    named = [one for pointer in pointers if pointer is not None for one in (pointer, pointer.previous) if one]
    yield from dict.fromkeys(one.gallery for one in named)


def categories_on(state_dir: Path) -> list[str]:
    """Return the categories of all galleries that a device may search, whose logs may name deletions."""
    active, _ = read_pointer_or_none(state_dir)
    staged, _ = read_pointer_or_none(state_dir, read_staged_pointer)
    found: dict[str, None] = {}
    for generation in generations_of(active, staged):
        with suppress(FinesightError):
            found |= dict.fromkeys(read_gallery(gallery_folder(state_dir, generation), verify=False).categories)
    return list(found)


def erased_to(state_dir: Path) -> dict[str, int]:
    """Return up to which gallery sequence urgent deletions are applied in every gallery on a device, by category.

    It is for the report of the device: it is true also after a crash that lost a receipt.
    """
    active, _ = read_pointer_or_none(state_dir)
    staged, _ = read_pointer_or_none(state_dir, read_staged_pointer)
    record = read_record(state_dir)
    found: dict[str, int] = {}
    for generation in generations_of(active, staged):
        with suppress(FinesightError):
            gallery = read_gallery(gallery_folder(state_dir, generation), verify=False)
            for category in gallery.categories:
                state = read_state(gallery.path(category))
                applied = max(
                    record.generations.get(generation, {}).get(category, 0),
                    *((state.sequence, state.erased_to) if state else (0,)),
                )
                found[category] = min(found.get(category, applied), applied)
    return found


def receipts_json(erasure: Erasure) -> list[dict[str, object]]:
    """Return the receipts for a report."""
    return [asdict(receipt) for receipt in erasure.receipts]
