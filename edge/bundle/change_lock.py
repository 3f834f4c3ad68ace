"""One lock for everything that changes a state folder's bundles and galleries: pull, install, activate, roll back.

The lock is that of `flock(2)` on the file `change.lock`, so the kernel releases it however its holder ends. A thread
that holds it may take it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.durable import make_folder, set_aside
from edge.errors import BundleError

NAME = "change.lock"
_WAIT_S = 60.0
_POLL_S = 0.05
_held = threading.local()  # by this thread: {folder: how many times}


@contextmanager
def changing(state_dir: Path, what: str, wait_s: float | None = None) -> Iterator[None]:
    """Hold the lock of a state folder, which is created if it does not exist.

    Args:
        state_dir: of the device.
        what: is done meanwhile, such as "installing a bundle"; another process that waits names it.
        wait_s: how long to wait for another holder, in seconds; None: a minute.

    Raises:
        BundleError: another process or thread still holds the lock, or the folder cannot be written.
    """
    folder = str(state_dir.absolute())
    depths: dict[str, int] = _held.__dict__.setdefault("depths", {})
    if folder in depths:
        depths[folder] += 1
        try:
            yield
        finally:
            depths[folder] -= 1
        return
    descriptor = _lock(state_dir, what, time.monotonic() + (_WAIT_S if wait_s is None else wait_s))
    depths[folder] = 1
    try:
        yield
    finally:
        del depths[folder]
        os.close(descriptor)


def _lock(state_dir: Path, what: str, deadline: float) -> int:
    try:
        make_folder(state_dir)
        set_aside(state_dir / NAME)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(state_dir / NAME, flags, 0o640)
    except OSError as error:
        raise BundleError(f"{state_dir}: {what}: disk error: {error.strerror or error}") from error
    try:
        _wait_for(descriptor, state_dir, deadline)
    except BaseException:
        os.close(descriptor)
        raise
    with contextlib.suppress(OSError):  # a full disk; the name is for people only
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} ({what})".encode()[:200], 0)
    return descriptor


def _wait_for(descriptor: int, state_dir: Path, deadline: float) -> None:
    while not _locked(descriptor):
        if time.monotonic() >= deadline:
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace") or "another process"
            raise BundleError(f"{state_dir}: {holder} is at work here; try again when it has ended")
        time.sleep(_POLL_S)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
