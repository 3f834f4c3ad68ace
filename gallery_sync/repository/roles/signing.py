"""Signs snapshot and timestamp over the roles that changed, and says in which order a commit writes its files.

Rules this module keeps:
1. Targets, then the metadata of roles, then snapshot, then timestamp. Devices begin with timestamp: half is invisible.
2. A root is visible as soon as it is there. If targets, snapshot and timestamp are signed for the root before it, too,
   it comes last, and every state between is whole. If not (the old keys are lost), it comes first: until timestamp
   follows, devices get an error and keep what they have.
3. Versions never fall, except where devices forget them: after all keys of the role, or of snapshot, were replaced.
4. Timestamp names the time of signing, from which devices raise their clocks: a wrong clock signs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot
from tuf.api.metadata import Timestamp as TimestampRole

from edge.errors import SyncError
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.private_keys import sign
from gallery_sync.repository.public_keys import key_label
from gallery_sync.repository.roles.state import (
    DELEGATED_ROLES,
    ISSUED_FIELD,
    LARGEST_BYTES,
    LARGEST_TARGETS_BYTES,
    LARGEST_VERSION,
    About,
    State,
    file_name,
    target_file,
    verifies,
)

_EARLIEST = datetime(2025, 1, 1, tzinfo=timezone.utc)  # no clock that works says less
_CLOCK_BACK, _CLOCK_AHEAD = timedelta(days=1), timedelta(days=5 * 365)
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Versions:
    """Gives the next version of each role."""

    state: State | None  # what is published
    root: Root  # that a commit publishes, or the published one
    above: Mapping[str, int]  # versions that devices may have seen

    def after(self, role: str) -> int:
        """Return the next version of a role.

        Raises:
            SyncError: there is none: somebody signed the largest one.
        """
        last = self.state.of(role).signed.version if self.state else 0
        if last > LARGEST_VERSION // 2 and self._may_restart(role):
            last = 0
        version = max(last, self.above.get(role, 0)) + 1
        if version > LARGEST_VERSION:
            raise SyncError(
                f"{role}: version {version - 1} leaves no room for a next one; somebody else signed it: "
                f"give new keys to snapshot and {role}, which starts its versions again: edge-sync rotate --new"
            )
        return version

    def _may_restart(self, role: str) -> bool:
        if self.state is None or role == "root":
            return False
        by = role if role in {"snapshot", "timestamp"} else "snapshot"
        return not set(self.state.root.signed.roles[by].keyids) & set(self.root.roles[by].keyids)


@dataclass(frozen=True)
class Signing:
    """Signs snapshot and timestamp of one commit."""

    repo: Path
    about: About
    keys: KeyRing
    versions: Versions
    now: datetime  # UTC

    def sign(self, changed: Mapping[str, Metadata[Any]]) -> tuple[dict[str, Metadata[Any]], dict[str, bytes]]:
        """Return the metadata of every role that is written, with snapshot and timestamp, and its bytes.

        Raises:
            SyncError: the keys of snapshot or timestamp are not here, or a document is too large for devices.
        """
        state, every = self.versions.state, dict(changed)
        documents = {role: _to_bytes(role, md) for role, md in changed.items()}
        meta = dict(state.snapshot.signed.meta) if state else {}
        for role in ("targets", *DELEGATED_ROLES):
            if role in changed:
                meta[f"{role}.json"] = MetaFile.from_data(changed[role].signed.version, documents[role], ["sha256"])
        version = self.versions.after("snapshot")
        every["snapshot"] = self._signed(Snapshot(version, expires=self._expires("snapshot"), meta=meta))
        documents["snapshot"] = _to_bytes("snapshot", every["snapshot"])
        issued = max(self.now, issued_at(state) or self.now)
        every["timestamp"] = self._signed(
            TimestampRole(
                self.versions.after("timestamp"),
                expires=self._expires("timestamp"),
                snapshot_meta=MetaFile.from_data(version, documents["snapshot"], ["sha256"]),
                unrecognized_fields={ISSUED_FIELD: issued.strftime(_TIME)},
            )
        )
        documents["timestamp"] = _to_bytes("timestamp", every["timestamp"])
        return every, documents

    def _expires(self, role: str) -> datetime:
        return self.now + self.about.lifetime(role)

    def _signed(self, signed: Snapshot | TimestampRole) -> Metadata[Any]:
        """Sign with the keys of the new root and, as far as they are here, of the root before."""
        role, md, root = signed.type, Metadata[Any](signed), self.versions.root
        for by in (root, self.versions.state.root.signed if self.versions.state else root):
            one, used = by.roles[role], 0
            for public in map(by.get_key, one.keyids):
                if used < one.threshold and public.keyid not in md.signatures:
                    signer = self.keys.signer(public)
                    if signer is None:
                        continue
                    md.signatures[public.keyid] = sign(signer, md.signed_bytes, self.keys.uri_of(public.keyid) or "")
                used += public.keyid in md.signatures
        if not verifies(root, role, md):
            names = ", ".join(key_label(root.get_key(keyid)) for keyid in root.roles[role].keyids)
            raise SyncError(
                f"{self.repo}: the keys of {role} are not in {self.keys.folder}: {names}; publish where they are"
            )
        return md


def writes(
    state: State | None,
    every: Mapping[str, Metadata[Any]],
    documents: Mapping[str, bytes],
    puts: Mapping[str, Mapping[str, bytes | None]],
) -> Iterator[tuple[str, bytes]]:
    """Yield the path and content of every file of a commit, in the order of rules 1 and 2.

    Args:
        state: what is published; None: nothing.
        every: the metadata that is written, by role.
        documents: its bytes.
        puts: targets by role and path; None: removed.
    """
    before = state.root.signed if state else None
    keeps = before is not None and all(
        verifies(before, role, every[role]) for role in ("targets", "snapshot", "timestamp") if role in every
    )
    yield from target_writes(puts)
    order = (*DELEGATED_ROLES, "targets", "snapshot", "timestamp")
    for role in (*order, "root") if keeps else ("root", *order):
        if role in every:
            yield f"metadata/{file_name(role, every[role].signed.version)}", documents[role]


def target_writes(puts: Mapping[str, Mapping[str, bytes | None]]) -> Iterator[tuple[str, bytes]]:
    """Yield the path and content of the file of every target."""
    for one in puts.values():
        for path, data in one.items():
            if data is not None:
                yield target_file(path, sha256(data).hexdigest()), data


def check_clock(state: State | None, now: datetime) -> None:
    """Refuse a clock that is wrong: devices would believe it.

    Raises:
        SyncError: it is before the last signature, or years after it.
    """
    issued = issued_at(state)
    earliest = _EARLIEST if issued is None else max(_EARLIEST, issued - _CLOCK_BACK)
    if now < earliest or (issued is not None and now > issued + _CLOCK_AHEAD):
        last = f", and the repository was last signed at {issued:%Y-%m-%d %H:%M}" if issued else ""
        raise SyncError(f"the clock of this machine says {now:%Y-%m-%d %H:%M} UTC{last}; set the clock")


def issued_at(state: State | None) -> datetime | None:
    """Return when the repository was signed last; None if it was not, or does not say."""
    text = state.timestamp.signed.unrecognized_fields.get(ISSUED_FIELD) if state else None
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=timezone.utc) if text else None
    except (TypeError, ValueError):
        return None


def _to_bytes(role: str, md: Metadata[Any]) -> bytes:
    data: bytes = md.to_bytes()
    most = LARGEST_BYTES.get(role, LARGEST_TARGETS_BYTES)
    if len(data) > most:
        raise SyncError(f"{role}: found {len(data)} bytes of metadata, and devices read at most {most}")
    return data
