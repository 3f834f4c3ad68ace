"""Keep freed memory in the process: glibc's habit of giving it back costs training a fifth of its time."""

from __future__ import annotations

import ctypes
import sys

# malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Stop malloc from returning memory to the kernel after every step, which then faults it in again page by page.

    Measured on a training step of mobilenetv2_100 at 144 px, batch 32, one thread: 1.10 s user and 0.25 s system time
    before, 1.05 s and 0.02 s after.

    Returns:
        whether this C library has the switch.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_M_TOP_PAD, 256 * 2**20))
