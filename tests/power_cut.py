"""Simulate a power cut: the n-th call that changes the disk and all later ones fail, and what was not flushed is lost.

POSIX promises that the content of a file survives once the file is flushed, and that its name does once the folder is.
Anything else may or may not reach the disk, so one cut has several images.
"""

from __future__ import annotations

import builtins
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

Image = Literal["torn", "empty", "zeros", "kept", "dropped", "dropped and empty", "last dropped"]
IMAGES: tuple[Image, ...] = ("torn", "empty", "zeros", "kept", "dropped", "dropped and empty", "last dropped")
_CHANGING = ("rename", "replace", "mkdir", "unlink", "rmdir", "fsync", "sendfile", "link")


class PowerCutError(OSError):
    """The simulated power is off."""


@dataclass
class _Entry:
    """A change of a folder that was not flushed yet, and how to take it back."""

    path: str  # that appeared, changed or went
    undo: Callable[[str], None]
    moved_from: str | None = None

    @property
    def folder(self) -> str:
        return str(Path(self.path).parent)


@final
class PowerCut:
    """Cuts the power at the n-th change within the `with` block; `happened` tells whether there were so many.

    Images of what was not flushed: files `torn` in the middle, `empty`, full of `zeros` or `kept`; names `dropped`: all
    changes of folders are lost, or the last one. Files are torn in images that drop names, if not said otherwise.
    """

    def __init__(self, at: int, image: Image = "torn") -> None:
        self.at = at
        self.image = image
        self.calls = 0
        self.happened = False
        self._unflushed: set[str] = set()
        self._entries: list[_Entry] = []
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
            self._lose_content()
            self._lose_entries()

    def _lose_content(self) -> None:
        for name in self._unflushed if self.image != "kept" else ():
            path = Path(name)
            if not path.is_file():
                continue
            size = path.stat().st_size
            os.truncate(path, 0 if "empty" in self.image or self.image == "zeros" else size // 2)
            if self.image == "zeros":  # the size reached the disk, the content did not
                os.truncate(path, size)

    def _lose_entries(self) -> None:
        lost = self._entries if self.image.startswith("dropped") else self._entries[-1:]
        for entry in reversed(lost) if "dropped" in self.image else ():
            entry.undo(entry.path)
            if entry.moved_from is not None:
                for other in self._entries:
                    other.path = _moved(other.path, entry.path, entry.moved_from)

    def _step(self) -> None:
        self.calls += 1
        if self.calls >= self.at:
            self.happened = True
            raise PowerCutError(5, "power cut")

    def _counted(self, name: str) -> Any:
        real = self._real[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            self._step()
            if name in ("fsync", "sendfile") or kwargs.get("dir_fd") is not None:
                answer = real(*args, **kwargs)
                if name == "fsync":
                    self._flushed(str(Path(f"/proc/self/fd/{args[0]}").readlink()))
                return answer
            paths = [
                str(Path(os.fsdecode(path)).absolute()) for path in args[:2] if isinstance(path, (str, bytes, Path))
            ]
            before = _content(paths[-1])
            answer = real(*args, **kwargs)
            if name in ("rename", "replace"):
                self._moved(*paths)
                self._entries.append(_Entry(paths[1], _move_back(paths[0], before), paths[0]))
            else:
                self._entries.append(_Entry(paths[-1], _restore(before)))
            return answer

        return call

    def _flushed(self, path: str) -> None:
        self._unflushed.discard(path)
        self._entries = [entry for entry in self._entries if entry.folder != path]

    def _moved(self, old: str, new: str) -> None:
        self._unflushed = {_moved(name, old, new) for name in self._unflushed}
        for entry in self._entries:
            entry.path = _moved(entry.path, old, new)

    def _open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, (str, Path)) and set(mode) & set("wax+"):
            self._step()
            path = str(Path(file).absolute())
            self._unflushed.add(path)
            if not os.path.lexists(path):
                self._entries.append(_Entry(path, _restore(None)))
        return self._real_open(file, mode, *args, **kwargs)


def _moved(name: str, old: str, new: str) -> str:
    return new + name[len(old) :] if name == old or name.startswith(old + "/") else name


_Content = bytes | tuple[()] | None  # of a file, a folder without its files, nothing


def _content(path: str) -> _Content:
    if Path(path).is_dir():
        return ()
    return Path(path).read_bytes() if Path(path).is_file() else None


def _restore(content: _Content) -> Callable[[str], None]:
    def undo(name: str) -> None:
        path = Path(name)
        if path.is_dir() and content is None:
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
        if content is not None and path.parent.is_dir():
            path.mkdir(exist_ok=True) if content == () else path.write_bytes(content)

    return undo


def _move_back(old: str, replaced: _Content) -> Callable[[str], None]:
    def undo(name: str) -> None:
        if os.path.lexists(name) and Path(old).parent.is_dir():
            shutil.rmtree(old, ignore_errors=True)
            Path(name).rename(old)
        if isinstance(replaced, bytes):
            Path(name).write_bytes(replaced)

    return undo
