"""The permit: another fleet system names the one release that this device may install now.

    <state>/permit.json      {"schema": "finesight.permit/1", "line": "shop", "sequence": 3, "by": "hawkbit", ...}

Where `agent.yaml` says `install: {permit: true}`, the agent downloads, proves and switches to a release only while the
permit names it, see `why_not_permitted`. Urgent deletions need none. Who writes a permit: gallery_sync.adapters.

Rules this module keeps:
1. A permit makes nothing genuine: the release must be signed, and be the one that this device should run.
2. No permit, a damaged one and one for another release are the same: nothing is permitted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edge.durable import fsync_folder, set_aside
from gallery_sync.formats.fields import Document, Name, Sequence
from gallery_sync.state.documents import read_document, write_document
from gallery_sync.transport.errors import StorageError

NAME = "permit.json"
LARGEST_BYTES = 4 << 10


class Permit(Document):
    """Which release may be installed."""

    kind: ClassVar[str] = "permit"

    schema_name: Literal["finesight.permit/1"] = Field(default="finesight.permit/1", alias="schema")
    line: Name
    sequence: Sequence  # of the release
    by: Annotated[str, Field(min_length=1, max_length=40)]  # the fleet system, such as hawkbit
    reference: Annotated[str, Field(max_length=120)] = ""  # its own name for the order, such as action 7
    install: bool = True  # False: it may be downloaded, and waits then


def read_permit(state_dir: Path) -> Permit | None:
    """Return the permit of a device; None: there is none, or it is damaged."""
    return read_document(Permit, state_dir / NAME, LARGEST_BYTES)


def write_permit(state_dir: Path, permit: Permit) -> None:
    """Permit a release, in place of the one that was permitted before.

    Raises:
        StorageError: the disk failed.
    """
    write_document(state_dir / NAME, permit, mode=0o644)


def withdraw_permit(state_dir: Path, by: str | None = None) -> bool:
    """Remove the permit; return whether there was one.

    Args:
        state_dir: of the device.
        by: only a permit of this fleet system, or a damaged one; None: any.

    Raises:
        StorageError: the disk failed.
    """
    path, permit = state_dir / NAME, read_permit(state_dir)
    if permit is not None and by not in (None, permit.by):
        return False
    try:
        set_aside(path)
        path.unlink()
        fsync_folder(state_dir)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(f"{path}: cannot remove: {error.strerror or error}") from error
    return True


def why_not_permitted(permit: Permit | None, line: str, sequence: int, *, download: bool = False) -> str | None:
    """Return why a release may not be installed now, or not even be downloaded; None if it may."""
    if permit is None:
        return f"no permit for release {sequence}: another fleet system decides when it is installed"
    if (permit.line, permit.sequence) != (line, sequence):
        return f"the permit of {permit.by} is for release {permit.sequence} of {permit.line}, not for {sequence}"
    if not permit.install and not download:
        return f"{permit.by} permits to download release {sequence}, and not yet to install it"
    return None
