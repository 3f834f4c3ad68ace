"""The pointer files that name a bundle slot and a gallery generation: `current` is active, `staged` is next.

`current.copy` is a copy of `current`, so that damage to one file does not lose which pair is active.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.bundle.layout import ACTIVE, ACTIVE_COPY, STAGED
from edge.durable import write_durably
from edge.errors import BundleError

log = logging.getLogger(__name__)


class ReleaseName(BaseModel):
    """The release of a repository that a bundle and gallery were pulled as."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    line: Annotated[str, Field(max_length=80)]
    sequence: Annotated[int, Field(ge=0, lt=2**53)]


class ActivePointer(BaseModel):
    """The active or staged bundle slot and gallery generation, and those that were active before."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    slot: Literal["a", "b"]
    bundle_id: str
    gallery: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]  # generation
    release: ReleaseName | None = None  # None: installed from folders
    previous: ActivePointer | None = None


def read_active_pointer(state_dir: Path) -> ActivePointer | None:
    """Read the pointer to the active bundle and gallery; None if none was ever activated.

    A missing or damaged `current` is read from its copy.

    Raises:
        BundleError: the file is damaged, and so is its copy.
    """
    try:
        pointer = _read(state_dir / ACTIVE)
    except BundleError:
        if (pointer := _read_copy(state_dir)) is None:
            raise
        return pointer
    return pointer or _read_copy(state_dir)


def read_staged_pointer(state_dir: Path) -> ActivePointer | None:
    """Read the pointer to the bundle and gallery that wait to be activated; None if nothing is staged.

    Raises:
        BundleError: the file is damaged.
    """
    return _read(state_dir / STAGED)


def write_active_pointer(state_dir: Path, pointer: ActivePointer) -> None:
    """Make a bundle and gallery active, and clear what was staged.

    Raises:
        OSError: the file cannot be written.
    """
    _write(state_dir / ACTIVE, pointer)
    _write(state_dir / ACTIVE_COPY, pointer)
    (state_dir / STAGED).unlink(missing_ok=True)


def write_staged_pointer(state_dir: Path, pointer: ActivePointer) -> None:
    """Stage a bundle and gallery for activation.

    Raises:
        OSError: the file cannot be written.
    """
    _write(state_dir / STAGED, pointer)


def repair_active_pointer(state_dir: Path, serving: ActivePointer) -> None:
    """Write a damaged or missing `current`, or its copy, from the other one; if both are damaged, from what serves.

    A device on which nothing was ever activated stays so.

    Raises:
        OSError: the file cannot be written.
    """
    found = {}
    for name in (ACTIVE, ACTIVE_COPY):
        try:
            found[name] = _read(state_dir / name)
        except BundleError:
            found[name] = None
    readable = found[ACTIVE] or found[ACTIVE_COPY]
    exists = any(os.path.lexists(state_dir / name) for name in found)
    for name in [name for name, pointer in found.items() if pointer is None] if exists else []:
        log.warning("%s: damaged or missing; writing it again", state_dir / name)
        _write(state_dir / name, readable or serving)


def edge_command(verb: str, state_dir: Path) -> str:
    """Return a command line for the device of a state folder, ready to paste."""
    return f"edge {verb} --state-dir {shlex.quote(str(state_dir))}"


def _read_copy(state_dir: Path) -> ActivePointer | None:
    try:
        return _read(state_dir / ACTIVE_COPY)
    except BundleError:
        return None


def _read(path: Path) -> ActivePointer | None:
    try:
        return ActivePointer.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, RecursionError) as error:
        repair = edge_command("bundle activate BUNDLE --gallery GENERATION", path.parent)
        raise BundleError(f"{path}: damaged pointer file; repair it: {repair}") from error


def _write(path: Path, pointer: ActivePointer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():  # a damaged folder; a file cannot replace it
        path.rename(path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}"))
    write_durably(path, pointer.model_dump_json(indent=1).encode() + b"\n")
