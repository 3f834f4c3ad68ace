"""The small files that name a pair of bundle slot and gallery generation: `current` serves, `staged` waits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.durable import write_durably
from edge.errors import BundleError


class Current(BaseModel):
    """A pair, and the one that served before it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    slot: Literal["a", "b"]
    bundle_id: str
    gallery: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]  # generation
    previous: Current | None = None


def current(state_dir: Path) -> Current | None:
    """Read which pair serves, None on a device that never activated one.

    Raises:
        BundleError: the file is damaged.
    """
    return _read(state_dir / "current")


def staged(state_dir: Path) -> Current | None:
    """Read which pair waits to be activated.

    Raises:
        BundleError: the file is damaged.
    """
    return _read(state_dir / "staged")


def write_current(state_dir: Path, pointer: Current) -> None:
    """Switch, and let nothing wait any more.

    Raises:
        OSError: the disk refused.
    """
    _write(state_dir / "current", pointer)
    (state_dir / "staged").unlink(missing_ok=True)


def write_staged(state_dir: Path, pointer: Current) -> None:
    """Let a pair wait.

    Raises:
        OSError: the disk refused.
    """
    _write(state_dir / "staged", pointer)


def _read(path: Path) -> Current | None:
    try:
        return Current.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise BundleError(f"{path}: found a damaged pointer, expected slot, bundle_id and gallery as JSON") from error


def _write(path: Path, pointer: Current) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, pointer.model_dump_json(indent=1).encode() + b"\n")
