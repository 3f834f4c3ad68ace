"""The pointer files that name a bundle slot and a gallery generation: `current` is active, `staged` is next.

`current.copy` is a copy of `current`, so that damage to one file does not lose which pair is active. A pair that is
active on trial is confirmed or rolled back later; until then `previous` is the pair to go back to.
"""

from __future__ import annotations

import logging
import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.bundle.change_lock import changing
from edge.bundle.layout import ACTIVE, ACTIVE_COPY, STAGED
from edge.durable import make_folder, set_aside, write_durably
from edge.errors import BundleError

log = logging.getLogger(__name__)


class ReleaseName(BaseModel):
    """The release of a repository that a bundle and gallery were pulled as."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    line: Annotated[str, Field(max_length=80)]
    sequence: Annotated[int, Field(ge=0, lt=2**53)]
    gallery_sequence: Annotated[int, Field(ge=0, lt=2**53)] | None = None  # None: the repository counted none


TrialId = Annotated[str, Field(pattern=r"^[0-9A-Za-z._-]{1,80}$")]


class ActivePointer(BaseModel):
    """The active or staged bundle slot and gallery generation, and those that were active before."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    slot: Literal["a", "b"]
    bundle_id: str
    gallery: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]  # generation
    release: ReleaseName | None = None  # None: installed from folders
    trial: TrialId | None = None  # that decides whether the pair stays; None: confirmed, or activated by a person
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
        if (pointer := _read_or_none(state_dir, ACTIVE_COPY)) is None:
            raise
        return pointer
    return pointer or _read_or_none(state_dir, ACTIVE_COPY)


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
    rename_active_pointer(state_dir, pointer)
    (state_dir / STAGED).unlink(missing_ok=True)


def rename_active_pointer(state_dir: Path, pointer: ActivePointer) -> None:
    """Write another name or trial of what is active; what was staged stays.

    Raises:
        OSError: the file cannot be written.
    """
    _write(state_dir / ACTIVE, pointer)
    _write(state_dir / ACTIVE_COPY, pointer)


def write_staged_pointer(state_dir: Path, pointer: ActivePointer) -> None:
    """Stage a bundle and gallery for activation.

    Raises:
        OSError: the file cannot be written.
    """
    _write(state_dir / STAGED, pointer)


def repair_active_pointer(state_dir: Path, serving: ActivePointer | None) -> list[Path]:
    """Write a damaged or missing `current`, or its copy, from the other one; if both are damaged, from what serves.

    A copy that differs, as after a power cut between the two, is written again, too.
    A device on which nothing was ever activated stays so.

    Args:
        state_dir: of the device.
        serving: what serves; None: nothing does.

    Returns:
        the files that were written.

    Raises:
        BundleError: another process changes the state folder.
        OSError: a file cannot be written.
    """
    if not _damaged(state_dir):  # a disk that cannot be written needs no lock then
        return []
    with changing(state_dir, "repairing the pointer", wait_s=0.0):
        pointer, damaged = _read_or_none(state_dir, ACTIVE) or _read_or_none(state_dir, ACTIVE_COPY) or serving, []
        if pointer is not None:
            damaged = _damaged(state_dir)
            for path in damaged:
                log.warning("%s: damaged, missing or out of date; writing it again", path)
                _write(path, pointer)
        return damaged


def _damaged(state_dir: Path) -> list[Path]:
    """Return which of the two files cannot be read, if there is any; the copy also where it differs."""
    paths = [state_dir / name for name in (ACTIVE, ACTIVE_COPY)]
    if not any(os.path.lexists(path) for path in paths):
        return []
    pointer, copy = (_read_or_none(state_dir, path.name) for path in paths)
    found = [path for path, read in zip(paths, (pointer, copy), strict=True) if read is None]
    return found or ([] if pointer == copy else [paths[1]])


def edge_command(verb: str, state_dir: Path) -> str:
    """Return a command line for the device of a state folder, ready to paste."""
    return f"edge {verb} --state-dir {shlex.quote(str(state_dir))}"


def _read_or_none(state_dir: Path, name: str) -> ActivePointer | None:
    try:
        return _read(state_dir / name)
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
    make_folder(path.parent)
    set_aside(path)  # a file cannot replace a folder
    write_durably(path, pointer.model_dump_json(indent=1).encode() + b"\n")
