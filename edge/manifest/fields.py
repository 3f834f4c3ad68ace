r"""The types of single fields of a manifest and of a gallery index: paths, names, times and bounded numbers.

Rules of a path in a bundle:
1. It has one spelling: relative, forward slashes, Unicode NFC, no empty, `.` or `..` part.
2. It works on every file system: no control character, none of `< > : " | ? * \`, no part that ends in a dot or blank.
3. It is no hidden file and not `bundle.json`, which a bundle's own machinery uses.
4. No two paths of a bundle are one file where upper and lower case are one, and no file is also a folder.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

# the last five: compiled models of Luxonis, Qualcomm, Hailo, Rockchip and Google chips, for plug-ins
_ALLOWED_SUFFIXES = (".bin", ".jpg", ".json", ".npy", ".onnx", ".png", ".blob", ".dlc", ".hef", ".rknn", ".tflite")
_RESERVED = ("bundle.json",)
_MAX_PATH_CHARACTERS, _MAX_PARTS = 200, 8
_UNPORTABLE = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"|?*\\]')
_FORM = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def path_problem(path: str) -> str | None:
    """Return what is wrong with a path inside a bundle folder, and what to do; None if nothing is."""
    parts = path.split("/")
    leaves = path.startswith("/") or ".." in parts or "\\" in path or re.match(r"[A-Za-z]:", path)
    unportable = _UNPORTABLE.search(path)
    problems = (
        (leaves, "leaves the bundle folder; use a relative path inside it"),
        (
            len(path) > _MAX_PATH_CHARACTERS or len(parts) > _MAX_PARTS,
            f"is too long; use at most {_MAX_PATH_CHARACTERS} characters and {_MAX_PARTS} parts",
        ),
        (
            PurePosixPath(path).suffix not in _ALLOWED_SUFFIXES,
            f"has suffix {PurePosixPath(path).suffix!r}; use one of {', '.join(_ALLOWED_SUFFIXES)}",
        ),
        (
            any(not part or part.startswith(".") for part in parts),
            "has an empty part or one that starts with a dot; write it as models/name.onnx",
        ),
        (unportable, f"holds {unportable and unportable.group()!r}; use a character that every file system takes"),
        (any(part.endswith((".", " ")) for part in parts), "has a part that ends in a dot or a blank; remove it"),
        (unicodedata.normalize("NFC", path) != path, "is not in Unicode normal form C; normalise it"),
        (_alike(path) in _RESERVED, "is reserved for the manifest; use another name"),
    )
    return next((problem for found, problem in problems if found), None)


def is_form_file(form: object, path: object) -> bool:
    """Return whether a form and its file have names that a manifest may hold."""
    return (
        isinstance(form, str) and _FORM.fullmatch(form) is not None and isinstance(path, str) and not path_problem(path)
    )


def conflicting_paths(paths: Iterable[str]) -> str | None:
    """Return why paths cannot be in one bundle: two are the same file, or one is a folder of another; None if they can.

    Args:
        paths: each without a problem of its own.
    """
    known: dict[str, str] = {}
    for path in paths:
        if (other := known.get(_alike(path))) is not None:
            return f"{other!r} and {path!r} are one file on some file systems; list each file once"
        known[_alike(path)] = path
    for path in known.values():
        parts = _alike(path).split("/")
        for end in range(1, len(parts)):
            if (folder := known.get("/".join(parts[:end]))) is not None:
                return f"{folder!r} is a file, and {path!r} needs a folder of that name; rename one"
    return None


def _alike(path: str) -> str:
    """Return the same text for all spellings that a file system may take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def _checked_path(path: str) -> str:
    if problem := path_problem(path):
        raise ValueError(f"path {path[:_MAX_PATH_CHARACTERS]!r} {problem}")
    return path


def _text_without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds the character NUL; remove it")
    return text


def _iso_time(text: str) -> str:
    expected = f"found the time {text[:40]!r}, expected one such as 2026-01-31T12:00:00Z"
    if not _TIME.fullmatch(text):
        raise ValueError(expected)
    try:
        datetime.fromisoformat(text[:19] + text[-6:].replace("Z", "+00:00")[-6:])
    except ValueError:
        raise ValueError(expected) from None
    return text


def at_most(entries: int) -> BeforeValidator:
    """Return a check that an object has at most so many entries, before each of them is validated."""

    def check(value: object) -> object:
        if isinstance(value, dict) and len(value) > entries:
            raise ValueError(f"found {len(value)} entries, expected {entries} at most")
        return value

    return BeforeValidator(check)


FormName = Annotated[str, Field(pattern=f"^{_FORM.pattern}$")]  # of a model, such as hailo-hef
RelativePath = Annotated[str, AfterValidator(_checked_path)]
Name = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_text_without_nul)]  # any text
IsoTime = Annotated[str, AfterValidator(_iso_time)]  # ISO 8601 with an offset
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Real = Annotated[float, Field(ge=-1e9, le=1e9)]  # any sane number; never NaN
