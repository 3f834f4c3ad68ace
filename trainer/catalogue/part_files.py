"""Part files: what a run has embedded so far, so that a run that was killed goes on where it was.

Rules this module keeps:
1. A part is written whole and never changed. Its name is its hash, so that the same part written twice is one file.
2. A part ends with the SHA-256 of all before. A damaged one is removed, counted, and its items are embedded again. One
   that cannot be read is an error and stays: it may be whole.
3. An item's record is found by its key, a hash of everything that its vectors depend on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.errors import TrainError
from edge.types import FloatArray
from trainer.catalogue.storage import Folder

log = logging.getLogger(__name__)

_MAGIC = b"FSPART1\n"
_LENGTH = struct.Struct("<Q")
_DIGEST_BYTES = 32
PATTERN = "part-*.bin"


@dataclass(frozen=True, slots=True)
class Record:
    """What one item adds to a gallery."""

    key: str  # hash of all that it depends on
    category: str
    item_id: str
    label: str
    negative: bool
    pictures: int  # that could be read
    skipped: tuple[str, ...]  # why each other picture was not
    vectors: FloatArray  # (n, dim) float32, rows of unit length; (0, 0) if no picture could be read
    thumbnail: bytes = b""
    silhouettes: bytes = b""
    attributes: tuple[tuple[str, str], ...] = ()  # name and value, such as colour red

    @property
    def order(self) -> tuple[str, str]:
        """By which the items of a gallery are sorted."""
        return self.category, self.item_id


@dataclass(frozen=True, slots=True)
class PartEntry:
    """A part file, and which of its records a shard uses."""

    name: str
    sha256: str
    use: list[int]  # numbers of its records, in the order of the gallery
    first: tuple[str, str]  # category and id of the first of them


@dataclass(frozen=True, slots=True)
class WrittenPart:
    """A part file that was written."""

    name: str
    sha256: str
    records: list[tuple[tuple[str, str], str]]  # category and id, and key of each

    @classmethod
    def of(cls, name: str, sha256: str, records: Sequence[Record]) -> WrittenPart:
        """Name the records of a part."""
        return cls(name, sha256, [(record.order, record.key) for record in records])


@dataclass(slots=True)
class KnownRecords:
    """The records that earlier runs left in a folder."""

    found: dict[tuple[str, str], dict[str, tuple[str, int]]] = field(default_factory=dict)  # item: key: part, number
    sha256: dict[str, str] = field(default_factory=dict)  # of each part
    damaged: int = 0  # parts that were removed

    def keys(self, order: tuple[str, str]) -> frozenset[str]:
        """Return the keys of the records of an item."""
        return frozenset(self.found.get(order, ()))

    def add(self, part: WrittenPart) -> None:
        """Add the records of a part."""
        self.sha256[part.name] = part.sha256
        for number, (order, key) in enumerate(part.records):
            self.found.setdefault(order, {})[key] = (part.name, number)


def write_part(folder: Folder, records: Sequence[Record]) -> WrittenPart:
    """Write a part file.

    Raises:
        TrainError: it cannot be written.
    """
    header = json.dumps({"records": [_describe(record) for record in records]}).encode()
    blobs = [part for one in records for part in (one.vectors.astype("<f4").tobytes(), one.thumbnail, one.silhouettes)]
    data = b"".join([_MAGIC, _LENGTH.pack(len(header)), header, *blobs])
    digest = hashlib.sha256(data)
    name = f"part-{digest.hexdigest()[:24]}.bin"
    folder.write(name, data + digest.digest())
    return WrittenPart.of(name, digest.hexdigest(), records)


def read_part(folder: Folder, name: str) -> tuple[list[Record], str]:
    """Return the records of a part file, and its SHA-256.

    Raises:
        TrainError: it is missing or damaged.
    """
    if (found := _open_part(folder, name)) is None:
        raise TrainError(f"{folder.where}/{name}: is damaged; embed this shard again")
    return found


def read_known(folder: Folder) -> KnownRecords:
    """Return the records of all parts in a folder; a damaged part is removed and counted.

    Raises:
        TrainError: the folder or a part cannot be read.
    """
    known = KnownRecords()
    for name in folder.names(PATTERN):
        if (found := _open_part(folder, name)) is None:
            log.warning("%s/%s: is damaged; its items are embedded again", folder.where, name)
            folder.remove(name)
            known.damaged += 1
            continue
        records, sha256 = found
        known.add(WrittenPart.of(name, sha256, records))
    return known


def _open_part(folder: Folder, name: str) -> tuple[list[Record], str] | None:
    """Return the records of a part file, and its SHA-256; None if it is damaged.

    Raises:
        TrainError: it is missing or cannot be read.
    """
    data = folder.read(name)
    digest = hashlib.sha256(memoryview(data)[:-_DIGEST_BYTES]).digest()
    if not data.startswith(_MAGIC) or data[-_DIGEST_BYTES:] != digest:
        return None
    return list(_records(data)), digest.hex()


def _describe(record: Record) -> dict[str, object]:
    return {
        "key": record.key,
        "category": record.category,
        "item_id": record.item_id,
        "label": record.label,
        "negative": record.negative,
        "pictures": record.pictures,
        "skipped": record.skipped,
        "shape": record.vectors.shape,
        "bytes": [len(record.thumbnail), len(record.silhouettes)],
        **({"attributes": record.attributes} if record.attributes else {}),
    }


def _records(data: bytes) -> Iterator[Record]:
    """Yield the records of a part whose hash is right."""
    (length,) = _LENGTH.unpack_from(data, len(_MAGIC))
    at = len(_MAGIC) + _LENGTH.size
    header = json.loads(data[at : at + length])
    at += length
    for one in header["records"]:
        rows, dim = one["shape"]
        vectors = np.frombuffer(data, "<f4", rows * dim, at).reshape(rows, dim).astype(np.float32)
        at += vectors.nbytes
        blobs = []
        for size in one["bytes"]:
            blobs.append(data[at : at + size])
            at += size
        thumbnail, silhouettes = blobs
        yield Record(
            one["key"],
            one["category"],
            one["item_id"],
            one["label"],
            one["negative"],
            one["pictures"],
            tuple(one["skipped"]),
            vectors,
            thumbnail,
            silhouettes,
            tuple((name, value) for name, value in one.get("attributes", ())),
        )
