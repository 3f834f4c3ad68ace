"""Simulate a power cut: the n-th call that changes the disk and all later ones fail, and unflushed files are torn."""

from __future__ import annotations

import builtins
import io
import os
from pathlib import Path
from typing import Any, final

_CHANGING = ("rename", "replace", "mkdir", "unlink", "rmdir", "fsync", "sendfile", "link")


class PowerCutError(OSError):
    """The simulated power is off."""


@final
class PowerCut:
    """Cuts the power at the n-th change within the `with` block; `happened` tells whether there were so many."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.calls = 0
        self.happened = False
        self._unflushed: set[str] = set()
        self._real = {name: getattr(os, name) for name in _CHANGING}
        self._real_open = io.open

    def __enter__(self) -> PowerCut:
        for name in _CHANGING:
            setattr(os, name, self._counted(name))
        io.open = builtins.open = self._open
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)
        io.open = builtins.open = self._real_open
        if self.happened:
            for name in self._unflushed:
                if (path := Path(name)).is_file():
                    os.truncate(path, path.stat().st_size // 2)

    def _step(self) -> None:
        self.calls += 1
        if self.calls >= self.at:
            self.happened = True
            raise PowerCutError(5, "power cut")

    def _counted(self, name: str) -> Any:
        real = self._real[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            self._step()
            answer = real(*args, **kwargs)
            if name == "fsync":
                self._unflushed.discard(str(Path(f"/proc/self/fd/{args[0]}").readlink()))
            elif name in ("rename", "replace"):
                self._moved(str(Path(args[0]).absolute()), str(Path(args[1]).absolute()))
            return answer

        return call

    def _moved(self, old: str, new: str) -> None:
        self._unflushed = {new + name[len(old) :] if name.startswith(old) else name for name in self._unflushed}

    def _open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, (str, Path)) and set(mode) & set("wax+"):
            self._step()
            self._unflushed.add(str(Path(file).absolute()))
        return self._real_open(file, mode, *args, **kwargs)
