"""The root of trust of a device: the signed root that it was enrolled with, in two copies.

Rules this module keeps:
1. A root counts once metadata was verified with it. Then both copies are written, if they are not there.
2. Of two copies that differ, the one that the device verified metadata with is taken; damage to one stops nothing.
3. Another root than the device's own is refused: a change of trust is an enrolment.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from edge.durable import make_folder, set_aside, write_durably
from edge.errors import SyncError
from gallery_sync.transport.errors import StorageError

log = logging.getLogger(__name__)

NAMES = ("root.copy", "root")  # in the folder `trust`; in the order of writing
_HISTORY = "metadata/root_history"  # roots that were verified, see gallery_sync.trust
_LARGEST_BYTES = 512_000  # as python-tuf reads it


def trusted_root(state_dir: Path, given: bytes | None = None) -> bytes:
    """Return the root of trust of a device, or a given one if it has none.

    Raises:
        SyncError: it has none and none is given, or it has another one.
        StorageError: it cannot be read.
    """
    trust = state_dir / "trust"
    found = [data for name in NAMES[::-1] if (data := _read(trust / name))]
    if len(set(found)) > 1:
        verified = {_read(path) for path in sorted(trust.glob(f"{_HISTORY}/*.root.json"))} | {given}
        found = sorted(found, key=lambda data: (data not in verified, not _is_root(data)))
        log.warning("%s: the two copies of the root of trust differ; the one that was verified counts", trust)
    elif found and given is not None and not _is_root(found[0]):
        found = [given]
    own = found[0] if found else given
    if own is None:
        raise SyncError(
            f"{trust / 'root'}: this device is not enrolled; enrol it with edge-sync enrol, or give --root FILE once"
        )
    if given is not None and given != own:
        raise SyncError(f"{trust / 'root'}: this device has another root of trust; leave --root out, or enrol it again")
    return own


def keep_root(state_dir: Path, root: bytes) -> None:
    """Keep the root of trust that metadata was verified with.

    Raises:
        OSError: the disk failed.
    """
    for name in NAMES:
        path = state_dir / "trust" / name
        if path.is_symlink() or not path.is_file() or _read(path) != root:
            make_folder(path.parent)
            set_aside(path)
            write_durably(path, root)


def repair_root(state_dir: Path, root: bytes) -> None:
    """Write a damaged copy of the root of trust again, if the other one is whole.

    Raises:
        OSError: the disk failed.
    """
    if any(_read(state_dir / "trust" / name) == root for name in NAMES):
        keep_root(state_dir, root)


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_BYTES) or None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from error


def _is_root(data: bytes) -> bool:
    try:
        return bool(json.loads(data)["signed"]["_type"] == "root")
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
