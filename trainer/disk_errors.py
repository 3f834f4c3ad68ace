"""Turn disk errors into TrainError."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from edge.errors import TrainError


@contextmanager
def report_disk_errors(what: str, kept: str = "") -> Iterator[None]:
    """Raise TrainError for any OSError of the block, or SQLite's form of one.

    Args:
        what: the step that failed, as the start of the message.
        kept: the data that is still intact, added at the end of the message.

    Raises:
        TrainError: the disk is full, or the path is not writable.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise TrainError(f"{what}: {getattr(error, 'strerror', None) or error}{kept}") from error
