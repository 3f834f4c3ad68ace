"""Text files of data sets: decode them, and name the line of a wrong encoding."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from dataset_formats.notices import printable
from edge.durable import write_durably
from edge.errors import DataError, FinesightError

# Errors that code may raise when it reads JSON, XML or YAML of an unexpected structure.
BAD_DATA = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_DEEPEST = 50  # nesting of brackets in YAML
BYTE_ORDER_MARKS = (  # UTF-32 first: its byte order mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class _Texts(yaml.BaseLoader):
    """Builds text, lists and mappings, and refuses a key that is there twice: YAML's parser keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build one mapping."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        key, times = Counter(keys).most_common(1)[0] if keys else ("", 0)
        if times > 1:
            raise ValueError(f"line {node.start_mark.line + 1}: a mapping has the key {key} {times} times; keep one")
        return super().construct_mapping(node, deep)


def read_text(path: Path) -> str:
    """Read a text file: UTF-8, or UTF-8, UTF-16 and UTF-32 with a byte order mark.

    Other encodings are not guessed: a wrong guess would silently rename classes.

    Raises:
        DataError: the file cannot be read, or has another encoding; names the line and how Latin-1 would read it.
    """
    data = read_data(path)
    if data.startswith(b"PK\x03\x04"):
        raise DataError(f"{path}: is a ZIP archive or an Excel workbook; unpack it, or save it as CSV UTF-8")
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data:
        raise DataError(f"{path}: is UTF-16 or UTF-32 without a byte order mark; save it as UTF-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise DataError(f"{path}: is broken {encoding} ({error.reason}); save it as UTF-8") from None
        number = data.count(b"\n", 0, error.start) + 1
        line = data.split(b"\n")[number - 1].strip().decode("latin-1")
        raise DataError(
            f"{path}: line {number}: byte 0x{data[error.start]:02x} is not UTF-8 "
            f"(as Latin-1 the line reads {line[:80]!r}); save the file as UTF-8"
        ) from None


def read_json(path: Path) -> Any:
    """Read a JSON file of any Unicode encoding.

    Raises:
        DataError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {str(error) or 'nested too deeply'}") from error


def yaml_text(tree: dict[str, Any]) -> str:
    """Return values as YAML, keys in the given order."""
    text: str = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False)
    return text


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose values are all text: a class named `no`, `1.0` or `12:30` stays what was written.

    Raises:
        DataError: the file cannot be read, or is not a YAML mapping.
    """
    text = read_text(path)
    try:
        depth = 0  # of brackets: the time to scan grows with its square
        for token in yaml.scan(text):
            if isinstance(token, yaml.AliasToken):  # aliases of aliases fill the memory
                raise DataError(f"{path}: has aliases (*name); write their values out")
            depth += isinstance(token, yaml.FlowSequenceStartToken | yaml.FlowMappingStartToken)
            depth -= isinstance(token, yaml.FlowSequenceEndToken | yaml.FlowMappingEndToken)
            if depth > _DEEPEST:
                raise DataError(f"{path}: not YAML: nested too deeply")
        tree = yaml.load(text, Loader=_Texts)  # noqa: S506 it builds text, lists and mappings only
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split()) or 'nested too deeply'}") from error
    if not isinstance(tree, dict):
        raise DataError(f"{path}: holds a {type(tree).__name__}, expected a mapping with names")
    return tree


def read_data(path: Path, kind: type[FinesightError] = DataError) -> bytes:
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


def write_text(path: Path, text: str, *, durably: bool = False) -> None:
    """Write a text file as UTF-8.

    Args:
        path: the file to replace.
        text: its contents.
        durably: on disk when this returns, or unchanged; into a folder that is there.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        if durably:
            write_durably(path, text.encode())
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
    except (OSError, ValueError) as error:  # ValueError: a name that is not UTF-8
        raise DataError(printable(f"{path}: cannot write: {getattr(error, 'strerror', error)}")) from error


def is_file(path: Path) -> bool:
    """Return whether a path that a data set names is a file; False for a name that no file can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def as_stored(path: Path) -> Path:
    """Return a picture's path, with its suffix in capitals (1.JPG) if the data set has it that way only."""
    capitals = path.with_suffix(path.suffix.upper()) if path.suffix else path
    return path if is_file(path) or not is_file(capitals) else capitals


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
        DataError: see read_text.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def require_file(path: Path, what: str) -> Path:
    """Return a path of a data set after checking that it exists.

    Raises:
        DataError: it does not exist.
    """
    if not path.exists():
        raise DataError(f"{path}: not found; add {what}")
    return path
