"""The floors of a device: the versions, releases and time that it has seen signed, and below which it never goes.

Rules this module keeps:
1. Floors are kept in two files, written and flushed one after the other. What is readable counts; the higher one wins.
   A device whose cached metadata is lost still refuses old metadata (python-tuf by itself accepts it).
2. A floor is raised only after everything was verified, never by an answer that is refused.
3. A floor holds while every key that it was seen under still counts. When one of them is revoked, which the signed root
   says, the floor is dropped: whoever stole it may have signed any version, and the true ones must get in again.
4. The version of the root has no keys: it never goes back.
5. Versions of `targets` and the roles below it are also seen under the keys of `snapshot`, which lists them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.durable import make_folder, set_aside, write_durably
from edge.strict_json import parse_json
from gallery_sync.formats.fields import LARGEST_SEQUENCE
from gallery_sync.fresh_files import read_regular
from gallery_sync.transport.errors import StorageError
from gallery_sync.trust.clock import read_time, write_time
from gallery_sync.trust.errors import MetadataError, RolledBackError

log = logging.getLogger(__name__)

NAMES = ("floors.copy", "floors")  # in the order of writing
MOST_AHEAD = 1_000_000  # that a release may be above the one before
_LARGEST_BYTES = 256 << 10
_DIGEST_CHARACTERS = 64

Keys = frozenset[str]
Version = Annotated[int, Field(strict=True, ge=0, le=LARGEST_SEQUENCE)]
Hash = Annotated[str, Field(max_length=64)]


@dataclass(frozen=True, slots=True)
class Seen:
    """A version of a role, or a sequence number of a release, and the keys that vouch for it."""

    version: int
    keys: Keys


@dataclass(frozen=True, slots=True)
class Trusted:
    """The metadata of the last complete refresh."""

    timestamp_sha256: str  # of timestamp.json
    refreshed_at: datetime  # by the system clock
    issued_at: datetime | None  # as signed; None: the repository does not say
    expires_at: datetime  # when the first of root, timestamp, snapshot and targets expires
    root_version: int


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Floor(_Model):
    version: Version
    keys: list[Hash]

    def holds(self, keys: Keys) -> bool:
        return keys.issuperset(self.keys)


class _ClockFloor(_Model):
    time: Annotated[str, Field(max_length=40)]
    keys: list[Hash]


class _TrustedRecord(_Model):
    timestamp_sha256: Hash
    refreshed_at: str
    issued_at: str | None = None
    expires_at: str
    root_version: Version


class _Record(_Model):
    """The content of a file of floors."""

    count: Version = 0  # of the writes; the higher one is the newer record
    roles: dict[str, _Floor] = {}
    releases: dict[str, _Floor] = {}  # by line
    clock: _ClockFloor | None = None
    trusted: _TrustedRecord | None = None


class Floors:
    """The floors of one device.

    Args:
        folder: holds the two files; it need not exist yet.

    `problems` says what was damaged when they were read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problems: list[str] = []
        found = [record for name in NAMES if (record := self._read(folder / name)) is not None]
        self._records = sorted(found, key=lambda record: record.count, reverse=True)  # the newest first
        self._is_whole = len(found) == len(NAMES) and found[0] == found[1]

    @property
    def trusted(self) -> Trusted | None:
        """The last complete refresh; None: there was none, or it is not known any more."""
        return next((read for record in self._records if (read := _trusted_of(record))), None)

    def check(self, seen: Mapping[str, Seen]) -> None:
        """Check that no role goes back.

        Raises:
            RolledBackError: one does.
            MetadataError: a version is beyond all that can be counted.
        """
        for role, one in seen.items():
            if one.version > LARGEST_SEQUENCE:
                raise MetadataError(f"version of {role}: found a number above 2^53, which no repository reaches")
            floor = max(_holding((record.roles.get(role) for record in self._records), one.keys), default=0)
            if one.version < floor:
                raise RolledBackError(
                    f"{role}: found version {one.version}, older than version {floor}, which this device had; if the "
                    "repository was restored from a backup, see `edge-sync recover`"
                )

    def check_release(self, name: str, seen: Seen, kind: str = "release") -> None:
        """Check that a release is neither older nor far newer than the newest one that this device saw.

        Args:
            name: the line; of another document with a number, its target path.
            seen: its number, and the keys that vouch for it.
            kind: the word for the number.

        Raises:
            RolledBackError: it is.
        """
        if (floor := self.release(name, seen.keys)) == 0:
            return
        if seen.version < floor:
            to_go_back = ": to go back, edge-sync rollback makes one of an earlier pair" if kind == "release" else ""
            raise RolledBackError(
                f"{kind} {seen.version} of {name} is older than {kind} {floor}, which this device had; publish a "
                f"newer one{to_go_back}"
            )
        if seen.version > floor + MOST_AHEAD:
            raise RolledBackError(
                f"{kind} {seen.version} of {name} is more than {MOST_AHEAD} above {kind} {floor}, which this device "
                "had; somebody may use the rollout key: rotate it, and publish again"
            )

    def release(self, line: str, keys: Keys) -> int:
        """Return the newest release of a line that was seen under these keys; 0: none."""
        return max(_holding((record.releases.get(line) for record in self._records), keys), default=0)

    def clock(self, keys: Keys) -> datetime | None:
        """Return the newest time that was seen signed under these keys; None: none."""
        clocks = [record.clock for record in self._records if record.clock and keys.issuperset(record.clock.keys)]
        return max((read for one in clocks if (read := read_time(one.time))), default=None)

    def raise_to(self, seen: Mapping[str, Seen], trusted: Trusted, clock_keys: Keys) -> None:
        """Remember a complete refresh, which `check` accepted.

        Args:
            seen: every role.
            trusted: the refresh. The time that it was issued at raises the clock floor.
            clock_keys: of the role that signs that time.

        Raises:
            StorageError: the disk failed.
        """
        clock = max(filter(None, (self.clock(clock_keys), trusted.issued_at)), default=None)
        record = self._newest().model_copy(
            update={
                "roles": {role: _Floor(version=one.version, keys=sorted(one.keys)) for role, one in seen.items()},
                "clock": _ClockFloor(time=write_time(clock), keys=sorted(clock_keys)) if clock else None,
                "trusted": _TrustedRecord(
                    timestamp_sha256=trusted.timestamp_sha256,
                    refreshed_at=write_time(trusted.refreshed_at),
                    issued_at=write_time(trusted.issued_at) if trusted.issued_at else None,
                    expires_at=write_time(trusted.expires_at),
                    root_version=trusted.root_version,
                ),
            }
        )
        self._write(record)

    def raise_release(self, line: str, seen: Seen) -> None:
        """Remember a verified release, which `check_release` accepted.

        Raises:
            StorageError: the disk failed.
        """
        newest = self._newest()
        floor = _Floor(version=seen.version, keys=sorted(seen.keys))
        self._write(newest.model_copy(update={"releases": {**newest.releases, line: floor}}))

    def _newest(self) -> _Record:
        return self._records[0] if self._records else _Record()

    def _write(self, record: _Record) -> None:
        if self._is_whole and record == self._records[0]:
            return
        record = record.model_copy(update={"count": record.count + 1})
        body = json.dumps(record.model_dump(mode="json", exclude_none=True), sort_keys=True).encode()
        data = hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"
        try:
            make_folder(self._folder)
            for name in NAMES:
                set_aside(self._folder / name)
                write_durably(self._folder / name, data, mode=0o640)
        except OSError as error:
            raise StorageError(f"{self._folder}: cannot write the floors: {error.strerror or error}") from error
        self._records, self._is_whole = [record, record], True

    def _read(self, path: Path) -> _Record | None:
        try:
            data = read_regular(path, _LARGEST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell(path, f"cannot be read: {error.strerror}")
            return None
        body = data[_DIGEST_CHARACTERS + 1 :].removesuffix(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != data[:_DIGEST_CHARACTERS]:
            self._tell(path, "is damaged")
            return None
        try:
            return _Record.model_validate(parse_json(body, _LARGEST_BYTES))
        except (ValueError, ValidationError):
            self._tell(path, "is of another version")
            return None

    def _tell(self, path: Path, what: str) -> None:
        self.problems.append(f"{path}: {what}; the other copy counts, and the next refresh writes both again")
        log.warning("%s", self.problems[-1])


def clear_floors(folder: Path) -> None:
    """Remove the floors of another repository.

    Raises:
        OSError: the disk failed.
    """
    for name in NAMES:
        set_aside(folder / name)
        (folder / name).unlink(missing_ok=True)


def _holding(floors: Iterator[_Floor | None], keys: Keys) -> Iterator[int]:
    return (floor.version for floor in floors if floor is not None and floor.holds(keys))


def _trusted_of(record: _Record) -> Trusted | None:
    if (told := record.trusted) is None:
        return None
    refreshed_at, expires_at = read_time(told.refreshed_at), read_time(told.expires_at)
    if refreshed_at is None or expires_at is None:
        return None
    return Trusted(told.timestamp_sha256, refreshed_at, read_time(told.issued_at), expires_at, told.root_version)
