"""Text files of data sets: decode them, and name the line of a wrong encoding."""

from __future__ import annotations

import codecs
from pathlib import Path

from edge.errors import FinesightError, TrainError

# Errors that code may raise when it reads JSON, XML or YAML of an unexpected structure.
BAD_DATA = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_MARKS = (  # UTF-32 first: its byte order mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path) -> str:
    """Read a text file: UTF-8, or UTF-8, UTF-16 and UTF-32 with a byte order mark.

    Other encodings are not guessed: a wrong guess would silently rename classes.

    Raises:
        TrainError: the file cannot be read, or has another encoding; names the line and how Latin-1 would read it.
    """
    data = read_data(path)
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data:
        raise TrainError(f"{path}: is UTF-16 or UTF-32 without a byte order mark; save it as UTF-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise TrainError(f"{path}: is broken {encoding} ({error.reason}); save it as UTF-8") from None
        number = data.count(b"\n", 0, error.start) + 1
        line = data.splitlines()[number - 1].strip().decode("latin-1")
        raise TrainError(
            f"{path}: line {number}: byte 0x{data[error.start]:02x} is not UTF-8 "
            f"(as Latin-1 the line reads {line[:80]!r}); save the file as UTF-8"
        ) from None


def read_data(path: Path, kind: type[FinesightError] = TrainError) -> bytes:
    """Read a file.

    Args:
        path: the file.
        kind: class of the error to raise.

    Raises:
        FinesightError: it cannot be read; of the given class.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise kind(f"{path}: cannot read: {error.strerror}") from error
    except ValueError as error:  # a name with a NUL, or one that the file system cannot encode
        raise kind(f"{path}: cannot read: {error}") from error


def is_file(path: Path) -> bool:
    """Return whether a path that a data set names is a file; False for a name that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def exists(path: Path) -> bool:
    """Return whether a path that a data set names exists; False for a name that no file can have."""
    try:
        return path.exists()
    except OSError:
        return False


def as_text(value: object) -> str:
    """Return the value if it is text.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not text")
    return value


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not blank, stripped.

    Raises:
        TrainError: see read_text.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def require_file(path: Path, what: str) -> Path:
    """Return a path of a data set after checking that it exists.

    Raises:
        TrainError: it does not exist.
    """
    if not path.exists():
        raise TrainError(f"{path}: not found; add {what}")
    return path
