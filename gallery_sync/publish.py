"""Publishes a bundle and a gallery in a repository: first objects, then heads, then the release that names them."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path

from edge.bundle.bundle import MANIFEST_NAME, check_compatible, read_bundle
from edge.durable import file_mismatch, fsync_file, fsync_folder, write_durably
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
    canonical_json,
    gallery_head_paths,
    object_path,
    parse,
    read_object,
    read_release,
)

log = logging.getLogger(__name__)


def _store_file(repo: Path, source: Path, ref: ObjectRef) -> None:
    path = repo / object_path(ref.sha256)
    if file_mismatch(path, ref.size, ref.sha256) is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    shutil.copyfile(source, partial)
    if wrong := file_mismatch(partial, ref.size, ref.sha256):
        raise SyncError(f"{source} changed during publishing: {wrong}")
    fsync_file(partial)
    partial.replace(path)
    fsync_folder(path.parent)


def _store_bytes(repo: Path, data: bytes) -> ObjectRef:
    ref = ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    path = repo / object_path(ref.sha256)
    if file_mismatch(path, ref.size, ref.sha256) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, data)
    return ref


def _store_bundle(repo: Path, folder: Path, line: str, before: BundleHead | None) -> BundleHead:
    manifest = read_bundle(folder).manifest
    data = (folder / MANIFEST_NAME).read_bytes()
    ref = ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    if before and before.manifest != ref and manifest.sequence <= before.sequence:
        raise SyncError(
            f"bundle {manifest.bundle_id} has sequence {manifest.sequence}, the published bundle {before.bundle_id} "
            f"has {before.sequence}; pack it with a larger --sequence"
        )
    for entry in manifest.files:
        _store_file(repo, folder / entry.path, ObjectRef(sha256=entry.sha256, size=entry.size))
    _store_bytes(repo, data)
    return BundleHead(line=line, bundle_id=manifest.bundle_id, sequence=manifest.sequence, manifest=ref)


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


def _write_heads(repo: Path, heads: dict[str, bytes]) -> None:
    for path, data in heads.items():
        (repo / path).parent.mkdir(parents=True, exist_ok=True)
        write_durably(repo / path, data + b"\n")


def _next_sequence(before: Release | None, line: str, sequence: int | None, repo: Path) -> int:
    if before is None:
        return 1 if sequence is None else sequence
    if before.line != line:
        raise SyncError(f"{repo}: found line {before.line!r}, expected {line!r}; one repository has one line")
    if sequence is not None and sequence <= before.sequence:
        raise SyncError(f"{repo}: release {before.sequence} is published; give a --sequence above it, not {sequence}")
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
    """Publish a bundle and a gallery. Publishing the same ones again changes nothing.

    Args:
        repo: the repository folder; created if missing.
        bundle_folder: a packed bundle.
        gallery_folder: a gallery generation with its index.
        line: product line; a repository has one line.
        created_at: ISO 8601, UTC.
        sequence: sequence number of the release; None: one more than the last.

    Raises:
        BundleError: the bundle is damaged, or its embedding space does not match the gallery.
        GalleryError: the gallery is damaged.
        SyncError: a sequence decreases, the line differs, or the disk failed.
    """
    bundle, gallery = read_bundle(bundle_folder), read_gallery(gallery_folder)
    check_compatible(bundle, gallery)
    before = read_release(repo)
    number = _next_sequence(before, line, sequence, repo)
    old_bundle = parse(BundleHead, read_object(repo, before.bundle), "bundle head") if before else None
    old_heads = before.gallery.heads.items() if before else []
    old_galleries = {name: parse(GalleryHead, read_object(repo, ref), name) for name, ref in old_heads}
    try:
        bundle_head = _store_bundle(repo, bundle_folder, line, old_bundle)
        gallery_heads = _store_gallery(repo, gallery, line, old_galleries)
        if before and (bundle_head, gallery_heads) == (old_bundle, old_galleries):
            log.info("%s: release %s already holds this bundle and gallery", repo, before.sequence)
            return before
        head_files = {bundle_head_path(line): canonical_json(bundle_head)}
        paths = gallery_head_paths(line, gallery_heads)
        refs = {}
        for category, head in gallery_heads.items():
            head_files[paths[category]] = canonical_json(head)
            refs[category] = _store_bytes(repo, canonical_json(head))
        release = Release(
            line=line,
            sequence=number,
            created_at=created_at,
            bundle=_store_bytes(repo, canonical_json(bundle_head)),
            gallery=GalleryRelease(generation=gallery.generation, created_at=gallery.created_at, heads=refs),
        )
        _write_heads(repo, head_files)
        write_durably(repo / RELEASE_NAME, canonical_json(Envelope(signed=release)) + b"\n")
    except OSError as error:
        raise SyncError(f"{repo}: cannot write: {error.strerror or error}") from error
    log.info("%s: published release %s of line %s", repo, release.sequence, line)
    return release
