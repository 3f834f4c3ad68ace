"""The enrolment on a device: written once, read at every start.

    <state>/enrolment.json       who the device is, and its repository; without passwords
    <state>/trust/enrolment      a copy
    <state>/trust/root, root.copy   the root of trust
    <state>/broker.env           the account at the broker, mode 0600, for systemd and shells

Rules this module keeps:
1. `enrolment.json` comes last: a device whose enrolment was interrupted is not enrolled, and the command is run again.
2. Another identity is not written over without `replace`. It brings its own floors; those of the old one are removed.
3. A device of an unsigned repository is taken over only with `adopt`. The newest release that it had becomes the floor.
4. Nothing here touches what serves.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.durable import fsync_folder, make_folder, set_aside, write_durably
from edge.errors import SyncError
from edge.strict_json import parse_json
from gallery_sync.enrolment.broker_accounts import environment_file
from gallery_sync.formats.enrolment import Enrolment
from gallery_sync.formats.fields import LARGEST_SEQUENCE, Name, canonical_json
from gallery_sync.fresh_files import read_regular, remove
from gallery_sync.transport.errors import StorageError
from gallery_sync.trust.enrolment_file import COPY, LARGEST_BYTES, NAME, read_enrolment
from gallery_sync.trust.floors import Floors, Seen, clear_floors
from gallery_sync.trust.root_file import check_root

log = logging.getLogger(__name__)

__all__ = ["BROKER_NAME", "COPY", "LARGEST_BYTES", "NAME", "Enrolled", "enrol", "read_enrolment"]

BROKER_NAME = "broker.env"
UNSIGNED_NAME, ADOPTED_NAME = "sync.json", "sync.json.adopted"
_ROOTS = ("root.copy", "root")
_LARGEST_ADOPTED = LARGEST_SEQUENCE // 2  # a floor above leaves no room for releases


class _Unsigned(BaseModel):
    """The content of sync.json, in which a device of an unsigned repository kept its newest release."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    line: Name | None = None
    sequence: Annotated[int, Field(strict=True, ge=0, le=LARGEST_SEQUENCE)] = 0


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What an enrolment did."""

    device_id: str
    line: str
    group: str | None
    repository: str
    root_version: int
    replaced: str | None  # the device id before, if it was another one
    adopted_release: int | None  # the newest release of the unsigned repository; None: there was none


def enrol(state_dir: Path, enrolment: Enrolment, *, replace: bool = False, adopt: bool = False) -> Enrolled:
    """Make a device the one that an enrolment names. The same enrolment again is no change.

    Args:
        state_dir: of the device.
        enrolment: to write.
        replace: allow another identity than before.
        adopt: take over a device that followed an unsigned repository.

    Raises:
        SyncError: the root of trust is none, the device has another identity, or it is not adopted.
        StorageError: the disk failed.
    """
    root = enrolment.root.encode()
    version = check_root(root, "the enrolment")
    try:
        make_folder(state_dir)
        before = _identity_before(state_dir, replace=replace)
        _check_identity(state_dir, before, enrolment, replace=replace)
        unsigned = _read_unsigned(state_dir, enrolment, adopt=adopt, replace=replace)
        is_other = before is None or before.identity != enrolment.identity
        if enrolment.broker or is_other:  # a text without an account keeps the one that the same device has
            _put(state_dir / BROKER_NAME, environment_file(enrolment.broker) if enrolment.broker else None, 0o600)
        _write(state_dir, enrolment, root, unsigned)
    except OSError as error:
        raise StorageError(f"{state_dir}: cannot write the enrolment: {error.strerror or error}") from error
    return Enrolled(
        device_id=enrolment.device_id,
        line=enrolment.line,
        group=enrolment.group,
        repository=enrolment.repository,
        root_version=version,
        replaced=before.device_id if before and before.identity != enrolment.identity else None,
        adopted_release=unsigned.sequence if unsigned else None,
    )


def _identity_before(state_dir: Path, *, replace: bool) -> Enrolment | None:
    try:
        return read_enrolment(state_dir)
    except SyncError:
        if not replace:
            raise
        return None


def _check_identity(state_dir: Path, before: Enrolment | None, new: Enrolment, *, replace: bool) -> None:
    if replace:
        return
    if before and before.identity != new.identity:
        what = "the same root of trust" if before.root_sha256 == new.root_sha256 else "another root of trust"
        raise SyncError(
            f"this device is {before.device_id} of line {before.line}, and the enrolment is for {new.device_id} of "
            f"line {new.line} with {what}; if that is on purpose: --replace"
        )
    if not before and (roots := _roots(state_dir)) and new.root.encode() not in roots:
        raise SyncError(
            f"{state_dir / 'trust/root'}: this device trusts another root; if that is on purpose: --replace"
        )


def _read_unsigned(state_dir: Path, new: Enrolment, *, adopt: bool, replace: bool) -> _Unsigned | None:
    path = state_dir / UNSIGNED_NAME
    if not path.exists():
        return None
    if not adopt:
        raise SyncError(
            f"{path}: this device follows a repository without signatures; to take it over, once and for all: --adopt"
        )
    try:
        unsigned = _Unsigned.model_validate(parse_json(read_regular(path, LARGEST_BYTES), LARGEST_BYTES))
    except (OSError, ValueError, ValidationError):
        log.warning("%s: is damaged; this device is taken over without a floor for its releases", path)
        return _Unsigned()
    if unsigned.line not in (None, new.line) and not replace:
        raise SyncError(
            f"{path}: this device follows line {unsigned.line}, and the enrolment is of line {new.line}; if that is on "
            "purpose: --replace"
        )
    if unsigned.sequence > _LARGEST_ADOPTED:
        log.warning("%s: release %s cannot be true; it becomes no floor", path, unsigned.sequence)
        return _Unsigned(line=unsigned.line)
    return unsigned if unsigned.line in (None, new.line) else _Unsigned(line=unsigned.line)


def _write(state_dir: Path, enrolment: Enrolment, root: bytes, unsigned: _Unsigned | None) -> None:
    trust = state_dir / "trust"
    make_folder(trust)
    if (roots := _roots(state_dir)) and root not in roots:
        remove(state_dir / NAME)
        clear_floors(trust)
        for name in ("metadata", "targets"):
            remove(trust / name)
    if unsigned and unsigned.sequence:
        _keep_floor(trust, enrolment.line, unsigned.sequence)
    for name in _ROOTS:
        _put(trust / name, root)
    public = canonical_json(enrolment.model_copy(update={"broker": None})) + b"\n"
    for name in (COPY, NAME):
        _put(state_dir / name, public, 0o644)
    if unsigned is not None:
        (state_dir / UNSIGNED_NAME).replace(state_dir / ADOPTED_NAME)
        fsync_folder(state_dir)


def _keep_floor(trust: Path, line: str, sequence: int) -> None:
    floors = Floors(trust)
    if floors.release(line, frozenset()) < sequence:
        floors.raise_release(line, Seen(sequence, frozenset()))


def _put(path: Path, data: bytes | None, mode: int = 0o644) -> None:
    set_aside(path)
    if data is None:
        path.unlink(missing_ok=True)
    else:
        write_durably(path, data, mode)


def _roots(state_dir: Path) -> list[bytes]:
    """Return the roots of trust that a device has."""
    found = []
    for name in _ROOTS:
        try:
            found.append(read_regular(state_dir / "trust" / name, LARGEST_BYTES))
        except OSError:
            continue
    return found
