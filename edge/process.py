"""Set-up of the `edge` process: C library settings, optional packages, and the lock of the state folder."""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import os
from pathlib import Path

from edge.errors import ConfigError

_M_ARENA_MAX = -8  # of mallopt(3), glibc
_HEAPS = 2
_EXTRA_PACKAGES = {"kiosk": ("starlette", "uvicorn")}
INSTALL_COMMANDS = {  # by extra or engine
    "kiosk": 'pip install "finesight[kiosk]"',
    "gstreamer": 'pip install "finesight[gstreamer]"',
    "openvino": 'pip install "finesight[openvino]"',
    "trainer": 'pip install "finesight[trainer]"',
    "quantize": 'pip install "finesight[quantize]"',
    "matting": 'pip install "finesight[matting]"',
    "onnxruntime": "pip install onnxruntime",
    "onnxruntime-cuda": "pip uninstall --yes onnxruntime && pip install onnxruntime-gpu",
    "tensorrt": "pip install tensorrt cuda-python",
}


_SERVER_EXTRAS = {  # extras that bring a package
    **dict.fromkeys(("torch", "torchvision", "timm", "safetensors", "matplotlib", "scipy"), ("trainer",)),
    **dict.fromkeys(("onnx", "tqdm"), ("trainer", "quantize")),
    "pymatting": ("matting",),
}


def bind_unwinder() -> None:
    """Make C++ exceptions unwind through libgcc, whatever is loaded later.

    Debian's GStreamer loads libunwind, which exports the same symbols. Libraries loaded after it bind to those, and
    the first exception thrown in one of them (for a model that ONNX Runtime or OpenVINO rejects) aborts the process.
    """
    try:
        ctypes.CDLL("libgcc_s.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError:  # not a GNU system, so no libunwind either
        return


def limit_heaps() -> bool:
    """Limit glibc to two heaps instead of eight per core; call before starting threads.

    Cameras that reconnect often leave half-empty heaps behind: 18 MiB an hour in benchmarks/soak.py.

    Returns:
        Whether the limit is set; musl has no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, _HEAPS) == 1


def require_extra(extra: str) -> None:
    """Check that the packages of an extra are installed.

    Raises:
        ConfigError: one is missing.
    """
    for package in _EXTRA_PACKAGES[extra]:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{extra}: package {package!r} is not installed; run: {INSTALL_COMMANDS[extra]}")


def install_hint(error: ModuleNotFoundError, preferred_extra: str) -> str | None:
    """Say how to install the package that an import did not find; None if no server extra brings it."""
    package = (error.name or "").partition(".")[0]
    extras = _SERVER_EXTRAS.get(package)
    if extras is None:
        return None
    extra = preferred_extra if preferred_extra in extras else extras[0]
    return f"package {package!r} is not installed; run: {INSTALL_COMMANDS[extra]}"


class StateLock:
    """A lock that lets one process use a state folder; the kernel releases it however the process ends."""

    def __init__(self, state_dir: Path) -> None:
        """Lock the folder.

        Raises:
            ConfigError: another process holds the lock, or the folder cannot be written to.
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
            raise ConfigError(
                f"{state_dir}: another `edge` process uses this folder; stop it or choose another state_dir"
            ) from None

    def release(self) -> None:
        """Unlock the folder."""
        os.close(self._file)
