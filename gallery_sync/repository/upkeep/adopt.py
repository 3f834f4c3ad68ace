"""Takes an unsigned repository over: its whole releases become signed pairs, once, by an explicit command.

Rules this module keeps:
1. Every release of the history whose objects are whole keeps its sequence number and can be rolled back to. Of the
   others, none is lost in silence: each is named.
2. `release.json` stays as the last unsigned release, so that devices which are not enrolled yet keep what they have;
   the unsigned history moves to `releases.unsigned`.
3. A crash at any moment leaves a repository that the same command takes over.
4. What the unsigned repository said is believed once, because the operator says so. A signature that is made here
   proves who adopted it, not who made it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from edge.durable import fsync_folder
from edge.errors import FinesightError, SyncError, one_line
from edge.gallery.generation import Gallery
from edge.gallery.store import store_path
from edge.manifest.manifest import Manifest
from gallery_sync.formats.documents import BundleHead, GalleryLog, Release, bundle_target, release_target
from gallery_sync.formats.fields import ObjectRef, canonical_json, object_path, parse, parse_bundle_manifest
from gallery_sync.formats.unsigned import RELEASE_NAME, GalleryHead
from gallery_sync.formats.unsigned import Release as UnsignedRelease
from gallery_sync.repository.deliveries import earlier_manifests, make_deliveries
from gallery_sync.repository.folder import locked, write_history
from gallery_sync.repository.galleries import logs_from_gallery
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.pairs import gallery_from
from gallery_sync.repository.published import Published, log_path, read_published
from gallery_sync.repository.upkeep.unsigned_folder import (
    UNSIGNED_HISTORY,
    check_release,
    history_sequences,
    read_bundle_head,
    read_history,
    read_object,
    read_release,
)

log = logging.getLogger(__name__)

LOUD_WORD = (
    "adopted WITHOUT PROOF: nothing signed these releases before; your keys now vouch for them. Devices take signed "
    "releases once they are enrolled: edge-sync enrol. Delete release.json when the last one is"
)


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was taken over."""

    line: str
    releases: tuple[int, ...]  # that are signed pairs now
    left: Mapping[int, str]  # the others, and why
    draft: Path | None = None  # waits for `edge-sync sign`; until then devices see nothing


def unsigned_line(repo: Path) -> str | None:
    """Return the line of an unsigned repository; None if the folder is none.

    Raises:
        SyncError: release.json is damaged.
    """
    release = read_release(repo)
    return release.line if release else None


def adopt(repo: Path, keys: KeyRing, now: datetime) -> Adopted:
    """Take the releases of an unsigned repository over into its signed metadata, which was made just before.

    Args:
        repo: the repository folder, with release.json and the metadata of `edge-sync init`.
        keys: of its roles, as far as they are here.
        now: the time, in UTC.

    Raises:
        SyncError: there is nothing to adopt, it was adopted already, the lines differ, or the disk failed.
    """
    with locked(repo):
        metadata = SignedMetadata.open(repo, keys, now)
        published = read_published(repo, metadata)
        newest = read_release(repo)
        if newest is None:
            raise SyncError(f"{repo}: has no {RELEASE_NAME}; there is nothing to adopt")
        if newest.line != published.line:
            raise SyncError(f"{repo}: found {RELEASE_NAME} of line {newest.line!r}, expected {published.line!r}")
        if published.release is not None:
            raise SyncError(f"{repo}: has signed releases already; publish with edge-sync publish")
        pairs, left = _whole_pairs(repo, published, now)
        if newest.sequence not in {pair.release.sequence for pair in pairs}:
            raise SyncError(
                f"{repo}: release {newest.sequence}, the newest, cannot be adopted: {left[newest.sequence]}; publish "
                "its folders into a new repository"
            )
        _move_history(repo)
        for pair in pairs:
            write_history(repo, pair.release, pair.head)
        for head in {pair.head.bundle_id: pair.head for pair in pairs}.values():
            metadata.put("models", bundle_target(published.line, head.bundle_id), canonical_json(head))
        for category, one in pairs[-1].logs.items():
            metadata.put("gallery", log_path(published.line, category), canonical_json(one))
        metadata.put("rollout", release_target(published.line), canonical_json(pairs[-1].release))
        committed = metadata.commit(now)
    log.warning("%s: %s", repo, LOUD_WORD)
    return Adopted(published.line, tuple(pair.release.sequence for pair in pairs), left, committed.draft)


@dataclass(frozen=True, slots=True)
class _SignedPair:
    release: Release
    head: BundleHead
    logs: Mapping[str, GalleryLog]  # of all categories, with every pair up to this one


@dataclass(slots=True)
class _Replay:
    """Makes signed pairs of unsigned releases, one after the other."""

    published: Published  # grows with every pair
    now: datetime
    gallery_sequence: int = 0  # the newest
    _galleries: dict[tuple[str, ...], int] | None = None  # gallery sequence of each gallery, by the hashes of its heads

    def pair(self, unsigned: UnsignedRelease) -> _SignedPair:
        """Return the pair of an unsigned release; its objects are stored, and the state goes on.

        Raises:
            FinesightError: it cannot be adopted.
        """
        repo, published = self.published.repo, self.published
        old = read_bundle_head(repo, unsigned)
        manifest = parse_bundle_manifest(read_object(repo, old.manifest), f"bundle {old.bundle_id}")
        logs, sequence = self._logs(unsigned, manifest)
        head = published.heads.get(old.bundle_id)
        if head is not None and head.manifest != old.manifest:
            raise SyncError(f"an earlier release has another bundle of the id {old.bundle_id}")
        if head is None:
            head = _head(published, old.manifest, manifest, gallery_from(manifest, logs))
        release = Release(
            line=published.line,
            sequence=unsigned.sequence,
            created_at=unsigned.created_at,
            bundle_id=head.bundle_id,
            bundle_head=sha256(canonical_json(head)).hexdigest(),
            gallery_sequence=sequence,
            gallery_created_at=unsigned.gallery.created_at,
            rollback_to=unsigned.rollback_to,
        )
        self.gallery_sequence = max(sequence, self.gallery_sequence)
        self.published = replace(published, heads={**published.heads, head.bundle_id: head}, logs=logs)
        return _SignedPair(release, head, logs)

    def _logs(self, unsigned: UnsignedRelease, manifest: Manifest) -> tuple[dict[str, GalleryLog], int]:
        """Return the logs with the gallery of an unsigned release in them, and its gallery sequence."""
        key = tuple(sorted(ref.sha256 for ref in unsigned.gallery.heads.values()))
        known = self._galleries = self._galleries or {}
        if key in known:
            return dict(self.published.logs), known[key]
        repo = self.published.repo
        heads = {
            category: parse(GalleryHead, read_object(repo, ref), "gallery head")
            for category, ref in unsigned.gallery.heads.items()
        }
        with tempfile.TemporaryDirectory(prefix="finesight-adopt-") as folder:
            entries = {category: head.entry() for category, head in heads.items()}
            for category, head in heads.items():
                store_path(Path(folder), category).symlink_to((repo / object_path(head.base.sha256)).resolve())
            gallery = Gallery(Path(folder), unsigned.gallery.generation, unsigned.gallery.created_at, entries)
            sequence = self.gallery_sequence + 1
            changed = logs_from_gallery(self.published, gallery, manifest, sequence, self.now)
        known[key] = sequence if changed else self.gallery_sequence
        return {**self.published.logs, **changed}, known[key]


def _whole_pairs(repo: Path, published: Published, now: datetime) -> tuple[list[_SignedPair], dict[int, str]]:
    """Return the pairs of all releases that are whole, and why the others are not."""
    replay, pairs = _Replay(published, now), list[_SignedPair]()
    left = dict.fromkeys(history_sequences(repo), "its file is damaged")
    for unsigned in read_history(repo):
        left.pop(unsigned.sequence, None)
        try:
            if problems := check_release(repo, unsigned):
                raise SyncError(f"{len(problems)} objects are missing or damaged; the first: {problems[0]}")
            pairs.append(replay.pair(unsigned))
        except (FinesightError, ValueError) as error:
            left[unsigned.sequence] = one_line(str(error))
            log.warning("%s: release %s is not adopted: %s", repo, unsigned.sequence, left[unsigned.sequence])
    return pairs, left


def _head(published: Published, ref: ObjectRef, manifest: Manifest, least_gallery: int) -> BundleHead:
    return BundleHead(
        line=published.line,
        bundle_id=manifest.bundle_id,
        sequence=manifest.sequence,
        manifest=ref,
        gallery_from=least_gallery,
        deliveries=make_deliveries(published.repo, manifest, earlier_manifests(published, manifest), []),
    )


def _move_history(repo: Path) -> None:
    """Put the unsigned history aside; `releases` is then for the signed one."""
    if (repo / "releases").is_dir() and not (repo / UNSIGNED_HISTORY).exists():
        (repo / "releases").rename(repo / UNSIGNED_HISTORY)
        fsync_folder(repo)
