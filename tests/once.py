"""What is made once in a test run, for all its workers."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

FOLDER_OF_THE_RUN = "FINESIGHT_TEST_RUN"  # an environment variable, which workers inherit


def once(name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that only the first worker that asks for it makes; the others wait, then read it.

    Args:
        name: of the folder, within the test run.
        make: fills the folder that it is given, which does not exist yet. Where the folder is moved to is not known.
    """
    folder = Path(os.environ[FOLDER_OF_THE_RUN]) / name
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            part = folder.with_name(f"{name}.part")  # of a worker that failed
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(folder)
    return folder
