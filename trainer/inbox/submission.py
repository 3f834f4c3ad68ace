"""Reads one upload: the zip file of a taught item or of an unknown object, or a picture of one. All of it is hostile.

Rules this module keeps:
1. Nothing is extracted to a name from outside. A zip file holds exactly the entries that a device writes, bounded in
   number and in bytes before and while they are read.
2. A picture is one that a device reads: JPEG, PNG or WebP, by its content, whole, and not too large.
3. Of a taught item, only the damaged pictures are left out; anything else that is wrong leaves out the file.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from dataset_formats.zip_files import BAD_ZIP, METHODS, open_zip
from edge.errors import DataError, PictureError, first_validation_error
from edge.imaging.header import detect_format
from edge.kiosk.taught_store import MAX_LABEL_CHARACTERS, MAX_PICTURES, TaughtItem
from edge.recognition.recognise_image import decode_upload
from edge.strict_json import parse_json
from edge.unknowns.record import PICTURE, RECORD, UnknownObject
from trainer.data.duplicates import PerceptualHash, perceptual_hash
from trainer.inbox.listing import InboxFile

Kind = Literal["taught", "unknown"]
MAX_FILE_BYTES = 64 << 20
MAX_ENTRIES = MAX_PICTURES + 4
MAX_ENTRY_BYTES = 20 << 20  # as a kiosk takes for a look-up
MAX_JSON_BYTES = 64 << 10
MIN_SIDE_PX = 16
_MAX_CATEGORY_CHARACTERS = 200
_ITEM = "item.json"
_LOOK = re.compile(r"look-(0|[1-9][0-9]?)\.jpg")
_Record = TypeVar("_Record", TaughtItem, UnknownObject)
_SUFFIX = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture that was checked."""

    data: bytes  # as it came
    suffix: str  # by its content
    sha256: str
    looks: PerceptualHash  # to find pictures that show the same


@dataclass(frozen=True, slots=True)
class Submission:
    """One upload that was checked."""

    kind: Kind
    sha256: str  # of the upload
    record: TaughtItem | UnknownObject | None  # None: only a picture
    pictures: tuple[Picture, ...]  # at least one
    left_out: tuple[str, ...] = ()  # why other pictures cannot be used


def digest_of(file: InboxFile) -> str:
    """Return the hash that an upload is remembered by.

    Raises:
        DataError: it cannot be read.
    """
    return _digest(_contents(file))


def read_submission(file: InboxFile, is_known: Callable[[str], bool] = lambda _: False) -> Submission | None:
    """Read and check an upload; return None if it is known.

    Args:
        file: of the upload.
        is_known: returns whether an upload of this hash was taken.

    Raises:
        DataError: it is not what a device sends; the message is one line, and does not name the file.
    """
    contents = _contents(file)
    sha256 = _digest(contents)
    if is_known(sha256):
        return None
    if file.is_picture and file.record is None:
        return Submission("unknown", sha256, None, (_picture(contents[0], "the file"),))
    entries = {PICTURE: contents[0], RECORD: contents[1]} if file.record else _unpack(contents[0])
    if _ITEM in entries:
        return _taught(sha256, entries)
    if RECORD in entries:
        record = _parse(UnknownObject, entries[RECORD])
        if record.category is not None and (problem := _text_problem(record.category, _MAX_CATEGORY_CHARACTERS)):
            raise DataError(f"category: {problem}")
        picture = _picture(entries.get(PICTURE, b""), PICTURE)
        return Submission("unknown", sha256, record, (picture,))
    raise DataError(f"holds neither {_ITEM} nor {RECORD}")


def _contents(file: InboxFile) -> list[bytes]:
    return [_read(file.path, MAX_FILE_BYTES)] + ([_read(file.record, MAX_JSON_BYTES)] if file.record else [])


def _digest(contents: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()


def _read(path: Path, most: int) -> bytes:
    """Return the content of a regular file; a link that took its place meanwhile is not followed."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as opened:
            about = os.fstat(opened.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise DataError("not a regular file")
            if about.st_size > most:
                raise DataError(f"found {about.st_size} bytes, expected at most {most}")
            data = opened.read(most + 1)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error
    if len(data) > most:
        raise DataError(f"found more than {most} bytes")
    return data


def _unpack(data: bytes) -> dict[str, bytes]:
    """Return the entries of a zip file, by name."""
    entries: dict[str, bytes] = {}
    try:
        with open_zip(io.BytesIO(data), MAX_ENTRIES) as packed:
            listed = packed.infolist()
            if len(listed) > MAX_ENTRIES:
                raise DataError(f"found {len(listed)} entries in the zip file, expected at most {MAX_ENTRIES}")
            if sum(info.file_size for info in listed) > MAX_FILE_BYTES:
                raise DataError(f"found more than {MAX_FILE_BYTES} bytes in the zip file once it is unpacked")
            for info in listed:
                name = info.filename
                if name not in (_ITEM, RECORD, PICTURE) and not _LOOK.fullmatch(name):
                    raise DataError(f"found the entry {name[:80]!r}, which no device writes")
                if name in entries:
                    raise DataError(f"found the entry {name!r} twice")
                most = MAX_JSON_BYTES if name in (_ITEM, RECORD) else MAX_ENTRY_BYTES
                if info.file_size > most:
                    raise DataError(f"found {info.file_size} bytes in {name}, expected at most {most}")
                if info.flag_bits & 1 or info.compress_type not in METHODS:
                    raise DataError(f"{name} is encrypted, or compressed in another way than deflate")
                with packed.open(info) as opened:
                    entries[name] = opened.read(most)
    except BAD_ZIP as error:
        raise DataError(f"not a whole zip file ({type(error).__name__})") from error
    return entries


def _taught(sha256: str, entries: Mapping[str, bytes]) -> Submission:
    item = _parse(TaughtItem, entries[_ITEM])
    if problem := _text_problem(item.label, MAX_LABEL_CHARACTERS):
        raise DataError(f"label: {problem}")
    if item.category is not None and (problem := _text_problem(item.category, _MAX_CATEGORY_CHARACTERS)):
        raise DataError(f"category: {problem}")
    pictures, left_out = [], []
    for name in sorted((name for name in entries if _LOOK.fullmatch(name)), key=lambda name: (len(name), name)):
        try:
            pictures.append(_picture(entries[name], name))
        except DataError as error:
            left_out.append(str(error))
    if not pictures:
        raise DataError(left_out[0] if left_out else "holds no picture")
    return Submission("taught", sha256, item, tuple(pictures), tuple(left_out))


def _parse(kind: type[_Record], data: bytes) -> _Record:
    try:
        return kind.model_validate(parse_json(data, MAX_JSON_BYTES))
    except ValidationError as error:
        raise DataError(f"wrong JSON: {first_validation_error(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"wrong JSON: {error}") from error


def _picture(data: bytes, name: str) -> Picture:
    try:
        decoded = decode_upload(data)
    except PictureError as error:
        raise DataError(f"{name}: {error}") from error
    height, width = decoded.image_rgb.shape[:2]
    if min(height, width) < MIN_SIDE_PX:
        raise DataError(f"{name}: found {width}x{height} pixels, expected at least {MIN_SIDE_PX} each way")
    suffix = _SUFFIX[detect_format(data) or "jpeg"]
    return Picture(data, suffix, hashlib.sha256(data).hexdigest(), perceptual_hash(decoded.image_rgb))


def _text_problem(text: str, most: int) -> str | None:
    if not text.strip() or len(text) > most:
        return f"found {len(text)} characters, expected 1 to {most}"
    return None if text.isprintable() else "found characters that cannot be printed"
