"""What was taken from an inbox, shown of it, and decided on it: files of JSON lines in the folder of the review.

Rules this module keeps:
1. An upload is taken once: its hash is remembered for good. Nothing here is forgotten or deleted.
2. A file is replaced whole, so that a command that is killed leaves what was there before it, or all of it.
3. Only the newest revision of a taught item counts. An id belongs to the device that taught it first.
4. A decision is about what somebody saw. It ends when the kiosk sends other pictures, or other words, for the item.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.durable import make_folder, write_durably
from edge.errors import DataError, first_validation_error
from trainer.data.duplicates import PerceptualHash

TAKEN_FILE, SHOWN_FILE, DECISIONS_FILE = "taken.jsonl", "shown.jsonl", "decisions.jsonl"
PICTURES = "pictures"
_LINE = TypeVar("_LINE", bound=BaseModel)
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Proposal(_Document):
    """An item that a picture may show."""

    category: str
    item: str
    label: str
    score: float  # cosine similarity


class Taken(_Document):
    """One upload that was taken."""

    sha256: Hex  # of the upload
    kind: Literal["taught", "unknown"]
    group: str  # of uploads that show the same; the review decides on groups
    device: str
    id: str  # as the device names it
    revision: int = 1  # of a taught item
    label: str = ""  # as taught
    category: str = ""  # as taught, or the device's guess; empty: not known
    negative: bool = False  # a taught item that must not be named
    camera: str = ""
    at: str = ""  # when it was taught or seen, as the device says
    reason: str = ""  # why the device did not name it
    top: tuple[Proposal, ...] = ()  # the nearest items, as the device says
    pictures: tuple[str, ...]  # relative to the folder of the review
    bits: Hex  # of the perceptual hash of the first picture
    thumb: Hex  # of the same

    def shows_the_same(self, other: Taken) -> bool:
        """Return whether a reviewer sees the same as of another upload of the item."""
        return all(
            getattr(self, name) == getattr(other, name) for name in ("label", "category", "negative", "pictures")
        )

    def looks(self) -> PerceptualHash:
        """Return what the first picture is compared by."""
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(self.bits), np.uint8)).astype(np.bool_)
        return PerceptualHash(bits, np.frombuffer(bytes.fromhex(self.thumb), np.uint8).reshape(16, 16, 3))


class Shown(_Document):
    """What the review shows of a group, which decisions refer to."""

    group: str
    category: str  # as taught or as is likely; empty: not known
    proposals: tuple[Proposal, ...]  # best first


class Decision(_Document):
    """What an operator decided on a group."""

    group: str
    verdict: Literal["accept", "new", "unknown", "reject", "as taught"]
    category: str = ""  # of accept, new and as taught
    item: str = ""
    label: str = ""


class ReviewFolder:
    """The folder of a review: pictures, what was taken, and what was decided."""

    def __init__(self, folder: Path) -> None:
        """Read what an earlier run left.

        Raises:
            DataError: a file in it is damaged.
        """
        self.folder = folder
        self.taken: list[Taken] = _read_lines(folder / TAKEN_FILE, Taken)
        self.shown = {one.group: one for one in _read_lines(folder / SHOWN_FILE, Shown)}
        self.decisions = {one.group: one for one in _read_lines(folder / DECISIONS_FILE, Decision)}
        self._known: set[str] = set()  # hashes of what was taken
        self._newest: dict[str, Taken] = {}  # the upload of each taught item that counts
        for one in self.taken:
            self._note(one)

    def has(self, sha256: str) -> bool:
        """Return whether an upload was taken."""
        return sha256 in self._known

    def owner_of(self, item_id: str) -> str | None:
        """Return the device that taught an item first; None: there is no such item."""
        return next((one.device for one in self.taken if one.kind == "taught" and one.id == item_id), None)

    def add(self, one: Taken) -> bool:
        """Take an upload; call `save` when all are taken. Return whether it changes an item that was taken before."""
        before = self._newest.get(one.id) if one.kind == "taught" else None
        self.taken.append(one)
        self._note(one)
        if before is None or one.revision < before.revision or one.shows_the_same(before):
            return False
        self.shown.pop(one.group, None)
        self.decisions.pop(one.group, None)
        return True

    def _note(self, one: Taken) -> None:
        self._known.add(one.sha256)
        if one.kind == "taught" and (one.id not in self._newest or one.revision >= self._newest[one.id].revision):
            self._newest[one.id] = one

    def groups(self) -> dict[str, list[Taken]]:
        """Return what counts, by group, in the order in which it was taken."""
        found: dict[str, list[Taken]] = {}
        for one in self.taken:
            if one.kind == "unknown" or self._newest[one.id] is one:
                found.setdefault(one.group, []).append(one)
        return found

    def write_picture(self, name: str, data: bytes) -> str:
        """Write a picture; return its path relative to the folder.

        Raises:
            DataError: it cannot be written.
        """
        path = self.folder / PICTURES / name
        if not path.is_file():
            write(path, data)
        return f"{PICTURES}/{name}"

    def save(self) -> None:
        """Write what was taken, shown and decided.

        Raises:
            DataError: it cannot be written.
        """
        files: dict[str, Iterable[_Document]] = {
            TAKEN_FILE: self.taken,
            SHOWN_FILE: self.shown.values(),
            DECISIONS_FILE: self.decisions.values(),
        }
        for name, lines in files.items():
            write(self.folder / name, "".join(f"{one.model_dump_json()}\n" for one in lines).encode())


def write(path: Path, data: bytes) -> None:
    """Replace a file of the review.

    Raises:
        DataError: it cannot be written.
    """
    try:
        make_folder(path.parent)
        write_durably(path, data)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error


def looks_in_hex(looks: PerceptualHash) -> tuple[str, str]:
    """Return the bits and the thumbnail as a record holds them."""
    return looks.text, looks.thumb.tobytes().hex()


def _read_lines(path: Path, kind: type[_LINE]) -> list[_LINE]:
    try:
        lines: Iterable[bytes] = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(kind.model_validate_json(line))
        except ValidationError as error:
            raise DataError(f"{path}: line {number}: {first_validation_error(error)}; give another folder") from error
    return found
