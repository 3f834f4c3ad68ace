"""The numbers of a device's mailbox, which survive a restart: of its reports, and of the last doorbell.

    <state>/mailbox.json

Rules this module keeps:
1. A number is on the disk before the report that carries it leaves: no number of an epoch is used twice.
2. Numbers that are lost, damaged or of another identity begin again in another epoch, which chance names.
3. A disk that cannot be written costs the epoch, never a report: its numbers go on in an epoch of this process.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.durable import make_folder, set_aside, write_durably
from edge.strict_json import parse_json
from gallery_sync.formats.fields import LARGEST_SEQUENCE
from gallery_sync.fresh_files import read_regular

log = logging.getLogger(__name__)

NAME = "mailbox.json"
_LARGEST_BYTES = 4096
_MOST = LARGEST_SEQUENCE // 2  # no device counts that far: a larger number is damage, and begins another epoch
_Number = Annotated[int, Field(strict=True, ge=0, le=_MOST)]


def new_epoch() -> str:
    """Return the name of an epoch."""
    return secrets.token_hex(8)


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    identity: Annotated[str, Field(max_length=400)]
    epoch: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
    revision: _Number = 0  # of the last report
    rang: Annotated[int, Field(strict=True, ge=0, le=LARGEST_SEQUENCE)] = 0  # revision of the last doorbell

    def sha256(self) -> str:
        """Return a hash: one bit that flipped must not bring a number back."""
        return hashlib.sha256(f"{self.identity} {self.epoch} {self.revision} {self.rang}".encode()).hexdigest()


class Numbers:
    """The numbers of one device; from any thread."""

    def __init__(self, state_dir: Path, identity: str, epochs: Callable[[], str] = new_epoch) -> None:
        """Read them.

        Args:
            state_dir: of the device.
            identity: of the device: its id, line and root of trust.
            epochs: names epochs.
        """
        self._path, self._epochs, self._lock = state_dir / NAME, epochs, threading.Lock()
        self._now = self._read(identity) or _Stored(identity=identity, epoch=epochs())
        self._is_kept = True  # what the disk has is not above these numbers
        self.failed = 0  # writes

    @property
    def rang(self) -> int:
        """The revision of the last doorbell."""
        return self._now.rang

    def next_report(self) -> tuple[str, int]:
        """Return the epoch and the number of a report, which nothing had before."""
        with self._lock:
            following = self._now.model_copy(update={"revision": self._now.revision + 1})
            if not self._write(following) and self._is_kept:
                following = _Stored(identity=following.identity, epoch=self._epochs(), revision=1, rang=following.rang)
                self._is_kept = False
            self._now = following
        return following.epoch, following.revision

    def note_doorbell(self, revision: int) -> None:
        """Note the revision of a doorbell that rang."""
        with self._lock:
            self._now = self._now.model_copy(update={"rang": revision})
            self._write(self._now)

    def _write(self, numbers: _Stored) -> bool:
        try:
            make_folder(self._path.parent)
            set_aside(self._path)
            content = numbers.model_dump() | {"sha256": numbers.sha256()}
            write_durably(self._path, json.dumps(content).encode() + b"\n", mode=0o640)
        except OSError as error:
            self.failed += 1
            if self.failed == 1:
                log.warning("%s: cannot write: %s; reports go on under another epoch", self._path, error)
            return False
        self._is_kept = True
        return True

    def _read(self, identity: str) -> _Stored | None:
        try:
            content = parse_json(read_regular(self._path, _LARGEST_BYTES), _LARGEST_BYTES)
            stored = _Stored.model_validate(content)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, ValidationError) as error:
            log.warning("%s: damaged (%s); reports begin another epoch", self._path, str(error)[:100])
            return None
        if content.get("sha256") != stored.sha256():
            log.warning("%s: damaged (its hash is another one); reports begin another epoch", self._path)
            return None
        return stored if stored.identity == identity else None
