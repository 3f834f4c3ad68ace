"""Small documents in the state folder of a device, each a file of its own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

from edge.durable import make_folder, set_aside, write_durably
from edge.errors import SyncError
from gallery_sync.formats.fields import Document, canonical_json, parse
from gallery_sync.fresh_files import read_regular
from gallery_sync.transport.errors import StorageError

log = logging.getLogger(__name__)

_Kind = TypeVar("_Kind", bound=Document)


def read_document(kind: type[_Kind], path: Path, most_bytes: int) -> _Kind | None:
    """Return a document; None: there is none, or it is damaged, which is logged."""
    try:
        data = read_regular(path, most_bytes)
        if len(data) <= most_bytes:
            return parse(kind, data, str(path))
        log.warning("%s: is ignored: it has more than %s bytes", path, most_bytes)
    except FileNotFoundError:
        return None
    except (OSError, SyncError) as error:
        log.warning("%s: is ignored: %s", path, error)
    return None


def write_document(path: Path, document: Document, mode: int = 0o640) -> None:
    """Write a document durably, in place of the one before.

    Raises:
        StorageError: the disk failed.
    """
    try:
        make_folder(path.parent)
        set_aside(path)
        write_durably(path, canonical_json(document) + b"\n", mode=mode)
    except OSError as error:
        raise StorageError(f"{path}: cannot write: {error.strerror or error}") from error
