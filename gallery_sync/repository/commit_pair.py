"""Signs the documents of a pair of a bundle and a gallery, and shows it as a release, or holds it back.

Rules this module keeps:
1. A release is shown only together with everything that it names. While the head of a bundle waits for a signature, the
   release waits with it.
2. A release that is held back is published for no device: a rollout brings it to them.
3. A number of a release is above that of every release in use. All releases of a bundle name its newest head.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge.errors import SyncError
from gallery_sync.formats.documents import BundleHead, GalleryLog, Release, bundle_target, release_target
from gallery_sync.formats.fields import LARGEST_SEQUENCE, canonical_json
from gallery_sync.formats.rollouts import Rollouts
from gallery_sync.repository.folder import write_history
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.published import (
    Published,
    each_release,
    first_rollouts,
    log_path,
    put_rollouts,
    restore_documents,
    with_held,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """A bundle and a gallery to publish together."""

    head: BundleHead
    logs: Mapping[str, GalleryLog]  # by category, those that change
    gallery_sequence: int
    gallery_created_at: str | None = None  # None: now, or that of the newest release if its gallery is the same
    rollback_to: int | None = None  # the earlier release whose pair this is


@dataclass(frozen=True, slots=True)
class Publication:
    """What publishing did."""

    release: Release
    is_new: bool  # False: it was published before, and its objects are whole
    draft: Path | None = None  # waits for `edge-sync sign`; until then devices see nothing of it
    waits_for: tuple[str, ...] = ()  # whose signatures
    held: bool = False  # for no device yet
    notes: tuple[str, ...] = ()  # what an operator should know


def commit_pair(
    metadata: SignedMetadata,
    published: Published,
    pair: Pair,
    now: datetime,
    sequence: int | None = None,
    *,
    hold: bool = False,
) -> Publication:
    """Sign the documents of a pair that are new, and show it as the newest release, or hold it back.

    Args:
        metadata: of the repository, open for changes.
        published: what it has now.
        pair: its objects are stored.
        now: the time, in UTC.
        sequence: sequence number of the new release; None: one more than the last.
        hold: for no device yet.

    Raises:
        SyncError: the sequence number is too small, a key is wrong, or the disk failed.
    """
    repo, head = published.repo, pair.head
    restore_documents(published)
    known = published.heads.get(head.bundle_id) == head
    head_json = canonical_json(head)
    head_sha256 = published.head_hashes[head.bundle_id] if known else hashlib.sha256(head_json).hexdigest()
    same = _same_pair(published, pair, head_sha256, hold=hold)
    release = same or _release(published, pair, head_sha256, now, sequence)
    for category, one in pair.logs.items():
        metadata.put("gallery", log_path(published.line, category), canonical_json(one))
    if not known:
        metadata.put("models", bundle_target(published.line, head.bundle_id), head_json)
    write_history(repo, release, head)
    notes = _put_releases(metadata, published, release, head, head_sha256, hold=hold)
    committed = metadata.commit(now)
    if committed.is_published and committed.versions:
        word = "held back" if hold else "published"
        log.info("%s: %s release %s of line %s", repo, word, release.sequence, release.line)
    is_held = hold and release != published.release
    if hold and not is_held:
        notes = (*notes, f"nothing is held: release {release.sequence} already has this bundle and gallery")
    return Publication(release, same is None, committed.draft, tuple(committed.missing.values()), is_held, notes)


def _same_pair(published: Published, pair: Pair, head_sha256: str, *, hold: bool) -> Release | None:
    """Return the release that is this pair already; None: it is new."""
    base = published.release
    if base is None or pair.rollback_to is not None:
        return None
    held = published.rollouts.held if hold and published.rollouts else []
    usable = [base, *(one for one in held if one.sequence > base.sequence)]
    wanted = (head_sha256, pair.gallery_sequence)
    return next((one for one in usable if (one.bundle_head, one.gallery_sequence) == wanted), None)


def _put_releases(
    metadata: SignedMetadata,
    published: Published,
    release: Release,
    head: BundleHead,
    head_sha256: str,
    *,
    hold: bool,
) -> tuple[str, ...]:
    """Put the release, and every other one of the bundle whose head changed; return what an operator should know."""

    def follow(one: Release) -> Release:
        if one.bundle_id != head.bundle_id or one.bundle_head == head_sha256:
            return one
        changed = one.model_copy(update={"bundle_head": head_sha256})
        write_history(published.repo, changed, head)
        return changed

    before, notes = published.release, list[str]()
    base = follow(before) if before else None
    rollouts = each_release(published.rollouts, follow) if published.rollouts else None
    if hold and release not in published.in_use:
        rollouts = with_held(rollouts or first_rollouts(published.line), release)
    elif not hold and (base is None or release.sequence > base.sequence):
        base = release
        rollouts, notes = _without_older(rollouts, base) if rollouts else (None, [])
    if base is not None and base != before:
        metadata.put("rollout", release_target(published.line), canonical_json(base))
    if rollouts is not None and rollouts != published.rollouts:
        put_rollouts(metadata, published, rollouts)
    return tuple(notes)


def _without_older(rollouts: Rollouts, base: Release) -> tuple[Rollouts, list[str]]:
    """Return the rollouts without what a newer base replaces, and what an operator should know."""
    pair = (base.bundle_id, base.gallery_sequence)
    held = [one for one in rollouts.held if (one.bundle_id, one.gallery_sequence) != pair]
    groups = [one for one in rollouts.groups if one.release.sequence > base.sequence]
    notes = [
        f"the devices of {one.selector} take it, too: it is newer than release {one.release.sequence}, which a rollout "
        "brought them"
        for one in rollouts.groups
        if one not in groups
    ]
    return rollouts.model_copy(update={"held": held, "groups": groups}), notes


def _release(published: Published, pair: Pair, head_sha256: str, now: datetime, sequence: int | None) -> Release:
    before = published.release
    same_gallery = before is not None and before.gallery_sequence == pair.gallery_sequence
    kept = before.gallery_created_at if before is not None and same_gallery else None
    created_at = now.isoformat(timespec="seconds")
    return Release(
        line=published.line,
        sequence=next_sequence(published, sequence),
        created_at=created_at,
        bundle_id=pair.head.bundle_id,
        bundle_head=head_sha256,
        gallery_sequence=pair.gallery_sequence,
        gallery_created_at=pair.gallery_created_at or kept or created_at,
        rollback_to=pair.rollback_to,
    )


def next_sequence(published: Published, sequence: int | None) -> int:
    """Return the sequence number of the next release.

    Raises:
        SyncError: the wanted one is not above the last.
    """
    last = published.newest_sequence
    number = last + 1 if sequence is None else sequence
    if number <= last:
        raise SyncError(f"{published.repo}: release {last} is published; give a --sequence above it, not {number}")
    if number > LARGEST_SEQUENCE:
        raise SyncError(f"{published.repo}: found --sequence {number}, expected at most {LARGEST_SEQUENCE}")
    return number
