"""One device per state folder: two would send each other's events and write into one outbox."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from edge.errors import ConfigError


class StateLock:
    """Held from start to stop; the kernel lets go of it when the process dies, however it does."""

    def __init__(self, state_dir: Path) -> None:
        """Take it.

        Raises:
            ConfigError: another process has it, or the folder cannot be written to.
        """
        path = state_dir / "lock"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise ConfigError(f"{path}: cannot open: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise ConfigError(f"{state_dir}: found another device running on it, expected none") from None

    def release(self) -> None:
        """Let another device start."""
        os.close(self._file)
