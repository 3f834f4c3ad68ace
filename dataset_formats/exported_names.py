"""Which picture a name of a labelling tool means: a URL, an upload that it renamed, a name without its suffix."""

from __future__ import annotations

import base64
import binascii
import re
from collections import defaultdict
from collections.abc import Iterable
from urllib.parse import parse_qs, unquote

from dataset_formats.picture_names import NameIndex, is_picture_name, parts_of

_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")  # Label Studio puts this before the name of an uploaded file
_PREFIX = 9  # characters of it


def path_in_url(written: str) -> str:
    """Return the path that a URL means; any other text is returned as it is.

    Knows the web, buckets (`s3://`, `gs://`, `azure-blob://`), and Label Studio's own addresses of uploads, of local
    files (`/data/local-files/?d=`) and of files in storage (`?fileuri=`, base64).
    """
    scheme, mark, rest = written.partition("://")
    address = rest if mark else written
    if mark and scheme.lower() not in ("http", "https"):
        return address.partition("/")[2] or address  # a bucket's key is not percent-encoded
    path, _, query = address.partition("?")
    values = parse_qs(query.partition("#")[0], errors="surrogateescape") if query else {}
    if "d" in values:
        return values["d"][-1]
    if "fileuri" in values:
        try:
            code = values["fileuri"][-1].rstrip("=").replace("-", "+").replace("_", "/")
            return path_in_url(base64.b64decode(code + "=" * (-len(code) % 4), validate=True).decode()) or written
        except (binascii.Error, ValueError, RecursionError):
            return written
    if mark:
        path = path.partition("/")[2].partition("#")[0]
    elif not path.startswith("/data/upload/"):
        return written
    return unquote(path, errors="surrogateescape")


def other_spellings(name: str) -> list[str]:
    """Return what else a name may mean, the likeliest first: no query, percent-decoded, without an upload's prefix."""
    path = path_in_url(name)
    plain = path.partition("?")[0]
    plain = plain if is_picture_name(plain) else path
    found = [path, plain, unquote(plain, errors="surrogateescape")]
    found += [one for one in map(_before_upload, (path, found[-1])) if one]
    return [one for one in dict.fromkeys(found) if one and one != name]


class ExportedNames:
    """Known pictures, to be found by the names that labelling tools give them."""

    def __init__(self, known: Iterable[str]) -> None:
        known = list(known)
        self._index = NameIndex(known)
        self._by_upload: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in known:
            if parts := parts_of(name):
                self._by_upload[_as_uploaded(parts[-1])].append(name)
                self._by_stem[_stem(parts[-1])].append(name)

    def match(self, name: str) -> list[str]:
        """Return the known pictures that a name may mean, the best ones only; one is a match."""
        spellings = [name, *other_spellings(name)]
        for spelling in spellings:
            if found := self._index.match(spelling):
                return found
        for spelling in spellings:
            file = parts_of(spelling)[-1] if parts_of(spelling) else ""
            if file and not is_picture_name(file):  # Label Studio's VOC files name pictures without their suffix
                found = self._by_stem.get(file, [])
            else:
                found = self._by_upload.get(_as_uploaded(_before_upload(file)), []) if _before_upload(file) else []
            if found:
                return found
        return []


def _before_upload(path: str) -> str:
    """Return a path without the prefix that an upload put before its file name; empty if it has none."""
    folder, slash, file = path.replace("\\", "/").rpartition("/")
    return folder + slash + file[_PREFIX:] if _UPLOAD.match(file) else ""


def _as_uploaded(file: str) -> str:
    """Return a file name as an upload writes it: Django keeps letters, digits, `-`, `_` and `.`."""
    return re.sub(r"[^-\w.]", "", file.strip().replace(" ", "_"))


def _stem(file: str) -> str:
    return file.rpartition(".")[0]
