"""What the disk refuses to a training run, as our error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edge.errors import TrainError


@contextmanager
def refusing(what: str, kept: str = "") -> Iterator[None]:
    """Name the thing that could not be written.

    Raises:
        TrainError: the disk refused: it is full, or not ours to write to.
    """
    try:
        yield
    except OSError as error:
        raise TrainError(f"{what}: the disk refused: {error.strerror or error}{kept}") from error
