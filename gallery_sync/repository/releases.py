"""What an operator does with the releases of a repository: list, show, compare and withdraw them, and go back to one.

Rules this module keeps:
1. Listing, showing and comparing need no key and change nothing.
2. Withdrawing takes a bundle out of the signed list of the role `models`, so that no release can name it again. The
   bundle of a release in use (newest, held, pinned, or of a rollout) is never withdrawn.
3. A withdrawn bundle still counts where a newer one must be newer, and its security floor stays.
4. Going back is a newer signed release of an earlier pair; nothing is packed again. The line is named twice, by the
   operator and by the repository. The earlier bundle must not be withdrawn or below the security floor, and every
   object of the pair must be whole.
5. Urgent deletions stay deleted: devices apply them to the galleries of every release.
6. While a rollout is under way, nobody goes back but by ending it; an earlier pair can be held back meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from edge.errors import SyncError
from edge.manifest.manifest import Manifest
from gallery_sync.formats.documents import GalleryLog, Release, SpaceLog, bundle_target
from gallery_sync.repository.commit_pair import Pair, Publication, commit_pair
from gallery_sync.repository.folder import locked, read_manifest, read_old_head, write_history
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.pairs import Checked, check_pair, space_for, trimmed_categories
from gallery_sync.repository.published import Published, put_rollouts, read_published

Row = dict[str, Any]
_MOST_NAMED = 8


def list_releases(published: Published) -> list[Row]:
    """Return a row for each release, the oldest first.

    Raises:
        SyncError: nothing was published.
    """
    if published.release is None:
        raise SyncError(f"{published.repo}: nothing was published here")
    return [_row(published, number, release) for number, release in sorted(published.history.items())]


def _row(published: Published, number: int, release: Release | None) -> Row:
    if release is None:
        return {"release": number, "damaged": True}
    head = published.heads.get(release.bundle_id) or read_old_head(published.repo, release.bundle_id)
    return {
        "release": number,
        "created_at": release.created_at,
        "bundle": release.bundle_id,
        "bundle_sequence": head.sequence if head else None,
        "gallery": release.gallery_sequence,
        "rollback_to": release.rollback_to,
        "withdrawn": release.bundle_id not in published.heads,
        "newest": published.release is not None and number == published.release.sequence,
        "held": published.rollouts is not None and any(one.sequence == number for one in published.rollouts.held),
        "in_use": published.roles_of(release),
    }


def show_release(published: Published, number: int, now: datetime) -> Row:
    """Return what a release is, and whether devices can go back to it.

    Raises:
        SyncError: there is no such release.
    """
    release = find_release(published, number)
    row = _row(published, number, release)
    head = published.heads.get(release.bundle_id) or read_old_head(published.repo, release.bundle_id)
    if head is not None:
        row |= {
            "security_floor": head.security_floor,
            "needs": head.needs,
            "gallery_from": head.gallery_from,
            "deliveries": {
                method: sum(one.object.size for one in head.deliveries if one.method == method)
                for method in ("zstd", "residual")
            },
        }
    manifest = _manifest(published, release)
    if manifest is not None:
        row["files"] = {file.path: file.size for file in manifest.files}
        row["categories"] = dict(_categories(published, manifest, release.gallery_sequence))
    problem = None if row["newest"] else rollback_problem(published, release, now)
    return row | {"can_roll_back_to": problem is None and not row["newest"], "problem": problem}


def _manifest(published: Published, release: Release) -> Manifest | None:
    head = published.heads.get(release.bundle_id) or read_old_head(published.repo, release.bundle_id)
    try:
        return read_manifest(published.repo, head) if head else None
    except SyncError:
        return None


def _categories(published: Published, manifest: Manifest, gallery_sequence: int) -> Iterator[tuple[str, Row]]:
    for category, log in published.logs.items():
        embedder = manifest.embedder_for(category)
        space = space_for(embedder, log, gallery_sequence) if embedder else None
        if space is not None:
            base, _, later = state_at(space, gallery_sequence)
            yield category, {"gallery": later, "base": base, "space": space.space_id[:12]}


def state_at(space: SpaceLog, gallery_sequence: int) -> tuple[int, str, int]:
    """Return the base of a state, its live root, and the newest change in it.

    Raises:
        ValueError: the space has no state at this sequence.
    """
    bases = [base for base in space.bases if base.sequence <= gallery_sequence]
    if not bases:
        raise ValueError(f"found no state at gallery {gallery_sequence}")
    newest: tuple[int, str] = (bases[-1].sequence, bases[-1].live_root)
    for segment in space.segments:
        if newest[0] < segment.sequence <= gallery_sequence:
            newest = segment.sequence, segment.live_root
    return bases[-1].sequence, newest[1], newest[0]


def compare_releases(published: Published, first: int, second: int) -> Row:
    """Return how two releases differ.

    Raises:
        SyncError: there is no such release.
    """
    old, new = find_release(published, first), find_release(published, second)
    row: Row = {
        "bundles": [old.bundle_id, new.bundle_id],
        "galleries": [old.gallery_sequence, new.gallery_sequence],
        "files": {},
        "categories": {},
    }
    manifests = _manifest(published, old), _manifest(published, new)
    if manifests[0] is not None and manifests[1] is not None:
        row["files"] = _files(manifests[0], manifests[1])
    for category, log in sorted(published.logs.items()):
        changed = _changes(log, *sorted(row["galleries"]))
        if changed:
            row["categories"][category] = changed
    return row


def _files(old: Manifest, new: Manifest) -> dict[str, str]:
    before, after = ({file.path: file.sha256 for file in one.files} for one in (old, new))
    found = {}
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            found[path] = "new" if path not in before else "removed" if path not in after else "changed"
    return found


def _changes(log: GalleryLog, low: int, high: int) -> Row | None:
    """Return the changes of a category between two gallery sequences; None if there are none."""
    segments = [segment for space in log.spaces for segment in space.segments if low < segment.sequence <= high]
    spaces = [space.space_id[:12] for space in log.spaces if low < space.bases[0].sequence <= high]
    if not segments and not spaces:
        return None
    return {
        "upserts": sum(segment.upserts for segment in segments),
        "deletes": sum(segment.deletes for segment in segments),
        "urgent": sum(segment.urgent for segment in segments),
        "new_spaces": spaces,
    }


def withdraw(repo: Path, keys: KeyRing, now: datetime, number: int) -> Row:
    """Take the bundle of a release out of the signed list, so that no release can name it again.

    Args:
        repo: the repository folder.
        keys: of its roles; that of models signs.
        now: the time, in UTC.
        number: a release of the bundle.

    Raises:
        SyncError: there is no such release, its bundle is that of the newest release, or the disk failed.
    """
    with locked(repo):
        metadata = SignedMetadata.open(repo, keys, now)
        published = read_published(repo, metadata)
        release = find_release(published, number)
        head = published.heads.get(release.bundle_id)
        _refuse_in_use(published, release.bundle_id)
        if head is None:
            raise SyncError(f"{repo}: bundle {release.bundle_id} of release {number} was withdrawn before")
        write_history(repo, release, head)
        metadata.remove("models", bundle_target(published.line, release.bundle_id))
        committed = metadata.commit(now)
    of_bundle = [one.sequence for one in published.history.values() if one and one.bundle_id == release.bundle_id]
    return {
        "bundle": release.bundle_id,
        "releases": of_bundle,
        "draft": str(committed.draft) if committed.draft else None,
        "waits_for": list(committed.missing.values()),
    }


def _refuse_in_use(published: Published, bundle_id: str) -> None:
    newest = published.release
    if newest is not None and newest.bundle_id == bundle_id:
        raise SyncError(
            f"{published.repo}: bundle {bundle_id} is that of the newest release {newest.sequence}; publish another "
            f"bundle, or go back first: edge-sync rollback {published.line} --to RELEASE"
        )
    for one in published.in_use:
        if one.bundle_id == bundle_id:
            raise SyncError(
                f"{published.repo}: bundle {bundle_id} is that of release {one.sequence}, which is in use "
                f"({', '.join(published.roles_of(one))}); end that first: edge-sync rollout abort, edge-sync rollout "
                "unpin, edge-sync release drop, or a newer release for all devices"
            )


def rollback(
    repo: Path,
    keys: KeyRing,
    now: datetime,
    line: str,
    to: int,
    *,
    sequence: int | None = None,
    hold: bool = False,
) -> Publication:
    """Publish the pair of an earlier release again, as a newer release.

    Args:
        repo: the repository folder.
        keys: of its roles; only those of rollout, snapshot and timestamp sign.
        now: the time, in UTC.
        line: the repository's line.
        to: sequence number of the earlier release.
        sequence: sequence number of the new release; None: one more than the last.
        hold: for no device yet; a rollout brings it to them.

    Raises:
        SyncError: the line is another one, there is no such release, devices would refuse it, a rollout is under way,
            or the disk failed.
    """
    with locked(repo):
        metadata = SignedMetadata.open(repo, keys, now)
        published = read_published(repo, metadata)
        if line != published.line:
            raise SyncError(
                f"{repo}: is the repository of line {published.line!r}, not of {line!r}; nothing was changed"
            )
        if not hold:
            published.refuse_during_rollout()
        release = find_release(published, to)
        _refuse_same(published, release)
        if problem := rollback_problem(published, release, now):
            raise SyncError(f"{repo}: release {to} {problem}")
        head = published.heads[release.bundle_id]
        pair = Pair(head, {}, release.gallery_sequence, release.gallery_created_at, rollback_to=to)
        return commit_pair(metadata, published, pair, now, sequence, hold=hold)


def _refuse_same(published: Published, release: Release) -> None:
    """Refuse to go to the pair of the newest release, unless some devices have a newer one."""
    newest, groups = published.release, published.rollouts.groups if published.rollouts else []
    if newest is None or any(one.release.sequence > newest.sequence for one in groups):
        return
    if (newest.bundle_id, newest.gallery_sequence) == (release.bundle_id, release.gallery_sequence):
        raise SyncError(
            f"{published.repo}: release {newest.sequence} already has the bundle and gallery of release "
            f"{release.sequence}"
        )


def drop_held(repo: Path, keys: KeyRing, now: datetime, number: int) -> Row:
    """Give up a release that is held back; its bundle stays signed, and can be published again.

    Args:
        repo: the repository folder.
        keys: of its roles; only those of rollout, snapshot and timestamp sign.
        now: the time, in UTC.
        number: a held release.

    Raises:
        SyncError: it is not held, a key is wrong, or the disk failed.
    """
    with locked(repo):
        metadata = SignedMetadata.open(repo, keys, now)
        published = read_published(repo, metadata)
        rollouts = published.rollouts
        kept = [one for one in rollouts.held if one.sequence != number] if rollouts else []
        if rollouts is None or len(kept) == len(rollouts.held):
            raise SyncError(f"{repo}: release {number} is not held; see edge-sync release list")
        put_rollouts(metadata, published, rollouts.model_copy(update={"held": kept}))
        committed = metadata.commit(now)
    return {
        "dropped": number,
        "draft": str(committed.draft) if committed.draft else None,
        "waits_for": list(committed.missing.values()),
    }


def find_release(published: Published, number: int) -> Release:
    """Return a release of the history.

    Raises:
        SyncError: there is no such release, or its file is damaged.
    """
    release = published.history.get(number)
    if release is not None:
        return release
    if number in published.history:
        raise SyncError(f"{published.repo}: releases/{number}.json is damaged; restore it from a copy")
    newest = ", ".join(str(one) for one in sorted(published.history)[-_MOST_NAMED:]) or "none"
    raise SyncError(f"{published.repo}: release {number} is not here; the newest that are: {newest}")


def rollback_problem(published: Published, release: Release, now: datetime) -> str | None:
    """Return why devices cannot go back to a release; None if they can."""
    head = published.heads.get(release.bundle_id)
    if head is None:
        return f"cannot be rolled back to: its bundle {release.bundle_id} was withdrawn"
    if head.sequence < published.security_floor:
        return (
            f"cannot be rolled back to: its bundle {head.bundle_id} has sequence {head.sequence}, below the security "
            f"floor {published.security_floor}, and devices refuse it"
        )
    if release.gallery_sequence < head.gallery_from:
        return f"cannot be rolled back to: its bundle needs gallery {head.gallery_from} or newer"
    if gone := trimmed_categories(published, release, now):
        return (
            f"is from before the promised {published.offline_days} days, and the repository has given up its gallery "
            f"of category {gone[0]!r}; publish its folders as a new release"
        )
    checked = Checked(published.repo)
    check_pair(checked, published, head, release.gallery_sequence)
    if wrong := checked.wrong:
        return (
            f"is not whole: {len(wrong)} objects are missing or damaged; publish its bundle and gallery folders as a "
            f"new release; the first: {wrong[0]}"
        )
    return None
