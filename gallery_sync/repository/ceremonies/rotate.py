"""Gives a role other keys, and signs what gets old again.

Rules this module keeps:
1. A new list of keys is signed by the keys before it: root by the old and the new ones, the others through root or
   targets. Where those keys are not here, the result is a draft.
2. A key that was made here is listed in keys.json before anything names it, and an old one stays listed until the
   change is published: devices know the old one only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge.errors import SyncError, one_line
from gallery_sync.repository.folder import locked
from gallery_sync.repository.keys import ROLES, KeyRing, RoleKeys
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.private_keys import HeldKey, make_key
from gallery_sync.repository.public_keys import key_label
from gallery_sync.repository.roles.commit import Committed


@dataclass(frozen=True)
class KeyChange:
    """What changes for the keys of one role."""

    role: str
    add: Sequence[HeldKey] = ()
    revoke: Sequence[str] = ()  # names, or the first digits of ids
    is_new: bool = False  # a key made here takes the place of all
    threshold: int | None = None  # None: as before


def rotate(
    repo: Path,
    keys: KeyRing,
    now: datetime,
    changes: Sequence[KeyChange] = (),
    *,
    renew: Sequence[str] = (),
    policy: str | None = None,
    offline_days: int = 365,
) -> Committed:
    """Change keys of roles, sign roles again, or change the policy; a draft where people have to sign.

    Args:
        repo: the repository folder.
        keys: with which to sign; gets the new keys.
        now: UTC.
        changes: of keys, by role.
        renew: roles to sign again, so that they expire later.
        policy: `online` or `offline`; None: as before.
        offline_days: of an offline line.

    Raises:
        SyncError: a key is unknown, too few are left, or the disk failed.
    """
    with locked(repo):
        metadata = SignedMetadata.open(repo, keys, now)
        ring = keys
        for change in changes:
            before = metadata.role_keys(_known(change.role))
            after = _changed(before, change, ring)
            ring = ring.with_coming(after.keys)
            metadata.set_role(change.role, after.threshold, after.keys)
        if ring is not keys:
            ring.write()
        for role in renew:
            metadata.renew(_known(role))
        if policy is not None:
            metadata.set_policy(policy, offline_days)
        metadata.use(ring)
        return metadata.commit(now) if policy is None else metadata.refresh(now)


def refresh(repo: Path, keys: KeyRing, now: datetime) -> Committed:
    """Sign snapshot and timestamp again, and every role past half of its life whose keys are here; for cron.

    Raises:
        SyncError: the clock is wrong, a key cannot be used, or the disk failed.
    """
    with locked(repo):
        return SignedMetadata.open(repo, keys, now).refresh(now)


def list_keys(repo: Path, keys: KeyRing | None) -> Mapping[str, RoleKeys]:
    """Return the published keys of every role.

    Raises:
        SyncError: the repository cannot be read.
    """
    metadata = SignedMetadata.open(repo, keys)
    return {role: metadata.role_keys(role) for role in ROLES}


def _known(role: str) -> str:
    if role not in ROLES:
        raise SyncError(f"found the role {one_line(role)!r}, expected one of {', '.join(ROLES)}")
    return role


def _changed(before: RoleKeys, change: KeyChange, ring: KeyRing) -> RoleKeys:
    revoked = set()
    for text in change.revoke:
        found = [
            key for key in before.keys if text == key_label(key.public).partition(" (")[0] or key.keyid.startswith(text)
        ]
        if len(found) != 1:
            held = ", ".join(key_label(key.public) for key in before.keys)
            raise SyncError(
                f"role {change.role}: {one_line(text)!r} is {len(found)} of its keys, expected one of: {held}"
            )
        revoked.add(found[0].keyid)
    kept = () if change.is_new else tuple(key for key in before.keys if key.keyid not in revoked)
    made = (make_key(ring.folder, _free_name(ring.folder, change.role)),) if change.is_new else ()
    after = {key.keyid: key for key in (*kept, *change.add, *made)}
    threshold = change.threshold or (1 if change.is_new and not change.add else before.threshold)
    return RoleKeys(threshold, tuple(after.values()))


def _free_name(folder: Path, role: str) -> str:
    number = 2
    while (folder / f"{role}-{number}.pem").exists():
        number += 1
    return f"{role}-{number}" if (folder / f"{role}.pem").exists() else role
