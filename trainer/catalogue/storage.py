"""Files in a local folder or in object storage: the door to fsspec, which only URLs need.

Credentials and endpoints follow fsspec's conventions: `~/.config/fsspec`, the environment, the roles of a machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from edge.durable import make_folder, write_durably
from edge.errors import CaptureError, FinesightError, TrainError
from edge.extras import install_command

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LOCAL = "file://"
_MANGLED = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/+")
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}  # fsspec loads them
_Result = TypeVar("_Result")


def is_url(where: str | Path) -> bool:
    """Return whether this is a URL; one of `file://` is, too."""
    return _URL.match(str(where)) is not None


def local_path(where: str | Path) -> Path | None:
    """Return the local path that this names, as a path or a `file://` URL; None for object storage."""
    text = str(where)
    return None if is_url(text.removeprefix(_LOCAL)) else Path(text.removeprefix(_LOCAL))


def url_of(path: Path) -> str:
    """Return the URL that a Path was made from: a Path keeps one of its slashes.

    >>> url_of(Path("s3://bucket/cola/1.jpg"))
    's3://bucket/cola/1.jpg'
    """
    url = _MANGLED.sub(r"\1://", path.as_posix(), count=1)
    return url.replace(_LOCAL, f"{_LOCAL}/", 1) if url.startswith(_LOCAL) else url


def joined(folder: str, name: str) -> str:
    """Return the path or URL of a file in a folder; a name that is a URL stays."""
    return name if is_url(name) else f"{folder.rstrip('/')}/{name}"


def read_picture_bytes(where: str) -> bytes:
    """Return an encoded picture.

    Raises:
        CaptureError: it cannot be read.
    """

    def read() -> bytes:
        if not is_url(where):
            with open(where, "rb") as file:  # noqa: PTH123  a Path takes a tenth of the time of a small picture
                return file.read()
        return bytes(_filesystem(where).cat_file(where))

    return _attempt("read", where, read, CaptureError)


class Folder:
    """A flat folder of finished files: local, or in object storage. A file appears whole or not at all."""

    def __init__(self, where: str | Path) -> None:
        """Name a folder; it need not exist."""
        self.where = str(where).rstrip("/")
        self._local = local_path(self.where)

    def names(self, pattern: str) -> list[str]:
        """Return the names of its files that match a pattern, sorted.

        Raises:
            TrainError: the folder cannot be listed.
        """
        if self._local is not None:
            return sorted(path.name for path in self._local.glob(pattern) if path.is_file())

        def listed() -> list[str]:
            storage = _filesystem(self.where)
            storage.invalidate_cache()
            found = storage.ls(self.where, detail=False) if storage.exists(self.where) else []
            return sorted(name for one in found if fnmatch(name := one.rstrip("/").rpartition("/")[2], pattern))

        return _attempt("list", self.where, listed)

    def read(self, name: str) -> bytes:
        """Return a file.

        Raises:
            TrainError: it is missing or cannot be read.
        """
        where = joined(self.where, name)
        if self._local is not None:
            return _attempt("read", where, (self._local / name).read_bytes)
        return _attempt("read", where, lambda: bytes(_filesystem(where).cat_file(where)))

    def write(self, name: str, data: bytes) -> None:
        """Replace a file.

        Raises:
            TrainError: it cannot be written, or the disk is full.
        """
        where, local = joined(self.where, name), self._local
        if local is None:
            _attempt("write", where, lambda: _filesystem(where).pipe_file(where, data))
            return

        def written() -> None:
            make_folder(local)
            write_durably(local / name, data)

        _attempt("write", where, written)

    def upload(self, path: Path) -> None:
        """Copy a local file into this folder of object storage, in blocks.

        Raises:
            TrainError: it cannot be written.
        """
        where = joined(self.where, path.name)
        _attempt("write", where, lambda: _filesystem(where).put_file(str(path), where))

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            TrainError: it cannot be removed.
        """
        where = joined(self.where, name)
        if self._local is not None:
            file = self._local / name
            _attempt("remove", where, lambda: file.unlink(missing_ok=True))
            return
        _attempt("remove", where, lambda: _filesystem(where).rm_file(where))

    def remove_if_empty(self) -> None:
        """Remove a local folder without files; object storage has no empty folders."""
        if self._local is not None and self._local.is_dir() and not any(self._local.iterdir()):
            _attempt("remove", self.where, self._local.rmdir)


def tree_of(url: str) -> list[str]:
    """Return the paths of all files below a URL, relative to it and sorted.

    Raises:
        TrainError: it cannot be listed, or holds nothing.
    """

    def found() -> list[str]:
        storage = _filesystem(url)
        start = storage._strip_protocol(url).rstrip("/")  # noqa: SLF001  fsspec documents it for this use
        return sorted(path[len(start) :].lstrip("/") for path in storage.find(start))

    names = _attempt("list", url, found)
    if not names:
        raise TrainError(f"{url}: holds no files; check the URL and the credentials")
    return names


def copy_tree(url: str, into: Path) -> Path:
    """Copy all files below a URL into a new local folder.

    Raises:
        TrainError: it cannot be read, or the disk is full.
    """
    for name in tree_of(url):
        path = into / name
        data = Folder(url).read(name)
        Folder(path.parent).write(path.name, data)
    return into


def _attempt(what: str, where: str, act: Callable[[], _Result], kind: type[FinesightError] = TrainError) -> _Result:
    """Return what `act` returns; its errors are raised as one line of the given kind."""
    try:
        return act()
    except TrainError:  # a package is missing
        raise
    except Exception as error:  # each kind of storage raises its own
        why = getattr(error, "strerror", None) or _first_line(error)
        raise kind(f"{where}: cannot {what}: {why}") from error


def _filesystem(url: str) -> Any:
    """Return fsspec's file system for a URL.

    Raises:
        TrainError: a package is missing, or nobody knows the protocol.
    """
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise TrainError(f"{url}: package 'fsspec' is not installed; run: {install_command('scale')}") from error
    protocol = url.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(url)[0]
    except ImportError as error:
        package = _PACKAGES.get(protocol, _first_line(error))
        raise TrainError(f"{url}: fsspec needs one more package for {protocol}://: {package}; install it") from error
    except ValueError as error:
        raise TrainError(f"{url}: {_first_line(error)}; give a folder, or a URL that fsspec knows") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
