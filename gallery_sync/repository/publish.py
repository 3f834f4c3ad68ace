"""Publishes pairs of a bundle and a gallery: first objects, then signed documents, then the metadata that shows them.

Rules this module keeps:
1. A bundle is newer than every bundle that was published, also than one that was withdrawn. An id names one bundle.
2. A bundle and the galleries that it is paired with are in the same or in compatible embedding spaces.
3. The security floor never falls. No release names a bundle below it.
4. A release is shown only together with everything that it names. While the head of a bundle waits for a signature, the
   release waits with it.
5. A gallery folder with an item that was deleted urgently is refused, unless you say that it may come back.
6. Publishing the same folders again changes nothing, but repairs their objects.
7. A release that is held back is published for no device: a rollout brings it to them. What all devices run changes
   only while no rollout is under way.
8. A number of a release is above that of every release in use. All releases of a bundle name its newest head.
"""

from __future__ import annotations

import hashlib
import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge.bundle.bundle import MANIFEST_NAME, Bundle, check_compatible, read_bundle
from edge.errors import SyncError
from edge.gallery.generation import read_gallery
from edge.manifest import Manifest
from gallery_sync.formats.documents import BundleHead, GalleryLog, Release, bundle_target, release_target
from gallery_sync.formats.fields import LARGEST_SEQUENCE, ObjectRef, canonical_json
from gallery_sync.formats.rollouts import Rollouts
from gallery_sync.repository.deliveries import earlier_manifests, make_deliveries
from gallery_sync.repository.edited_gallery import leading, on_top
from gallery_sync.repository.erased import refuse_erased
from gallery_sync.repository.folder import locked, read_manifest, store_file, write_history
from gallery_sync.repository.galleries import SpaceRecords, changed_logs, logs_from_gallery
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.pairs import check_spaces, gallery_from, is_ahead
from gallery_sync.repository.published import (
    Published,
    each_release,
    first_rollouts,
    log_path,
    put_rollouts,
    read_published,
    restore_documents,
    with_held,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Demands:
    """What a bundle demands of devices, beside what follows from its content. None: as before."""

    security_floor: int | None = None  # smallest sequence number of a bundle, once this one is confirmed
    needs: str | None = None  # oldest version of finesight
    allow_big_change: bool = False  # its gallery may change by more than a device's limit


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


def publish(  # noqa: PLR0913  each one is an option of the command
    repo: Path,
    keys: KeyRing,
    now: datetime,
    *,
    bundle_folder: Path | None = None,
    gallery_folder: Path | None = None,
    demands: Demands = Demands(),
    sequence: int | None = None,
    allow_erased: bool = False,
    hold: bool = False,
) -> Publication:
    """Publish a bundle, a gallery or both as a new release.

    Args:
        repo: a repository that `edge-sync init` made.
        keys: of its roles, as far as they are here.
        now: the time, in UTC.
        bundle_folder: a packed bundle; None: that of the newest release.
        gallery_folder: a gallery generation with its index; None: the newest gallery.
        demands: what the bundle demands of devices.
        sequence: sequence number of the release; None: one more than the last.
        allow_erased: items that were deleted urgently may come back with the gallery.
        hold: for no device yet; a rollout brings it to them.

    Raises:
        BundleError: the bundle is damaged, or its embedding space does not match the gallery.
        GalleryError: the gallery is damaged.
        SyncError: the gallery has an item that was deleted urgently, a sequence decreases, a rollout is under way, a
            key is wrong, or the disk failed.
    """
    if bundle_folder is None and gallery_folder is None:
        raise SyncError("what to publish? give --bundle, --gallery or both")
    bundle = read_bundle(bundle_folder) if bundle_folder else None
    gallery = read_gallery(gallery_folder) if gallery_folder else None
    with locked(repo):
        metadata = SignedMetadata.open(repo, keys, now)
        published = read_published(repo, metadata)
        _check_may_publish(published, hold=hold, keeps_bundle=bundle is None)
        manifest, manifest_ref = _manifest(published, bundle)
        if bundle:
            _check_bundle_is_newer(published, manifest, manifest_ref)
            _store_bundle(repo, bundle, manifest_ref)
        if gallery:
            refuse_erased(published, gallery, allowed=allow_erased)
            check_compatible(Bundle(manifest, bundle.folder if bundle else repo), gallery)
        next_gallery = published.gallery_sequence + 1
        logs = logs_from_gallery(published, gallery, manifest, next_gallery, now) if gallery else {}
        gallery_sequence = _gallery_sequence(published, logs, next_gallery, whole=gallery is not None)
        merged = {**published.logs, **logs}
        check_spaces(manifest, merged, gallery_sequence)
        head = _bundle_head(published, manifest, manifest_ref, demands, merged, gallery_sequence)
        if hold:
            _check_abortable(published, head)
        pair = Pair(head, logs, gallery_sequence, gallery.created_at if gallery else None)
        return commit_pair(metadata, published, pair, now, sequence, hold=hold)


def publish_gallery_change(
    repo: Path,
    keys: KeyRing,
    now: datetime,
    changes: Mapping[str, SpaceRecords],
    *,
    urgent: bool = False,
    hold: bool = False,
) -> Publication:
    """Publish changes of some items as a new release of the newest bundle.

    Args:
        repo: the repository folder.
        keys: of its roles, as far as they are here.
        now: the time, in UTC.
        changes: by category and embedding space.
        urgent: devices apply the deletions at once, to every gallery that they hold.
        hold: for no device yet; a rollout brings it to them.

    Raises:
        SyncError: nothing was published, another release has a newer gallery, a rollout is under way, or the disk
            failed.
        GalleryError: a change does not fit the gallery.
    """
    with locked(repo):
        metadata = SignedMetadata.open(repo, keys, now)
        published = read_published(repo, metadata)
        release, head = published.release, published.head
        if release is None or head is None:
            raise SyncError(f"{repo}: has no release whose gallery can change; publish a bundle and a gallery first")
        if urgent and hold:
            raise SyncError("an urgent deletion waits for nothing; give --urgent or --hold, not both")
        held = published.rollouts.held if published.rollouts else []
        reached = max(one.gallery_sequence for one in (release, *(held if hold else ())))
        ahead = is_ahead(published.logs, reached)
        if not urgent:
            _check_may_publish(published, hold=hold, keeps_bundle=True)
            if ahead:
                _check_is_newest(published, reached)
                changes = on_top(published, read_manifest(repo, head), changes)
        sequence = published.gallery_sequence + 1
        logs = changed_logs(published, changes, sequence, now, urgent=urgent)
        stays = not logs or (urgent and (ahead or published.newest_sequence > release.sequence))
        pair = Pair(head, logs, release.gallery_sequence if stays else sequence)
        return commit_pair(metadata, published, pair, now, hold=hold)


def _check_is_newest(published: Published, reached: int) -> None:
    """Check that no other release has a newer gallery: the log is linear, and a change goes on from the newest."""
    release, repo = published.release, shlex.quote(str(published.repo))
    newer = [one for one in leading(published) if one is not release and one.gallery_sequence > reached]
    if release is not None and newer:
        raise SyncError(
            f"{published.repo}: release {newer[0].sequence} has gallery {newer[0].gallery_sequence}, which is newer "
            f"than that of release {release.sequence}, and galleries change one after the other; change it on top with "
            f"--hold, or roll that release out first: edge-sync rollout create {repo} --release {newer[0].sequence}"
        )


def _check_may_publish(published: Published, *, hold: bool, keeps_bundle: bool) -> None:
    """Check that what all devices run may change, or that there is something beside which a release can be held."""
    if hold:
        if published.release is None:
            raise SyncError(f"{published.repo}: has no release yet; publish the first one without --hold")
        return
    published.refuse_during_rollout()
    base = published.release
    for group in published.rollouts.groups if published.rollouts and keeps_bundle else ():
        if base is not None and group.release.sequence > base.sequence and group.release.bundle_id != base.bundle_id:
            repo = shlex.quote(str(published.repo))
            raise SyncError(
                f"{published.repo}: a newer release of bundle {base.bundle_id} would take bundle "
                f"{group.release.bundle_id} from the devices of {group.selector}; roll their release out to all first: "
                f"edge-sync rollout create {repo} --release {group.release.sequence}, or take it back: edge-sync "
                f"rollback {published.line} --to {base.sequence} --repo {repo}"
            )


def _check_abortable(published: Published, head: BundleHead) -> None:
    """Check that devices which confirm a bundle can go back to that of the newest release."""
    base = published.head
    if base is not None and head.security_floor > base.sequence:
        raise SyncError(
            f"bundle {head.bundle_id}: devices that confirm it with the security floor {head.security_floor} could not "
            f"go back to bundle {base.bundle_id}, which has sequence {base.sequence}; publish it with --hold without "
            "--security-floor, and raise the floor when its rollout is complete"
        )


def _manifest(published: Published, bundle: Bundle | None) -> tuple[Manifest, ObjectRef]:
    """Return the manifest of the bundle to publish: the given one, or that of the newest release."""
    if bundle is not None:
        data = (bundle.folder / MANIFEST_NAME).read_bytes()
        return bundle.manifest, ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    if published.release is None or published.head is None:
        raise SyncError(f"{published.repo}: has no bundle yet; give --bundle, too")
    return read_manifest(published.repo, published.head), published.head.manifest


def _check_bundle_is_newer(published: Published, manifest: Manifest, ref: ObjectRef) -> None:
    """Check that a bundle is that of a release in use, or newer than every bundle that was published."""
    if published.head and published.head.manifest == ref:
        return
    repo = shlex.quote(str(published.repo))
    known = published.all_heads()
    same = next((head for head in known.values() if head.manifest == ref), None)
    if same is not None and any(one.bundle_id == same.bundle_id for one in published.in_use):
        return
    if same is not None and not published.in_use:
        return  # a draft that nobody signed yet named it, or a disaster took what was signed
    if same is not None and same.bundle_id not in published.heads:
        raise SyncError(f"bundle {same.bundle_id} was withdrawn; pack a newer one, with a larger --sequence")
    if same is not None:
        of_bundle = [number for number, one in published.history.items() if one and one.bundle_id == same.bundle_id]
        if not of_bundle:
            return  # it was held back, and dropped
        raise SyncError(
            f"bundle {same.bundle_id} was published in release {max(of_bundle)}; to return to it: "
            f"edge-sync rollback {published.line} --to {max(of_bundle)} --repo {repo}"
        )
    newest = max(known.values(), key=lambda head: head.sequence, default=None)
    if newest and manifest.sequence <= newest.sequence:
        raise SyncError(
            f"bundle {manifest.bundle_id} has sequence {manifest.sequence}, the published bundle {newest.bundle_id} "
            f"has {newest.sequence}; pack it with a larger --sequence"
        )
    if manifest.bundle_id in known:
        raise SyncError(
            f"a bundle {manifest.bundle_id} with other content was published; pack this one with another id"
        )


def _store_bundle(repo: Path, bundle: Bundle, ref: ObjectRef) -> None:
    for entry in bundle.manifest.files:
        store_file(repo, bundle.path(entry.path), ObjectRef(sha256=entry.sha256, size=entry.size))
    store_file(repo, bundle.folder / MANIFEST_NAME, ref)


def _gallery_sequence(published: Published, logs: Mapping[str, GalleryLog], next_gallery: int, *, whole: bool) -> int:
    """Return the gallery sequence of the pair: a new one only if a log has new states."""
    newest = max((one.sequence for one in published.logs.values()), default=0)
    if any(one.sequence == next_gallery for one in logs.values()):
        return next_gallery
    return newest if whole or published.release is None else published.release.gallery_sequence


def _bundle_head(
    published: Published,
    manifest: Manifest,
    ref: ObjectRef,
    demands: Demands,
    logs: Mapping[str, GalleryLog],
    gallery_sequence: int,
) -> BundleHead:
    old = published.heads.get(manifest.bundle_id)
    floor = max(demands.security_floor or 0, published.security_floor)
    if demands.security_floor is not None and demands.security_floor < published.security_floor:
        raise SyncError(f"the security floor is {published.security_floor}, and it never falls; give no smaller one")
    if floor > manifest.sequence:
        raise SyncError(
            f"bundle {manifest.bundle_id} has sequence {manifest.sequence}, below the security floor {floor}; give a "
            "smaller --security-floor, or pack the bundle with a larger --sequence"
        )
    return BundleHead(
        line=published.line,
        bundle_id=manifest.bundle_id,
        sequence=manifest.sequence,
        manifest=ref,
        security_floor=floor,
        gallery_from=gallery_from(manifest, logs),
        big_change_to=gallery_sequence if demands.allow_big_change else old.big_change_to if old else 0,
        needs=demands.needs if demands.needs is not None else old.needs if old else "0",
        deliveries=make_deliveries(
            published.repo, manifest, earlier_manifests(published, manifest), old.deliveries if old else []
        ),
    )


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
