"""Takes what is new in an inbox: checks it, copies its pictures, and puts what shows the same into one group."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge.errors import DataError, one_line
from edge.kiosk.taught_store import TaughtItem
from edge.unknowns.record import UnknownObject
from trainer.data.duplicates import NEAR_BITS, NEAR_COLOUR, PerceptualHash
from trainer.inbox.listing import InboxFile, list_inbox
from trainer.inbox.state import Proposal, ReviewFolder, Taken, looks_in_hex
from trainer.inbox.submission import Submission, read_submission

log = logging.getLogger(__name__)

_GROUP_CHARACTERS = 10


@dataclass(slots=True)
class Taking:
    """What one run found."""

    files: list[InboxFile] = field(default_factory=list)  # that are taken, now or earlier
    taught: int = 0
    changed: set[str] = field(default_factory=set)  # groups of taught items that were taken before and differ now
    unknown: int = 0
    folded: int = 0  # unknown objects that look like an earlier one
    known: int = 0  # taken by an earlier run
    left_out: dict[str, str] = field(default_factory=dict)  # why, by name


def take_new(inbox: Path, review: ReviewFolder) -> Taking:
    """Take everything new in an inbox; what cannot be used is left out and reported, and the rest goes on.

    Raises:
        DataError: the inbox cannot be read, or a picture cannot be written.
    """
    listed, left_out = list_inbox(inbox)
    taking, seen = Taking(left_out=left_out), _Seen(review.taken)
    for file in listed:
        try:
            submission = read_submission(file, review.has)
        except DataError as error:
            taking.left_out[file.name] = one_line(str(error))
            continue
        if submission is None:
            taking.known += 1
        elif problem := _take(file, submission, review, seen, taking):
            taking.left_out[file.name] = problem
            continue
        taking.files.append(file)
    for name, why in taking.left_out.items():
        log.warning("left out %s: %s", name, why)
    return taking


def _take(file: InboxFile, submission: Submission, review: ReviewFolder, seen: _Seen, taking: Taking) -> str | None:
    """Take one upload; return why it cannot be taken."""
    record = submission.record
    if isinstance(record, TaughtItem):
        owner = review.owner_of(record.item_id)
        if owner is not None and owner != file.device:
            return f"device {owner!r} has taught an item of this id"
        group = record.item_id
        taking.taught += 1
    else:
        looks = submission.pictures[0].looks
        near = seen.group_of(looks)
        group = near or f"unknown-{submission.sha256[:_GROUP_CHARACTERS]}"
        seen.add(looks, group)
        taking.unknown += 1
        taking.folded += near is not None
    for why in submission.left_out:
        taking.left_out[f"{file.name}: {why.partition(':')[0]}"] = one_line(why)
    pictures = tuple(review.write_picture(f"{one.sha256[:32]}{one.suffix}", one.data) for one in submission.pictures)
    if review.add(_record(file.device, submission, group, pictures)):
        taking.changed.add(group)
        log.warning("%s: item %s was taught again; decide on it again", file.name, group)
    return None


class _Seen:
    """The unknown objects that were taken, to find one that looks the same."""

    def __init__(self, taken: Sequence[Taken]) -> None:
        unknown = [one for one in taken if one.kind == "unknown"]
        self._groups = [one.group for one in unknown]
        looks = [one.looks() for one in unknown]
        self._thumbs = [one.thumb for one in looks]
        self._bits = np.array([one.bits for one in looks], np.bool_).reshape(-1, 64)

    def add(self, looks: PerceptualHash, group: str) -> None:
        """Remember another one."""
        self._groups.append(group)
        self._thumbs.append(looks.thumb)
        self._bits = np.concatenate([self._bits, looks.bits[None]])

    def group_of(self, looks: PerceptualHash) -> str | None:
        """Return the group of one that looks the same; None: there is none."""
        for near in np.flatnonzero((self._bits != looks.bits).sum(axis=1) <= NEAR_BITS).tolist():
            apart = np.abs(self._thumbs[near].astype(np.int16) - looks.thumb.astype(np.int16)).mean()
            if apart <= NEAR_COLOUR:
                return self._groups[near]
        return None


def _record(device: str, submission: Submission, group: str, pictures: tuple[str, ...]) -> Taken:
    bits, thumb = looks_in_hex(submission.pictures[0].looks)
    record = submission.record
    if isinstance(record, TaughtItem):
        return Taken(
            sha256=submission.sha256,
            kind="taught",
            group=group,
            device=device,
            id=record.item_id,
            revision=record.revision,
            label=" ".join(record.label.split()),
            category=record.category or "",
            negative=record.negative,
            at=one_line(record.taught_at[:40]),
            pictures=pictures,
            bits=bits,
            thumb=thumb,
        )
    if record is None:
        return Taken(
            sha256=submission.sha256,
            kind="unknown",
            group=group,
            device=device,
            id="",
            pictures=pictures,
            bits=bits,
            thumb=thumb,
        )
    return Taken(
        sha256=submission.sha256,
        kind="unknown",
        group=group,
        device=device or one_line(record.device[:80]),
        id=record.id,
        category=record.category or "",
        camera=one_line(record.camera[:80]),
        at=one_line(record.captured_at[:40]),
        reason=one_line(record.reason[:40]),
        top=tuple(_near(record)),
        pictures=pictures,
        bits=bits,
        thumb=thumb,
    )


def _near(record: UnknownObject) -> Iterator[Proposal]:
    """Yield the nearest items as the device says, of the category that it was searched in."""
    for one in record.top[:3] if record.category else ():
        if one.item.isprintable() and one.item.strip():
            yield Proposal(
                category=record.category or "", item=one.item, label=one_line(one.label[:200]), score=one.score
            )
