"""Publishes changes of metadata: the only module that writes `metadata/` and `targets/`.

Rules this module keeps:
1. A commit writes its files in the order of `gallery_sync.repository.roles.signing`, each durably before the next
   one. Half a commit is invisible, and the next commit writes it again.
2. Snapshot lists every role with its hash. No version goes back.
3. A role whose keys are not here is never left out: the whole commit becomes a draft, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata

from edge.durable import file_mismatch
from edge.errors import SyncError
from gallery_sync.repository.files import write_file
from gallery_sync.repository.keys import DRAFTS_NAME, KeyRing
from gallery_sync.repository.roles.changes import Changes
from gallery_sync.repository.roles.draft import Draft, leave_draft
from gallery_sync.repository.roles.signing import Signing, check_clock, target_writes, writes
from gallery_sync.repository.roles.state import REPOSITORY_NAME, About, about_bytes, read_about


@dataclass(frozen=True)
class Committed:
    """What a commit did."""

    versions: Mapping[str, int] = field(default_factory=dict)  # of the roles that were written; empty: nothing changed
    draft: Path | None = None  # waits for signatures; nothing was written
    missing: Mapping[str, str] = field(default_factory=dict)  # of the draft: whose signatures, by role
    warnings: tuple[str, ...] = ()

    @property
    def is_published(self) -> bool:
        """Return whether devices see the result."""
        return self.draft is None


def commit(changes: Changes, about: About, keys: KeyRing, now: datetime, *, force: bool) -> Committed:
    """Sign and publish changes.

    Args:
        changes: over the published metadata, which must not have changed since it was read.
        about: line and policy of the repository.
        keys: with which to sign.
        now: UTC.
        force: sign snapshot and timestamp also if nothing changed.

    Raises:
        SyncError: the clock is wrong, a key cannot be used, the repository changed meanwhile, or the disk failed.
    """
    now, state = now.astimezone(timezone.utc), changes.state
    check_clock(state, now)
    changes.apply_puts()
    changes.edit_what_lost_its_keys()
    changed = changes.documents()
    stale = state.stale if state else frozenset({"snapshot", "timestamp"})
    if not changed and not stale and not force:
        _repair_targets(changes)
        return Committed()
    versions = changes.versions()
    for role, md in changed.items():
        if not changes.is_fixed(role):
            md.signed.version = versions.after(role)
            md.signed.expires = now + about.lifetime(role)
            md.signatures.clear()
    base = {role: state.of(role) for role in {"root", "targets", *changed}} if state else {}
    made_at = now.isoformat(timespec="seconds")
    draft = Draft(about, made_at, base, changed, {}, {}, changes.above).signed_with(keys)
    if missing := draft.missing():
        path = leave_draft(keys.folder / DRAFTS_NAME, draft, state, changes.puts)
        return Committed(draft=path, missing=missing)
    _check_expired(changes, now)
    return _publish(changes, draft.documents, Signing(changes.repo, about, keys, versions, now))


def _publish(changes: Changes, changed: Mapping[str, Metadata[Any]], signing: Signing) -> Committed:
    repo, state = changes.repo, changes.state
    every, documents = signing.sign(changed)
    _check_unchanged(changes)
    if state is None or signing.about != read_about(repo):
        write_file(repo / REPOSITORY_NAME, about_bytes(signing.about))
    for path, data in writes(state, every, documents, changes.puts):
        write_file(repo / path, data)
    return Committed({role: md.signed.version for role, md in every.items()})


def _repair_targets(changes: Changes) -> None:
    """Write the files of targets that are listed as they are, and are missing or damaged."""
    for path, data in target_writes(changes.puts):
        if file_mismatch(changes.repo / path, len(data), sha256(data).hexdigest()) is not None:
            write_file(changes.repo / path, data)
    changes.puts = {}


def _check_expired(changes: Changes, now: datetime) -> None:
    for role in ("root", "targets"):
        signed = changes.current(role).signed
        if signed.is_expired(now):
            raise SyncError(
                f"{changes.repo}: {role} expired at {signed.expires:%Y-%m-%d}, and devices take nothing new; its "
                f"holders sign it again: edge-sync rotate {changes.repo} --renew {role}"
            )


def _check_unchanged(changes: Changes) -> None:
    path = changes.repo / "metadata/timestamp.json"
    found = path.read_bytes() if path.exists() else None
    if found != (changes.state.timestamp_bytes if changes.state else None):
        raise SyncError(f"{path}: changed since it was read; another command published; try again")
