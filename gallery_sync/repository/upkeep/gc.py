"""Deletes what no device can need any more: old metadata, documents and objects.

Rules this module keeps:
1. Kept is everything that a snapshot of the promised offline window reaches: its metadata, the documents that this
   names, and the objects that these name. Every root is kept: a device follows them one after the other.
2. Kept is what is young: a draft that waits for signatures may name it.
3. Nothing is deleted while a current document cannot be read.
4. Deleted is first what names, then what is named. So whatever is there after a crash is whole.
5. It holds the lock of the repository: no publishing goes on meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

from edge.durable import fsync_folder
from edge.errors import SyncError
from edge.strict_json import parse_json
from gallery_sync.formats.documents import BundleHead, GalleryLog, bundle_target
from gallery_sync.formats.fields import ObjectRef, object_path, parse, parse_bundle_manifest
from gallery_sync.formats.unsigned import RELEASE_NAME
from gallery_sync.repository.folder import locked, read_object
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.pairs import window_releases
from gallery_sync.repository.published import read_published
from gallery_sync.repository.roles.state import LARGEST_TARGETS_BYTES, target_file
from gallery_sync.repository.upkeep.unsigned_folder import unsigned_objects

log = logging.getLogger(__name__)

LEAST_DAYS = 7  # metadata that a cache or mirror may still serve
DRAFT_DAYS = 30  # a draft that is older may miss objects when it is published
_ROLES = ("targets", "models", "gallery", "rollout")


@dataclass(slots=True)
class Collected:
    """What was deleted, or would be."""

    files: int = 0
    freed_bytes: int = 0
    kept_files: int = 0
    kept_bytes: int = 0
    retired: list[str] = field(default_factory=list)  # ids of bundles that left the signed list


def collect_garbage(
    repo: Path,
    now: datetime,
    *,
    dry_run: bool = False,
    keep_days: int | None = None,
    keep_bundles: int | None = None,
    keys: KeyRing | None = None,
) -> Collected:
    """Delete what no device needs within the promised offline window.

    Args:
        repo: the repository folder.
        now: the time, in UTC.
        dry_run: delete nothing, only say what would be.
        keep_days: days for which earlier metadata is kept; None: the promised window.
        keep_bundles: bundles that stay in the signed list beside those of the window and of releases in use, the newest
            ones; None: all.
        keys: with which the shorter list is signed.

    Raises:
        SyncError: a current document is damaged, a key is missing, or the disk failed.
    """
    if keep_days is not None and keep_days < LEAST_DAYS:
        raise SyncError(f"found --keep-days {keep_days}, expected at least {LEAST_DAYS}: caches serve older metadata")
    with locked(repo):
        metadata = SignedMetadata.open(repo, keys)
        published = read_published(repo, metadata)
        if published.damaged:
            raise SyncError(f"{repo}: {min(published.damaged)} is damaged; nothing was deleted; see edge-sync check")
        collected = Collected()
        if keep_bundles is not None:
            _retire(metadata, now, keep_bundles, collected, dry_run=dry_run)
        kept = _Kept(repo)
        days = published.offline_days if keep_days is None else keep_days
        for version in _snapshots(repo, metadata.version("snapshot"), now - timedelta(days=days)):
            kept.add_snapshot(version, current=version == metadata.version("snapshot"))
        if (repo / RELEASE_NAME).exists():
            kept.objects |= {ref.sha256 for ref in unsigned_objects(repo)}
        _sweep(repo, kept, now - timedelta(days=DRAFT_DAYS), collected, dry_run=dry_run)
    return collected


def _retire(metadata: SignedMetadata, now: datetime, keep_bundles: int, collected: Collected, *, dry_run: bool) -> None:
    """Take old bundles out of the signed list."""
    published = read_published(metadata.repo, metadata)
    in_window = {release.bundle_id for release in window_releases(published, now)}
    newest = sorted(published.heads.values(), key=lambda head: head.sequence, reverse=True)
    old = [head.bundle_id for head in newest[max(keep_bundles, 1) :] if head.bundle_id not in in_window]
    collected.retired += old
    if dry_run or not old:
        return
    for bundle_id in old:
        metadata.remove("models", bundle_target(published.line, bundle_id))
    done = metadata.commit(now)
    if not done.is_published:
        raise SyncError(f"{metadata.repo}: {done.draft} waits for signatures; collect garbage once it is published")


@dataclass(slots=True)
class _Kept:
    """The files that must stay."""

    repo: Path
    metadata: set[str] = field(default_factory=set)  # names
    targets: set[str] = field(default_factory=set)  # paths in the repository
    objects: set[str] = field(default_factory=set)  # hashes

    def add_snapshot(self, version: int, *, current: bool) -> None:
        """Keep a snapshot and all that it reaches."""
        names = [f"{version}.snapshot.json"]
        meta = self._signed(names[0], current=current).get("meta", {})
        names += [f"{meta[f'{role}.json']['version']}.{role}.json" for role in _ROLES if f"{role}.json" in meta]
        for name in names:
            if name not in self.metadata:
                self.metadata.add(name)
                for path, target in self._signed(name, current=current).get("targets", {}).items():
                    self._add_target(path, target["hashes"]["sha256"], current=current)

    def _signed(self, name: str, *, current: bool) -> dict[str, Any]:
        """Return what a metadata file says; nothing if an old one is gone or damaged."""
        try:
            data = (self.repo / "metadata" / name).read_bytes()
            found: dict[str, Any] = parse_json(data, LARGEST_TARGETS_BYTES)["signed"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            if current:
                raise SyncError(f"{name}: cannot be read: {error}; nothing was deleted; see edge-sync check") from error
            return {}
        return found

    def _add_target(self, path: str, sha256: str, *, current: bool) -> None:
        file = target_file(path, sha256)
        if file in self.targets:
            return
        self.targets.add(file)
        try:
            self.objects |= {ref.sha256 for ref in self._objects(path, (self.repo / file).read_bytes())}
        except (OSError, SyncError) as error:
            if current:
                raise SyncError(f"{error}; nothing was deleted; see edge-sync check") from error
            log.warning("%s: objects that only this old document names are not kept: %s", file, error)

    def _objects(self, path: str, data: bytes) -> Iterator[ObjectRef]:
        if path.startswith("models/"):
            head = parse(BundleHead, data, path)
            yield head.manifest
            yield from (delivery.object for delivery in head.deliveries)
            manifest = parse_bundle_manifest(read_object(self.repo, head.manifest), path)
            yield from (ObjectRef(sha256=file.sha256, size=file.size) for file in manifest.files)
        elif path.startswith("gallery/"):
            for space in parse(GalleryLog, data, path).spaces:
                yield from (base.object for base in space.bases)
                yield from (segment.object for segment in space.segments)


def _snapshots(repo: Path, newest: int, start: datetime) -> list[int]:
    """Return the versions of snapshots that were the newest one at some time since `start`."""
    stems = [path.name.removesuffix(".snapshot.json") for path in (repo / "metadata").glob("*.snapshot.json")]
    versions = sorted(
        int(stem) for stem in stems if stem.isascii() and stem.isdecimal() and len(stem) < len(str(2**32))
    )
    kept = [newest]
    for version, following in pairwise(versions):
        if version < newest and _changed_at(repo / "metadata" / f"{following}.snapshot.json") >= start:
            kept.append(version)
    return kept


def _changed_at(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)


def _sweep(repo: Path, kept: _Kept, young: datetime, collected: Collected, *, dry_run: bool) -> None:
    folders = (
        ([path for path in (repo / "metadata").glob("*.json") if _is_numbered(path)], kept.metadata, False),
        (list((repo / "targets").rglob("*.json")), {str(repo / name) for name in kept.targets}, True),
        (list((repo / "objects").rglob("*")), {str(repo / object_path(sha256)) for sha256 in kept.objects}, True),
    )
    for files, needed, may_be_drafted in folders:
        touched = set()
        for path in sorted(files):
            if not path.is_file() or path.is_symlink():
                continue
            about = path.stat()
            is_young = may_be_drafted and path.suffix != ".partial" and _changed_at(path) >= young
            if is_young or (str(path) if may_be_drafted else path.name) in needed:
                collected.kept_files += 1
                collected.kept_bytes += about.st_size
                continue
            collected.files += 1
            collected.freed_bytes += about.st_size
            if not dry_run:
                path.unlink(missing_ok=True)
                touched.add(path.parent)
        for folder in sorted(touched):
            fsync_folder(folder)
            with contextlib.suppress(OSError):
                folder.rmdir()  # an empty one


def _is_numbered(path: Path) -> bool:
    """Return whether a file is metadata that has newer versions, but no root: every root is kept."""
    version, _, role = path.name.removesuffix(".json").partition(".")
    return version.isdecimal() and role in {"snapshot", *_ROLES}
