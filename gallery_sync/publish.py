"""Put a bundle and a gallery into a repository: objects first, then heads, then the release that names them."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path

from edge.bundle.bundle import MANIFEST_NAME, check_compatible, read_bundle
from edge.durable import fsync_file, fsync_folder, file_mismatch, write_durably
from edge.errors import SyncError
from edge.gallery.generation import Gallery, read_gallery
from gallery_sync.repository import (
    RELEASE_NAME,
    BundleHead,
    Envelope,
    GalleryHead,
    GalleryRelease,
    ObjectRef,
    Release,
    bundle_head_path,
    canonical,
    gallery_head_path,
    object_path,
    parse,
    read_object,
    read_release,
)

log = logging.getLogger(__name__)


def _put_file(repo: Path, source: Path, ref: ObjectRef) -> None:
    path = repo / object_path(ref.sha256)
    if file_mismatch(path, ref.size, ref.sha256) is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    shutil.copyfile(source, partial)
    if wrong := file_mismatch(partial, ref.size, ref.sha256):
        raise SyncError(f"{source} changed while it was published: {wrong}")
    fsync_file(partial)
    partial.replace(path)
    fsync_folder(path.parent)


def _put_bytes(repo: Path, data: bytes) -> ObjectRef:
    ref = ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    path = repo / object_path(ref.sha256)
    if file_mismatch(path, ref.size, ref.sha256) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, data)
    return ref


def _put_bundle(repo: Path, folder: Path, line: str, before: BundleHead | None) -> BundleHead:
    manifest = read_bundle(folder).manifest
    data = (folder / MANIFEST_NAME).read_bytes()
    ref = ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    if before and before.manifest != ref and manifest.sequence <= before.sequence:
        raise SyncError(
            f"bundle {manifest.bundle_id}: found sequence {manifest.sequence}, "
            f"expected more than {before.sequence} of the published {before.bundle_id}"
        )
    for entry in manifest.files:
        _put_file(repo, folder / entry.path, ObjectRef(sha256=entry.sha256, size=entry.size))
    _put_bytes(repo, data)
    return BundleHead(line=line, bundle_id=manifest.bundle_id, sequence=manifest.sequence, manifest=ref)


def _put_gallery(repo: Path, gallery: Gallery, line: str, before: dict[str, GalleryHead]) -> dict[str, GalleryHead]:
    heads = {}
    for category, entry in gallery.categories.items():
        ref = ObjectRef(sha256=entry.sha256, size=entry.size)
        _put_file(repo, gallery.path(category), ref)
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


def _write_heads(repo: Path, heads: dict[str, bytes]) -> None:
    for path, data in heads.items():
        (repo / path).parent.mkdir(parents=True, exist_ok=True)
        write_durably(repo / path, data + b"\n")


def _newer_than(before: Release | None, line: str, sequence: int | None, repo: Path) -> int:
    if before is None:
        return 1 if sequence is None else sequence
    if before.line != line:
        raise SyncError(f"{repo}: found line {before.line!r}, expected {line!r}")
    if sequence is not None and sequence <= before.sequence:
        raise SyncError(f"{repo}: found sequence {sequence} for the release, expected more than {before.sequence}")
    return before.sequence + 1 if sequence is None else sequence


def publish(
    repo: Path,
    bundle_folder: Path,
    gallery_folder: Path,
    *,
    line: str,
    created_at: str,
    sequence: int | None = None,
) -> Release:
    """Publish a pair; the same pair again changes nothing.

    Args:
        repo: the repository folder; made when missing.
        bundle_folder: a packed bundle.
        gallery_folder: a sealed generation.
        line: of products; one repository serves one.
        created_at: ISO 8601, UTC.
        sequence: of the release; None: one more than the last.

    Raises:
        BundleError: the bundle is not whole, or of another embedding space than the gallery.
        GalleryError: the gallery is not whole.
        SyncError: a sequence goes back, the line is another, or the disk refused.
    """
    bundle, gallery = read_bundle(bundle_folder), read_gallery(gallery_folder)
    check_compatible(bundle, gallery)
    before = read_release(repo)
    number = _newer_than(before, line, sequence, repo)
    old_bundle = parse(BundleHead, read_object(repo, before.bundle), "bundle head") if before else None
    old_heads = before.gallery.heads.items() if before else []
    old_galleries = {name: parse(GalleryHead, read_object(repo, ref), name) for name, ref in old_heads}
    try:
        bundle_head = _put_bundle(repo, bundle_folder, line, old_bundle)
        gallery_heads = _put_gallery(repo, gallery, line, old_galleries)
        if before and (bundle_head, gallery_heads) == (old_bundle, old_galleries):
            log.info("%s: release %s already holds this pair", repo, before.sequence)
            return before
        named = {bundle_head_path(line): canonical(bundle_head)}
        refs = {}
        for category, head in gallery_heads.items():
            named[gallery_head_path(line, category)] = canonical(head)
            refs[category] = _put_bytes(repo, canonical(head))
        release = Release(
            line=line,
            sequence=number,
            created_at=created_at,
            bundle=_put_bytes(repo, canonical(bundle_head)),
            gallery=GalleryRelease(generation=gallery.generation, created_at=gallery.created_at, heads=refs),
        )
        _write_heads(repo, named)
        write_durably(repo / RELEASE_NAME, canonical(Envelope(signed=release)) + b"\n")
    except OSError as error:
        raise SyncError(f"{repo}: the disk refused: {error.strerror or error}") from error
    log.info("%s: published release %s of line %s", repo, release.sequence, line)
    return release
