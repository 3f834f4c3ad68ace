"""Reads every document of a release and checks that they fit together, before any large object is downloaded."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from edge.errors import first_validation_error, one_line
from edge.file_names import distinct_file_names
from edge.gallery.generation import generation_id
from edge.gallery.store import SUFFIX
from edge.manifest import Manifest
from gallery_sync.formats.fields import (
    LARGEST_DOCUMENT_BYTES,
    LARGEST_RELEASE_BYTES,
    ObjectRef,
    parse,
    parse_bundle_manifest,
)
from gallery_sync.formats.unsigned import LARGEST_HEAD_BYTES, BundleHead, GalleryHead, Release
from gallery_sync.transport.download import Fetcher, ReleaseError

_LARGEST_HEADS_BYTES = 64 << 20  # of all categories


@dataclass(frozen=True, slots=True)
class Plan:
    """A release with its parsed documents."""

    release: Release
    manifest_json: bytes
    manifest: Manifest
    galleries: dict[str, GalleryHead]

    def bundle_objects(self) -> dict[str, ObjectRef]:
        """Return the files of the bundle by their path in it, without the manifest."""
        return {file.path: ObjectRef(sha256=file.sha256, size=file.size) for file in self.manifest.files}

    def gallery_objects(self) -> dict[str, ObjectRef]:
        """Return the stores of the gallery by their file name."""
        names = distinct_file_names(self.galleries)
        return {f"{names[category]}{SUFFIX}": head.base for category, head in self.galleries.items()}


def read_plan(fetcher: Fetcher, release: Release) -> Plan:
    """Download and check the documents of a release.

    Raises:
        ReleaseError: the release is wrong.
        SyncError: the network or the disk failed.
    """
    what = f"release {release.sequence}"
    _check_size(release.bundle, LARGEST_HEAD_BYTES, f"{what}: bundle head")
    head = parse(BundleHead, fetcher.get_document(release.bundle, "bundle head"), f"{what}: bundle head")
    _check_size(head.manifest, LARGEST_DOCUMENT_BYTES, f"{what}: bundle manifest")
    manifest_json = fetcher.get_document(head.manifest, "bundle manifest")
    manifest = parse_bundle_manifest(manifest_json, f"{what}: bundle {head.bundle_id}")
    if (manifest.bundle_id, manifest.sequence) != (head.bundle_id, head.sequence):
        raise ReleaseError(
            f"{what}: found the manifest of {manifest.bundle_id}, sequence {manifest.sequence}; expected that of "
            f"{head.bundle_id}, sequence {head.sequence}"
        )
    plan = Plan(release, manifest_json, manifest, _read_galleries(fetcher, release, what))
    for line in (head.line, *(gallery.line for gallery in plan.galleries.values())):
        if line != release.line:
            raise ReleaseError(f"{what}: found a head of line {line!r}, expected {release.line!r}")
    _check_sizes(plan, what)
    return plan


def _read_galleries(fetcher: Fetcher, release: Release, what: str) -> dict[str, GalleryHead]:
    for category, ref in release.gallery.heads.items():
        _check_size(ref, LARGEST_HEAD_BYTES, f"{what}: gallery head {category[:80]!r}")
    if (total := sum(ref.size for ref in release.gallery.heads.values())) > _LARGEST_HEADS_BYTES:
        raise ReleaseError(f"{what}: found gallery heads of {total} bytes, expected at most {_LARGEST_HEADS_BYTES}")
    galleries = {}
    for category, ref in release.gallery.heads.items():
        where = f"gallery head {category[:80]!r}"
        gallery = parse(GalleryHead, fetcher.get_document(ref, where), f"{what}: {where}")
        if gallery.category != category:
            raise ReleaseError(f"{what}: {where}: found category {gallery.category[:80]!r}")
        galleries[category] = gallery
    try:
        found = generation_id({category: gallery.entry() for category, gallery in galleries.items()})
    except ValidationError as error:
        raise ReleaseError(f"{what}: gallery head: {one_line(first_validation_error(error))}") from error
    if found != release.gallery.generation:
        raise ReleaseError(f"{what}: found heads of generation {found}, expected {release.gallery.generation}")
    return galleries


def _check_size(ref: ObjectRef, most: int, name: str) -> None:
    if ref.size > most:
        raise ReleaseError(f"{name}: found {ref.size} bytes, expected at most {most}")


def _check_sizes(plan: Plan, what: str) -> None:
    """Check how much a device would download and write."""
    sizes: dict[str, int] = {}
    for ref in (*plan.bundle_objects().values(), *plan.gallery_objects().values()):
        if sizes.setdefault(ref.sha256, ref.size) != ref.size:
            raise ReleaseError(f"{what}: object {ref.sha256} is listed with two sizes")
    if (total := sum(sizes.values())) > LARGEST_RELEASE_BYTES:
        raise ReleaseError(f"{what}: found {total} bytes, expected at most {LARGEST_RELEASE_BYTES}")
