"""The security floor of a device: the smallest sequence number that a bundle may have, by line.

Rules this module keeps:
1. It is raised only when a release is confirmed, to the value that its signed bundle head has; it never falls.
2. It is kept in two files. What is readable counts; the higher one wins. A device that lost both gets it again when the
   release that it runs is read the next time.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.durable import make_folder, set_aside, write_durably
from edge.errors import SyncError
from gallery_sync.formats.fields import LARGEST_SEQUENCE, Name

log = logging.getLogger(__name__)

NAMES = ("security_floor.copy", "security_floor")  # in the order of writing
_LARGEST_BYTES = 64 << 10

Floor = Annotated[int, Field(strict=True, ge=0, le=LARGEST_SEQUENCE)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    lines: dict[Name, Floor] = {}


def read_security_floor(state_dir: Path, line: str) -> int:
    """Return the security floor of a line; 0: there is none."""
    return _read(state_dir).get(line, 0)


def raise_security_floor(state_dir: Path, line: str, floor: int) -> bool:
    """Raise the security floor of a line to that of a confirmed release; return whether it was lower.

    Raises:
        SyncError: the disk failed.
    """
    known = _read(state_dir)
    if floor <= known.get(line, 0):
        return False
    data = json.dumps({"lines": known | {line: floor}}, sort_keys=True).encode() + b"\n"
    folder = state_dir / "trust"
    try:
        make_folder(folder)
        for name in NAMES:
            set_aside(folder / name)
            write_durably(folder / name, data, mode=0o640)
    except OSError as error:
        raise SyncError(f"{folder}: cannot raise the security floor: {error.strerror or error}") from error
    log.info("this device runs no bundle of line %s with a sequence number below %d any more", line, floor)
    return True


def _read(state_dir: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in NAMES:
        try:
            with (state_dir / "trust" / name).open("rb") as file:
                record = _Record.model_validate_json(file.read(_LARGEST_BYTES))
        except FileNotFoundError:
            continue
        except (OSError, ValidationError, RecursionError):
            log.warning("%s: is damaged; the other copy counts", state_dir / "trust" / name)
            continue
        for line, floor in record.lines.items():
            found[line] = max(floor, found.get(line, 0))
    return found
