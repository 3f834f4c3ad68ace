"""Takes uploaded files into a set: pictures, and zip files of pictures. One bad file spoils no other.

Rules this module keeps:
1. A picture is decoded once before it is stored: what is truncated or damaged is refused with one sentence.
2. A zip file is bounded in files and bytes before and while it is read; nothing in it is written to a name from it.
"""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from console.sets.file_store import FileStore
from console.sets.pictures import Known
from console.sets.reading import DECODING, MAX_PICTURE_BYTES, Looked, decode, look_at, read_file
from console.sets.sets import PictureSet
from dataset_formats.decode import PICTURE_SUFFIXES
from dataset_formats.zip_files import BAD_ZIP, METHODS, open_zip
from edge.errors import DataError, PictureError
from edge.types import Image

Outcome = Literal["added", "known", "refused"]
MAX_ZIP_BYTES = 1 << 30
MAX_ZIP_ENTRIES = 5000
MAX_UNPACKED_BYTES = 4 << 30
_ZIP_START = b"PK\x03\x04"
_TAKEN_AT = re.compile(rb"((?:19|20)\d\d):(\d\d):(\d\d) (\d\d:\d\d:\d\d)\0")  # EXIF's DateTime
_EXIF_BYTES = 65536
_CHECKED_AT = 8  # a JPEG is checked at an eighth of its sides, which reads all of its data


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one file."""

    name: str  # as its sender called it
    outcome: Outcome
    says: str  # one sentence
    picture_id: int | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """Who uploads to which set, and what the names of folders are worth."""

    picture_set: PictureSet
    by: str
    now_s: float
    folders_name_items: bool = False  # category/item/photo.jpg, or item/photo.jpg with the category of the set


def take_upload(store: FileStore, upload: Upload, name: str, path: Path) -> Iterator[Taken]:
    """Take one file: a picture, or a zip file of pictures; yield what became of each picture.

    Raises:
        ConsoleError: the set is gone, or the disk is full; what was yielded before is stored.
    """
    shown = shown_name(name)
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == _ZIP_START
        if is_zip:
            yield from _take_zip(store, upload, shown, path)
            return
        data = read_file(path)
    except PictureError as error:
        yield Taken(shown, "refused", f"{shown}: {error}")
    else:
        yield _take(store, upload, name, data)


def shown_name(name: str) -> str:
    """Return a name from outside for messages: short and printable."""
    text = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in name) or "a file without a name"
    return text if len(text) <= 120 else f"{text[:58]}\N{HORIZONTAL ELLIPSIS}{text[-58:]}"


def check_picture(data: bytes) -> tuple[Looked, Image]:
    """Return hash and size of a picture whose data is whole, and the picture, perhaps at an eighth of its sides.

    Raises:
        PictureError: it is not.
    """
    looked = look_at(data)
    with DECODING:
        decoded = decode(data, lambda *_: _CHECKED_AT)
    return Looked(looked.sha256, looked.size, decoded.width, decoded.height), decoded.image_rgb


def _take(store: FileStore, upload: Upload, name: str, data: bytes) -> Taken:
    shown = shown_name(name)
    try:
        looked, image_rgb = check_picture(data)
    except PictureError as error:
        return Taken(shown, "refused", f"{shown}: {error}")
    one = upload.picture_set
    known, whole = _known(upload, name, data), one.shows == "objects"
    stored = store.store(one.id, one.folder, name, data, looked, upload.now_s, whole=whole, known=known)
    if stored.is_new:
        store.keep_thumbnail(looked.sha256, image_rgb)
        return Taken(shown, "added", f"{shown}: added", stored.picture_id)
    return Taken(shown, "known", f"{shown}: is in the set already, as {stored.name}", stored.picture_id)


def _known(upload: Upload, name: str, data: bytes) -> Known:
    source: dict[str, str] = {"by": upload.by, "file": shown_name(name)}
    if taken := _TAKEN_AT.search(data, 0, _EXIF_BYTES):
        year, month, day, time = (part.decode() for part in taken.groups())
        source["taken"] = f"{year}-{month}-{day} {time}"
    category, item = upload.picture_set.category, None
    folders = [part.strip() for part in re.split(r"[/\\]", name)[:-1] if part.strip(" .") and part.isprintable()]
    if upload.folders_name_items and folders:
        item = folders[-1][:200]
        category = folders[-2][:200] if len(folders) > 1 and category is None else category
    if category is None:
        item = None
    return Known(source, category, item, item)


def _take_zip(store: FileStore, upload: Upload, shown: str, path: Path) -> Iterator[Taken]:
    """Take the pictures of a zip file."""
    try:
        _check_size(path)
        with path.open("rb") as file, open_zip(file, MAX_ZIP_ENTRIES) as packed:
            for info in _listed(packed):
                yield _take_entry(store, upload, packed, info)
    except BAD_ZIP as error:
        yield Taken(shown, "refused", f"{shown}: the zip file is damaged ({type(error).__name__}); upload it again")
    except (PictureError, DataError) as error:
        yield Taken(shown, "refused", f"{shown}: {error}")


def _check_size(path: Path) -> None:
    """Raise PictureError if a zip file is too large."""
    if path.stat().st_size > MAX_ZIP_BYTES:
        raise PictureError("too_large", f"the zip file has more than {MAX_ZIP_BYTES >> 20} MB; send several")


def _listed(packed: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the entries that may be pictures.

    Raises:
        PictureError: there are too many, or they are too large.
    """
    listed = [info for info in packed.infolist() if not info.is_dir() and _may_be_picture(info.filename)]
    if len(packed.infolist()) > MAX_ZIP_ENTRIES:
        raise PictureError("too_large", f"the zip file has more than {MAX_ZIP_ENTRIES} files; send several")
    if sum(info.file_size for info in listed) > MAX_UNPACKED_BYTES:
        raise PictureError(
            "too_large", f"the zip file unpacks to more than {MAX_UNPACKED_BYTES >> 30} GB; send several"
        )
    if not listed:
        raise PictureError("not_a_picture", f"the zip file holds no picture ({', '.join(PICTURE_SUFFIXES)})")
    return listed


def _take_entry(store: FileStore, upload: Upload, packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> Taken:
    shown = shown_name(info.filename)
    problem = _entry_problem(info)
    if problem is None:
        try:
            with packed.open(info) as entry:
                data = _bounded(entry)
        except BAD_ZIP as error:
            problem = f"cannot be unpacked ({type(error).__name__})"
        except PictureError as error:
            problem = str(error)
    if problem is not None:
        return Taken(shown, "refused", f"{shown}: {problem}")
    return _take(store, upload, info.filename, data)


def _entry_problem(info: zipfile.ZipInfo) -> str | None:
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a link, which is not followed"
    if info.flag_bits & 1 or info.compress_type not in METHODS:
        return "is encrypted, or packed in another way than deflate"
    if ".." in re.split(r"[/\\]", info.filename):
        return "its name leads out of the zip file"
    if info.file_size > MAX_PICTURE_BYTES:
        return f"has more than {MAX_PICTURE_BYTES >> 20} MB; make the picture smaller"
    return None


def _bounded(entry: IO[bytes]) -> bytes:
    data = entry.read(MAX_PICTURE_BYTES + 1)
    if len(data) > MAX_PICTURE_BYTES:
        raise PictureError("too_large", f"unpacks to more than {MAX_PICTURE_BYTES >> 20} MB")
    if not data:
        raise PictureError("empty", "the file is empty")
    return data


def _may_be_picture(name: str) -> bool:
    last = re.split(r"[/\\]", name)[-1]
    return last.lower().endswith(PICTURE_SUFFIXES) and not last.startswith(".") and "__MACOSX" not in name
