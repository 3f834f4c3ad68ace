"""XML files of annotations: decode them by their declaration, read them child by child, write their text."""

from __future__ import annotations

import codecs
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from dataset_formats.notices import printable
from dataset_formats.text_files import BYTE_ORDER_MARKS, is_file
from edge.errors import DataError

_CHUNK_BYTES = 1 << 18
_MAX_CHILD_BYTES = 1 << 24  # of one child of the root, such as a picture with all of its outlines
_MAX_DEPTH = 64
_FAMILIES = (  # how a file begins, and the encoding that reads its declaration
    *BYTE_ORDER_MARKS,
    ("<".encode("utf-32-le"), "utf-32-le"),
    ("<".encode("utf-32-be"), "utf-32-be"),
    ("<".encode("utf-16-le"), "utf-16-le"),
    ("<".encode("utf-16-be"), "utf-16-be"),
    ("<?xm".encode("cp037"), "cp037"),  # EBCDIC
)
_DECLARED = re.compile(r"\ufeff?<\?xml\s[^>]*?\sencoding\s*=\s*[\"']([A-Za-z][A-Za-z0-9._-]*)[\"']")
_HEAD_BYTES = 1 << 16
_PROLOG = {"<?": "?>", "<!--": "-->", "<!DOCTYPE": ">"}  # what may stand before the root
_TAG = re.compile(r"<([^\s<>/!?]+)")
_NO_ENCODINGS = {"unicode-escape", "raw-unicode-escape", "idna", "punycode", "undefined"}  # but Python lists them
_WESTERN = {"iso8859-1", "iso8859-15", "cp1252"}
_NO_XML_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = {"\r": "&#13;", "\n": "&#10;", "\t": "&#9;", '"': "&quot;"}


def read_children(path: Path, root: str) -> Iterator[ET.Element]:
    """Yield the children of the root element; memory is bounded by the largest child, not by the file.

    Args:
        path: the file, in any encoding that it declares.
        root: expected tag of the root element.

    Raises:
        DataError: the file cannot be read, is not XML in its encoding, has another root, declares entities, nests too
            deeply, or has a child of more than 16 MiB. Children before the error have been yielded.
    """
    if _size_bytes(path) <= _CHUNK_BYTES:
        yield from _whole(path, root)
        return
    depth = 0
    top: ET.Element | None = None
    for event, node in _events(path):
        if event == "start":
            depth += 1
            if depth > _MAX_DEPTH:
                raise DataError(f"{path}: nests elements more than {_MAX_DEPTH} deep; give the annotations as exported")
            if top is None:
                top = node
                _check_root(path, node, root)
            continue
        depth -= 1
        if depth == 1 and top is not None:
            yield node
            top.clear()


def _size_bytes(path: Path) -> int:
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot read: {getattr(error, 'strerror', error)}") from error
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait
        raise DataError(f"{path}: cannot read: not a file")
    return found.st_size


def _whole(path: Path, root: str) -> ET.Element:
    """Return the root of a small file: faster than by events."""
    text = "".join(_text(path))
    _check_entities(path, text)
    try:
        parser = ET.XMLParser()  # noqa: S314 files with entities were refused
        parser.feed(text)
        top: ET.Element = parser.close()
    except (ET.ParseError, ValueError) as error:
        raise DataError(f"{path}: not XML: {error}; export the file again") from error
    _check_root(path, top, root)
    return top


def _check_root(path: Path, node: ET.Element, root: str) -> None:
    if node.tag != root:
        raise DataError(f"{path}: its root is <{node.tag:.40}>, expected <{root}>")


def _check_entities(path: Path, head: str) -> None:
    if "<!DOCTYPE" in head and ("<!ENTITY" in head or "<!ATTLIST" in head):
        raise DataError(f"{path}: declares entities of its own, which can fill the memory; remove its DOCTYPE")


def root_tag(path: Path) -> str:
    """Return the tag of the root element, even of a file that breaks later; empty if the file is no XML."""
    if not is_file(path):
        return ""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return ""
    text = head.decode(_family(head) or "latin-1", "ignore")
    while True:
        text = text.lstrip("\ufeff\ufffe \t\r\n")
        end = next((end for start, end in _PROLOG.items() if text.startswith(start)), None)
        if end is None:
            found = _TAG.match(text)
            return found.group(1) if found else ""
        text = text.partition(end)[2]


def _events(path: Path) -> Iterator[tuple[str, ET.Element]]:
    """Yield the start and the end of each element."""
    parser: ET.XMLPullParser[Any] = ET.XMLPullParser(("start", "end"))
    head: str | None = ""  # all that stands before the root element
    depth, pending = 0, 0
    try:
        for text in _text(path):
            if head is not None:
                head += text
                _check_entities(path, head)
            parser.feed(text)
            pending += len(text)
            events: Iterator[tuple[str, ET.Element]] = parser.read_events()  # type: ignore[assignment]
            for event, node in events:
                head = None
                depth += 1 if event == "start" else -1
                pending = 0 if depth <= 1 else pending
                yield event, node
            if pending > _MAX_CHILD_BYTES:
                raise DataError(f"{path}: one element is larger than {_MAX_CHILD_BYTES >> 20} MiB; split the file")
        parser.close()
        yield from parser.read_events()  # type: ignore[misc]
    except (ET.ParseError, ValueError) as error:
        raise DataError(f"{path}: not XML: {error}; export the file again") from error


def _text(path: Path) -> Iterator[str]:
    """Yield the text of a file in pieces, in the encoding that it declares."""
    try:
        with path.open("rb") as file:
            data = file.read(_CHUNK_BYTES)
            if not data.strip():
                raise DataError(f"{path}: is empty; export the file again")
            encoding = _encoding(path, data)
            yield from _decoded(path, encoding, iter(lambda: file.read(_CHUNK_BYTES), b""), data)
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}") from error


def _decoded(path: Path, encoding: str, pieces: Iterator[bytes], data: bytes) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    line, is_ascii = 1, True
    utf8 = codecs.getincrementaldecoder("utf-8")() if codecs.lookup(encoding).name in _WESTERN else None
    while True:
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeError as error:
            start = error.start if isinstance(error, UnicodeDecodeError) else 0
            line += data[:start].decode(encoding, "ignore").count("\n")
            raise DataError(
                f"{path}: not XML in its declared encoding {encoding}: line {line}: {_reason(error)}; save it as UTF-8"
            ) from None
        line += text.count("\n")
        is_ascii = is_ascii and data.isascii()
        try:
            if utf8 is not None:
                utf8.decode(data, final=not data)
        except UnicodeDecodeError:
            utf8 = None
        yield text
        if not data:
            break
        data = next(pieces, b"")
    if utf8 is not None and not is_ascii:
        raise DataError(f"{path}: declares {encoding}, but is UTF-8; correct its declaration")


def _reason(error: UnicodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte 0x{error.object[error.start]:02x}: {error.reason}"
    return str(error)


def _family(head: bytes) -> str:
    return next((name for start, name in _FAMILIES if head.startswith(start)), "")


def _encoding(path: Path, head: bytes) -> str:
    """Return the encoding of a file: what its first bytes say, else what it declares, else UTF-8.

    Raises:
        DataError: the declared encoding is unknown, or contradicts the first bytes.
    """
    family = _family(head)
    found = _DECLARED.match(head[:1024].decode(family or "latin-1", "ignore"))
    if found is None:
        return family or "utf-8"
    declared = found.group(1)
    try:
        known = codecs.lookup(declared).name
        begins = "" if known in _NO_ENCODINGS else head[:64].decode(declared, "ignore").lstrip("\ufeff")
    except (LookupError, UnicodeError):
        known = begins = ""
    if not known or known in _NO_ENCODINGS:
        raise DataError(f"{path}: declares the encoding {declared}, which is unknown; save it as UTF-8")
    if family and known.split("-")[:2] == family.split("-")[:2]:
        return family
    if not begins.startswith("<?xml"):
        raise DataError(f"{path}: declares {declared}, but is {family or 'not'}; correct its declaration")
    return declared


def escaped(text: str, what: str) -> str:
    """Return a text as XML writes it, inside an element or between double quotes.

    Raises:
        DataError: it has a character that XML cannot hold.
    """
    if bad := _NO_XML_TEXT.search(text):
        raise DataError(f"{what} {printable(text)!r}: XML cannot hold {bad.group()!a}; rename it")
    return escape(text, _ESCAPES)


def written(value: float) -> str:
    """Return the shortest text that reads back to the same number."""
    value = float(value)
    return str(int(value)) if value.is_integer() else repr(value)
