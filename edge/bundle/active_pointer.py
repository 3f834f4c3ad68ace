"""The pointer files that name a bundle slot and a gallery generation: `current` is active, `staged` is next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.durable import write_durably
from edge.errors import BundleError


class ActivePointer(BaseModel):
    """The active or staged bundle slot and gallery generation, and those that were active before."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    slot: Literal["a", "b"]
    bundle_id: str
    gallery: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]  # generation
    previous: ActivePointer | None = None


def read_active_pointer(state_dir: Path) -> ActivePointer | None:
    """Read the pointer to the active bundle and gallery; None if none was ever activated.

    Raises:
        BundleError: the file is damaged.
    """
    return _read(state_dir / "current")


def read_staged_pointer(state_dir: Path) -> ActivePointer | None:
    """Read the pointer to the bundle and gallery that wait to be activated; None if nothing is staged.

    Raises:
        BundleError: the file is damaged.
    """
    return _read(state_dir / "staged")


def write_active_pointer(state_dir: Path, pointer: ActivePointer) -> None:
    """Make a bundle and gallery active, and clear what was staged.

    Raises:
        OSError: the file cannot be written.
    """
    _write(state_dir / "current", pointer)
    (state_dir / "staged").unlink(missing_ok=True)


def write_staged_pointer(state_dir: Path, pointer: ActivePointer) -> None:
    """Stage a bundle and gallery for activation.

    Raises:
        OSError: the file cannot be written.
    """
    _write(state_dir / "staged", pointer)


def edge_command(verb: str, state_dir: Path) -> str:
    """Return a command line for the device of a state folder, ready to paste."""
    return f"edge {verb} --state-dir {shlex.quote(str(state_dir))}"


def _read(path: Path) -> ActivePointer | None:
    try:
        return ActivePointer.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        repair = edge_command("bundle activate BUNDLE --gallery GENERATION", path.parent)
        raise BundleError(f"{path}: damaged pointer file; repair it: {repair}") from error


def _write(path: Path, pointer: ActivePointer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, pointer.model_dump_json(indent=1).encode() + b"\n")
