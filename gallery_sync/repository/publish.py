"""Publishes a bundle and a gallery in a repository: first objects, then heads, then the release that names them."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.bundle.bundle import MANIFEST_NAME, check_compatible, read_bundle
from edge.durable import file_mismatch, make_folder, replace_file, write_durably
from edge.errors import SyncError
from edge.gallery.generation import Gallery, read_gallery
from gallery_sync.device.last_release import MOST_AHEAD
from gallery_sync.formats.fields import LARGEST_SEQUENCE, ObjectRef, canonical_json, object_path, parse
from gallery_sync.formats.unsigned import (
    RELEASE_NAME,
    BundleHead,
    Envelope,
    GalleryHead,
    GalleryRelease,
    Release,
    bundle_head_path,
    gallery_head_paths,
    history_path,
)
from gallery_sync.repository.folder import (
    check_release,
    history_sequences,
    read_bundle_head,
    read_history,
    read_object,
    read_release,
)

log = logging.getLogger(__name__)


def publish(
    repo: Path,
    bundle_folder: Path,
    gallery_folder: Path,
    *,
    line: str,
    created_at: str,
    sequence: int | None = None,
    allow_jump: bool = False,
) -> Release:
    """Publish a bundle and a gallery. Publishing the same ones again changes nothing, but repairs their objects.

    Args:
        repo: the repository folder; created if missing.
        bundle_folder: a packed bundle.
        gallery_folder: a gallery generation with its index.
        line: product line; a repository has one line.
        created_at: ISO 8601, UTC.
        sequence: sequence number of the release; None: one more than the last.
        allow_jump: accept a sequence number that devices refuse without their --allow-jump.

    Raises:
        BundleError: the bundle is damaged, or its embedding space does not match the gallery.
        GalleryError: the gallery is damaged.
        SyncError: a sequence decreases, the line differs, or the disk failed.
    """
    bundle, gallery = read_bundle(bundle_folder), read_gallery(gallery_folder)
    check_compatible(bundle, gallery)
    with _writing(repo):
        before = read_release(repo)
        number = _next_sequence(before, sequence, repo, allow_jump=allow_jump)
        if before and before.line != line:
            raise SyncError(f"{repo}: found line {before.line!r}, expected {line!r}; one repository has one line")
        published = dict(_published_bundles(repo))
        old_bundle, old_galleries = published.get(before.sequence) if before else None, _old_galleries(repo, before)
        bundle_head = _store_bundle(repo, bundle_folder, line, old_bundle, published)
        gallery_heads = _store_gallery(repo, gallery, line, old_galleries)
        if before and (bundle_head, gallery_heads) == (old_bundle, old_galleries):
            log.info("%s: release %s already holds this bundle and gallery", repo, before.sequence)
            return before
        refs = {category: _store_bytes(repo, canonical_json(head)) for category, head in gallery_heads.items()}
        bundle_ref = _store_bytes(repo, canonical_json(bundle_head))
        if before and (before.bundle, before.gallery.heads) == (bundle_ref, refs):
            log.info("%s: release %s is repaired", repo, before.sequence)
            return before
        release = Release(
            line=line,
            sequence=number,
            created_at=created_at,
            bundle=bundle_ref,
            gallery=GalleryRelease(generation=gallery.generation, created_at=gallery.created_at, heads=refs),
        )
        _write_release(repo, release, before, bundle_head, gallery_heads)
    return release


def publish_earlier(
    repo: Path, earlier: int, *, created_at: str, sequence: int | None = None, allow_jump: bool = False
) -> Release:
    """Publish bundle and gallery of an earlier release again, as a new release that devices accept.

    Args:
        repo: the repository folder.
        earlier: sequence number of the earlier release.
        created_at: ISO 8601, UTC.
        sequence: sequence number of the new release; None: one more than the last.
        allow_jump: accept a sequence number that devices refuse without their --allow-jump.

    Raises:
        SyncError: there is no such release, an object of it is missing or damaged, or the disk failed.
    """
    if not repo.is_dir():
        raise SyncError(f"{repo}: is not a folder; give a repository folder")
    with _writing(repo):
        known = list(read_history(repo))
        release = next((one for one in known if one.sequence == earlier), None)
        if release is None:
            held = ", ".join(str(one.sequence) for one in known[-8:]) or "none"
            first = "; the history begins with the first release that this version published" if known else ""
            raise SyncError(f"{repo}: release {earlier} is not here; the newest that are: {held}{first}")
        if problems := check_release(repo, release):
            raise SyncError(
                f"{repo}: release {earlier} is not whole: {len(problems)} objects are missing or damaged; publish its "
                f"bundle and gallery folders again; the first: {problems[0]}"
            )
        number = _next_sequence(known[-1], sequence, repo, allow_jump=allow_jump)
        again = release.model_copy(update={"sequence": number, "created_at": created_at, "rollback_to": earlier})
        heads = {
            category: parse(GalleryHead, read_object(repo, ref), "gallery head")
            for category, ref in release.gallery.heads.items()
        }
        _write_release(repo, again, known[-1], read_bundle_head(repo, release), heads)
    return again


@contextmanager
def _writing(repo: Path) -> Iterator[None]:
    """Let one publishing at a time into a repository, and map errors of the disk."""
    try:
        repo.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(repo, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SyncError(f"{repo}: cannot read or write: {error.strerror or error}") from error


def _next_sequence(before: Release | None, sequence: int | None, repo: Path, *, allow_jump: bool) -> int:
    last = before.sequence if before else 0
    number = last + 1 if sequence is None else sequence
    if number <= last:
        raise SyncError(f"{repo}: release {last} is published; give a --sequence above it, not {number}")
    if not 1 <= number <= LARGEST_SEQUENCE:
        raise SyncError(f"{repo}: found --sequence {number}, expected 1 to {LARGEST_SEQUENCE}")
    if before and number > last + MOST_AHEAD and not allow_jump:
        raise SyncError(
            f"{repo}: release {number} is more than {MOST_AHEAD} above release {last}, and devices refuse it; give a "
            "smaller --sequence, or --allow-jump here and on every device"
        )
    return number


def _store_file(repo: Path, source: Path, ref: ObjectRef) -> None:
    path = repo / object_path(ref.sha256)
    if file_mismatch(path, ref.size, ref.sha256) is None:
        return
    make_folder(path.parent)
    partial = path.with_name(path.name + ".partial")
    shutil.copyfile(source, partial)
    if wrong := file_mismatch(partial, ref.size, ref.sha256):
        raise SyncError(f"{source} changed during publishing: {wrong}")
    replace_file(partial, path)


def _store_bytes(repo: Path, data: bytes) -> ObjectRef:
    ref = ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    path = repo / object_path(ref.sha256)
    if file_mismatch(path, ref.size, ref.sha256) is not None:
        make_folder(path.parent)
        write_durably(path, data)
    return ref


def _store_bundle(
    repo: Path, folder: Path, line: str, old: BundleHead | None, published: dict[int, BundleHead]
) -> BundleHead:
    manifest = read_bundle(folder).manifest
    data = (folder / MANIFEST_NAME).read_bytes()
    ref = ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    head = BundleHead(line=line, bundle_id=manifest.bundle_id, sequence=manifest.sequence, manifest=ref)
    if old is None or old.manifest != ref:
        _check_bundle_is_newer(repo, head, published)
    for entry in manifest.files:
        _store_file(repo, folder / entry.path, ObjectRef(sha256=entry.sha256, size=entry.size))
    _store_bytes(repo, data)
    return head


def _check_bundle_is_newer(repo: Path, head: BundleHead, published: dict[int, BundleHead]) -> None:
    """Check that a bundle is newer than every bundle that was published, also before a roll-back."""
    for sequence, other in reversed(published.items()):
        if other.manifest == head.manifest:
            raise SyncError(
                f"bundle {head.bundle_id} was published in release {sequence}; to return to it: "
                f"edge-sync publish {shlex.quote(str(repo))} --rollback-to {sequence}"
            )
    newest = max(published.values(), key=lambda other: other.sequence, default=None)
    if newest and head.sequence <= newest.sequence:
        raise SyncError(
            f"bundle {head.bundle_id} has sequence {head.sequence}, the published bundle {newest.bundle_id} "
            f"has {newest.sequence}; pack it with a larger --sequence"
        )


def _published_bundles(repo: Path) -> Iterator[tuple[int, BundleHead]]:
    for release in read_history(repo):
        try:
            yield release.sequence, read_bundle_head(repo, release)
        except SyncError as error:
            log.warning("%s; publishing goes on without it", error)


def _old_galleries(repo: Path, before: Release | None) -> dict[str, GalleryHead]:
    heads = {}
    for category, ref in before.gallery.heads.items() if before else []:
        try:
            heads[category] = parse(GalleryHead, read_object(repo, ref), f"gallery head {category!r}")
        except SyncError as error:
            log.warning("%s; publishing writes a new one", error)
    return heads


def _store_gallery(repo: Path, gallery: Gallery, line: str, before: dict[str, GalleryHead]) -> dict[str, GalleryHead]:
    heads = {}
    for category, entry in gallery.categories.items():
        ref = ObjectRef(sha256=entry.sha256, size=entry.size)
        _store_file(repo, gallery.path(category), ref)
        old = before.get(category)
        if old and old.base == ref:
            heads[category] = old
            continue
        heads[category] = GalleryHead(
            line=line,
            category=category,
            space_id=entry.space_id,
            heads=entry.heads,
            sequence=old.sequence + 1 if old else 1,
            base=ref,
            items=entry.items,
            vectors=entry.vectors,
        )
    return heads


def _write_release(
    repo: Path, release: Release, before: Release | None, bundle: BundleHead, galleries: dict[str, GalleryHead]
) -> None:
    """Write the heads for people, the history, and last the release that devices read."""
    paths = gallery_head_paths(release.line, galleries)
    documents = {bundle_head_path(release.line): canonical_json(bundle)}
    documents |= {paths[category]: canonical_json(head) for category, head in galleries.items()}
    if before and before.sequence not in history_sequences(repo):  # written by an older version
        documents[history_path(before.sequence)] = canonical_json(Envelope(signed=before))
    envelope = canonical_json(Envelope(signed=release))
    documents[history_path(release.sequence)] = envelope
    documents[RELEASE_NAME] = envelope
    for path, data in documents.items():
        make_folder((repo / path).parent)
        write_durably(repo / path, data + b"\n")
    log.info("%s: published release %s of line %s", repo, release.sequence, release.line)
