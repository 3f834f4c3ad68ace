"""Publishes pairs of a bundle and a gallery: first objects, then signed documents, then the metadata that shows them.

Rules this module keeps:
1. What may be published is decided before anything is signed, see gallery_sync.repository.publish_checks.
2. A bundle and the galleries that it is paired with are in the same or in compatible embedding spaces.
3. The security floor never falls. No release names a bundle below it.
4. A gallery folder with an item that was deleted urgently is refused, unless you say that it may come back.
5. Publishing the same folders again changes nothing, but repairs their objects.
6. Documents are signed and shown last, see gallery_sync.repository.commit_pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge.bundle.bundle import MANIFEST_NAME, Bundle, check_compatible, read_bundle
from edge.errors import SyncError
from edge.gallery.generation import read_gallery
from edge.manifest.manifest import Manifest
from gallery_sync.formats.documents import BundleHead, GalleryLog
from gallery_sync.formats.fields import ObjectRef
from gallery_sync.repository.commit_pair import Pair, Publication, commit_pair
from gallery_sync.repository.deliveries import earlier_manifests, make_deliveries
from gallery_sync.repository.edited_gallery import on_top
from gallery_sync.repository.erased import refuse_erased
from gallery_sync.repository.folder import locked, read_manifest, store_file
from gallery_sync.repository.galleries import SpaceRecords, changed_logs, logs_from_gallery
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.pairs import check_spaces, gallery_from, is_ahead
from gallery_sync.repository.publish_checks import (
    check_abortable,
    check_bundle_is_newer,
    check_is_newest,
    check_may_publish,
)
from gallery_sync.repository.published import Published, read_published


@dataclass(frozen=True, slots=True)
class Demands:
    """What a bundle demands of devices, beside what follows from its content. None: as before."""

    security_floor: int | None = None  # smallest sequence number of a bundle, once this one is confirmed
    needs: str | None = None  # oldest version of finesight
    allow_big_change: bool = False  # its gallery may change by more than a device's limit


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
        check_may_publish(published, hold=hold, keeps_bundle=bundle is None)
        manifest, manifest_ref = _manifest(published, bundle)
        if bundle:
            check_bundle_is_newer(published, manifest, manifest_ref)
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
            check_abortable(published, head)
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
            check_may_publish(published, hold=hold, keeps_bundle=True)
            if ahead:
                check_is_newest(published, reached)
                changes = on_top(published, read_manifest(repo, head), changes)
        sequence = published.gallery_sequence + 1
        logs = changed_logs(published, changes, sequence, now, urgent=urgent)
        stays = not logs or (urgent and (ahead or published.newest_sequence > release.sequence))
        pair = Pair(head, logs, release.gallery_sequence if stays else sequence)
        return commit_pair(metadata, published, pair, now, hold=hold)


def _manifest(published: Published, bundle: Bundle | None) -> tuple[Manifest, ObjectRef]:
    """Return the manifest of the bundle to publish: the given one, or that of the newest release."""
    if bundle is not None:
        data = (bundle.folder / MANIFEST_NAME).read_bytes()
        return bundle.manifest, ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    if published.release is None or published.head is None:
        raise SyncError(f"{published.repo}: has no bundle yet; give --bundle, too")
    return read_manifest(published.repo, published.head), published.head.manifest


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
