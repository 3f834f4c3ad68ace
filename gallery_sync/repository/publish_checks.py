"""Decides whether something may be published over what a repository has now. It changes nothing.

Rules this module keeps:
1. A bundle is newer than every bundle that was published, also than one that was withdrawn. An id names one bundle.
2. What all devices run changes only while no rollout is under way. A release is held back only beside another one.
3. The gallery log is linear: a change goes on from the newest gallery.
4. Devices that confirm a held bundle can go back to that of the newest release.
"""

from __future__ import annotations

import shlex

from edge.errors import SyncError
from edge.manifest.manifest import Manifest
from gallery_sync.formats.documents import BundleHead
from gallery_sync.formats.fields import ObjectRef
from gallery_sync.repository.edited_gallery import leading
from gallery_sync.repository.published import Published


def check_may_publish(published: Published, *, hold: bool, keeps_bundle: bool) -> None:
    """Check that what all devices run may change, or that there is something beside which a release can be held.

    Raises:
        SyncError: it may not, or there is nothing.
    """
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


def check_bundle_is_newer(published: Published, manifest: Manifest, ref: ObjectRef) -> None:
    """Check that a bundle is that of a release in use, or newer than every bundle that was published.

    Raises:
        SyncError: it is neither.
    """
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


def check_is_newest(published: Published, reached: int) -> None:
    """Check that no other release has a newer gallery: the log is linear, and a change goes on from the newest.

    Raises:
        SyncError: one has.
    """
    release, repo = published.release, shlex.quote(str(published.repo))
    newer = [one for one in leading(published) if one is not release and one.gallery_sequence > reached]
    if release is not None and newer:
        raise SyncError(
            f"{published.repo}: release {newer[0].sequence} has gallery {newer[0].gallery_sequence}, which is newer "
            f"than that of release {release.sequence}, and galleries change one after the other; change it on top with "
            f"--hold, or roll that release out first: edge-sync rollout create {repo} --release {newer[0].sequence}"
        )


def check_abortable(published: Published, head: BundleHead) -> None:
    """Check that devices which confirm a bundle can go back to that of the newest release.

    Raises:
        SyncError: its security floor would keep them from it.
    """
    base = published.head
    if base is not None and head.security_floor > base.sequence:
        raise SyncError(
            f"bundle {head.bundle_id}: devices that confirm it with the security floor {head.security_floor} could not "
            f"go back to bundle {base.bundle_id}, which has sequence {base.sequence}; publish it with --hold without "
            "--security-floor, and raise the floor when its rollout is complete"
        )
