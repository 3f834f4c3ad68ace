"""Names of uploaded files: safe on every system, and with a hash where another picture has the name."""

from __future__ import annotations

import re
import unicodedata

from edge.file_names import hashed_file_name

_DEEPEST = 4  # folders of an uploaded name that are kept
_LONGEST = 80  # characters of one part of a file name
_FORBIDDEN = re.compile(r'[<>:"|?*\\/]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_SUFFIXES = {
    ".jpg": (".jpg", ".jpeg"), ".png": (".png",), ".webp": (".webp",), ".gif": (".gif",), ".bmp": (".bmp",),
    ".tif": (".tif", ".tiff"), ".ppm": (".ppm",), ".heic": (".heic", ".heif", ".hif"), ".avif": (".avif",),
}  # fmt: skip
_HASH_DIGITS = (8, 32)  # that tell files of one name apart
_WITH_HASH = re.compile(r"(?P<stem>.+)~(?P<hash>[0-9a-f]{8}|[0-9a-f]{32})(?P<suffix>\.[^./~]+)?", re.DOTALL)


def safe_name(name: str, suffix: str) -> str:
    """Return a file name that every system takes, with at most four folders, for a name from outside.

    >>> safe_name("../../shoes/CON.jpg", ".jpg")
    'shoes/_CON.jpg'

    Args:
        name: anything.
        suffix: of the content; the name keeps its own if that is of the same format.
    """
    parts = [part for part in re.split(r"[/\\]", name[-4000:]) if part.strip(" .")]
    *folders, last = [_safe_part(part) for part in parts[-1 - _DEEPEST :]] or ["picture"]
    if not last.lower().endswith(_SUFFIXES.get(suffix, (suffix,))):
        last += suffix
    return "/".join([*folders, last])


def names_with_hash(name: str, sha256: str) -> list[str]:
    """Return further names for a file whose name is taken: with a few digits of its hash, then with more.

    >>> names_with_hash("shelf.png", "0123456789abcdef" * 4)
    ['shelf~01234567.png', 'shelf~0123456789abcdef0123456789abcdef.png']
    """
    stem, dot, suffix = name.rpartition(".")
    return [f"{stem}~{sha256[:count]}{dot}{suffix}" for count in _HASH_DIGITS]


def split_hash(name: str) -> tuple[str, str]:
    """Return a name without what looks like a hash in it, and that hash; empty if there is none.

    >>> split_hash("shelf~01234567.png")
    ('shelf.png', '01234567')
    """
    parts = _WITH_HASH.fullmatch(name)
    return (f"{parts['stem']}{parts['suffix'] or ''}", parts["hash"]) if parts else (name, "")


def _safe_part(part: str) -> str:
    text = unicodedata.normalize("NFC", "".join(one if one.isprintable() else "_" for one in part))
    text = _FORBIDDEN.sub("_", text).strip(" .") or "_"
    if _RESERVED.fullmatch(text):
        text = f"_{text}"
    if len(text) > _LONGEST or len(text.encode()) > 2 * _LONGEST:
        stem, dot, suffix = text.rpartition(".")
        text = f"{hashed_file_name(stem or suffix)}{dot}{suffix}" if len(suffix) <= 5 else hashed_file_name(text)
    return text
