"""Releases as OCI artifacts: exported with all that a device needs, and made a repository folder again.

The artifact of a release holds the signed metadata and documents of the repository as they are now, and the objects of
every release that a device takes by them: during a rollout, those are several. `oras push` and `skopeo copy` carry it
through any registry. The registry is trusted with nothing: a device verifies what comes back as it verifies a stick.

Rules this module keeps:
1. The signed metadata says what a device runs. So only a release that devices can take now is exported: the newest one,
   or one that a rollout or a pin brings.
2. Import writes files of a repository alone, below its folder, and `timestamp.json` last. It never goes back to older
   metadata, and never writes into a repository that publishes.
3. Import verifies each byte against the hashes of the artifact. What is genuine is for the device to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.durable import make_folder, sha256_of
from edge.errors import SyncError, one_line
from edge.strict_json import parse_json
from gallery_sync.adapters.oci_layout import (
    CREATED,
    EMPTY,
    TITLE,
    VERSION,
    Descriptor,
    Manifest,
    add_to_index,
    blob_path,
    check_target,
    copy_verified,
    descriptor,
    manifest_json,
    read_manifest,
    write_blob,
)
from gallery_sync.adapters.repository_paths import TIMESTAMP, is_repository_path
from gallery_sync.formats.documents import BundleHead, Release, SpaceLog
from gallery_sync.formats.fields import LARGEST_RELEASE_BYTES, ObjectRef, object_path
from gallery_sync.repository.folder import locked
from gallery_sync.repository.folder import read_manifest as read_bundle_manifest
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.pairs import accepts
from gallery_sync.repository.published import Published, read_published
from gallery_sync.repository.roles.state import REPOSITORY_NAME, root_versions, target_file

ARTIFACT_TYPE = "application/vnd.finesight.release.v1+json"
OBJECT_TYPE, SIGNED_TYPE = "application/vnd.finesight.object.v1", "application/vnd.finesight.signed.v1+json"
_ROLES = ("snapshot", "targets", "models", "gallery", "rollout")
_LARGEST_TIMESTAMP_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Carried:
    """What was exported or imported."""

    line: str
    release: int
    reference: str
    digest: str  # of the manifest
    files: int
    bytes: int  # of the files
    copied: int  # files that were not there yet


def export_release(repo: Path, number: int, folder: Path) -> Carried:
    """Write a release into an OCI image layout.

    Args:
        repo: the repository folder.
        number: sequence number of the release.
        folder: of the layout: new, or one that holds other releases.

    Raises:
        SyncError: devices cannot take this release now, something is damaged, or the disk failed.
    """
    check_target(folder)
    with locked(repo), _disk_errors(folder):
        metadata = SignedMetadata.open(repo)
        published = read_published(repo, metadata)
        releases = _takeable(published, number)
        release = releases[0]
        files = dict(_signed_files(metadata))
        for one in releases:
            files |= dict(_objects(published, one, published.heads[one.bundle_id]))
        make_folder(folder)
        copied = sum(copy_verified(repo / path, blob_path(folder, ref), ref, path) for path, ref in files.items())
    layers = [
        descriptor(OBJECT_TYPE if path.startswith("objects/") else SIGNED_TYPE, ref, {TITLE: path})
        for path, ref in sorted(files.items())
    ]
    reference = f"{release.line.lstrip('-')}-{release.sequence}"
    with _disk_errors(folder):
        write_blob(folder, EMPTY)
        written = write_blob(folder, manifest_json(ARTIFACT_TYPE, layers, _annotations(release)))
        add_to_index(folder, reference, written, ARTIFACT_TYPE)
    total = sum(ref.size for ref in files.values())
    digest = f"sha256:{written.sha256}"
    return Carried(release.line, release.sequence, reference, digest, len(files), total, copied)


def _annotations(release: Release) -> dict[str, str]:
    return {
        CREATED: release.created_at,
        TITLE: f"release {release.sequence} of {release.line}",
        VERSION: str(release.sequence),
        "vnd.finesight.line": release.line,
        "vnd.finesight.release": str(release.sequence),
        "vnd.finesight.bundle": release.bundle_id,
        "vnd.finesight.gallery": str(release.gallery_sequence),
    }


def _takeable(published: Published, number: int) -> list[Release]:
    """Return every release that a device takes by the signed metadata of now, the one with this number first.

    Raises:
        SyncError: no device can take it, or the repository is not whole.
    """
    base, rollouts = published.release, published.rollouts
    found = [base] if base else []
    if rollouts is not None:
        found += [rollouts.plan.release] if rollouts.plan else []
        found += [pin.release for pin in rollouts.pins] + [group.release for group in rollouts.groups]
    by_number = {one.sequence: one for one in found}
    if number not in by_number:
        names = ", ".join(map(str, sorted(by_number))) or "none"
        raise SyncError(
            f"{published.repo}: devices cannot take release {number} now, so its export would lead to another one; "
            f"what can be exported: {names}; bring it to devices first: edge-sync rollout, or edge-sync rollback "
            f"{published.line} --to {number}"
        )
    if published.damaged or any(one.bundle_id not in published.heads for one in found):
        raise SyncError(f"{published.repo}: is not whole, so nothing is exported; see edge-sync check")
    return sorted(by_number.values(), key=lambda one: one.sequence != number)


def _signed_files(metadata: SignedMetadata) -> Iterator[tuple[str, ObjectRef]]:
    """Yield every signed file that a device may ask for, and the description of the repository."""
    names = [f"{version}.root" for version in root_versions(metadata.repo / "metadata")]
    names += ["timestamp", *(f"{metadata.version(role)}.{role}" for role in _ROLES)]
    paths = [REPOSITORY_NAME, *(f"metadata/{name}.json" for name in names)]
    for role in ("models", "gallery", "rollout"):
        paths += [target_file(path, target.sha256) for path, target in metadata.targets(role).items()]
    for path in paths:
        file = metadata.repo / path
        if not file.is_file():
            raise SyncError(f"{file}: is missing; see edge-sync check")
        yield path, ObjectRef(sha256=sha256_of(file), size=file.stat().st_size)


def _objects(published: Published, release: Release, head: BundleHead) -> Iterator[tuple[str, ObjectRef]]:
    """Yield every object that a device may need for a release, whatever it has."""
    manifest = read_bundle_manifest(published.repo, head)
    refs = [head.manifest, *(one.object for one in head.deliveries)]
    refs += [ObjectRef(sha256=file.sha256, size=file.size) for file in manifest.files]
    for category, log in published.logs.items():
        embedder = manifest.embedder_for(category)
        for space in log.spaces:
            refs += [one.object for one in space.segments]  # urgent ones are for the galleries of other bundles, too
            if embedder is not None and accepts(embedder, category, space.space_id):
                refs += _base(space, release.gallery_sequence)
    for ref in refs:
        yield object_path(ref.sha256), ref


def _base(space: SpaceLog, gallery_sequence: int) -> list[ObjectRef]:
    return [base.object for base in space.bases if base.sequence <= gallery_sequence][-1:]


def import_release(folder: Path, repo: Path, reference: str | None = None) -> Carried:
    """Make an artifact a repository folder again, from which devices pull.

    Args:
        folder: of the layout.
        repo: the folder to write: new, or of an earlier import.
        reference: of the artifact; None: the only one.

    Raises:
        SyncError: the layout is damaged or no release, the folder holds something newer or else, or the disk failed.
    """
    manifest = read_manifest(folder, reference)
    if manifest.artifact_type != ARTIFACT_TYPE:
        found = one_line(manifest.artifact_type) or "no type"
        raise SyncError(f"{folder}: found an artifact of type {found}, expected {ARTIFACT_TYPE}")
    layers = _checked_layers(folder, manifest)
    _check_repository(repo, folder, layers)
    copied = 0
    with _disk_errors(repo):
        for path, ref in sorted(layers.items(), key=lambda one: _order(one[0])):
            copied += copy_verified(blob_path(folder, ref), repo / path, ref, path)
    notes = manifest.annotations
    release = notes.get("vnd.finesight.release", "")
    return Carried(
        line=one_line(notes.get("vnd.finesight.line", "")),
        release=int(release) if re.fullmatch(r"[0-9]{1,15}", release) else 0,
        reference=reference or "",
        digest="",
        files=len(layers),
        bytes=sum(ref.size for ref in layers.values()),
        copied=copied,
    )


def _order(path: str) -> tuple[int, str]:
    """Order files so that each is there before one that names it; `timestamp.json` is the last."""
    return ("objects", "targets", REPOSITORY_NAME, "metadata").index(path.partition("/")[0]), path


def _checked_layers(folder: Path, manifest: Manifest) -> dict[str, ObjectRef]:
    """Return the files of an artifact by their path in the repository.

    Raises:
        SyncError: a path is none of a repository, comes twice, or all are too large.
    """
    found: dict[str, ObjectRef] = {}
    for layer in manifest.layers:
        _check_path(folder, layer)
        if found.setdefault(layer.title, layer.ref) != layer.ref:
            raise SyncError(f"{folder}: lists {layer.title} twice")
    if TIMESTAMP not in found or sum(ref.size for ref in found.values()) > LARGEST_RELEASE_BYTES:
        raise SyncError(f"{folder}: has no {TIMESTAMP}, or more than {LARGEST_RELEASE_BYTES} bytes; export it again")
    return found


def _check_path(folder: Path, layer: Descriptor) -> None:
    path = layer.title
    if not is_repository_path(path) or (path.startswith("objects/") and path != object_path(layer.ref.sha256)):
        raise SyncError(f"{folder}: found a file {one_line(path)!r}, expected files of a repository alone")


def _check_repository(repo: Path, folder: Path, layers: dict[str, ObjectRef]) -> None:
    """Refuse a folder that publishes by itself, holds something else, or is newer.

    Raises:
        SyncError: it is refused.
    """
    if not repo.exists():
        return
    if not repo.is_dir() or (repo / "releases").exists():
        raise SyncError(f"{repo}: publishes releases itself, or is no folder; import into another one")
    if any(repo.iterdir()) and not any((repo / name).exists() for name in ("objects", "metadata")):
        raise SyncError(f"{repo}: holds something else than a repository; import into a new folder")
    here, there = _version(repo / TIMESTAMP), _version(blob_path(folder, layers[TIMESTAMP]))
    if here > there:
        raise SyncError(f"{repo}: has timestamp {here}, which is newer than the {there} of {folder}; export it again")


def _version(timestamp: Path) -> int:
    """Return the version of a timestamp; 0: there is none, or it is damaged. Devices verify it."""
    try:
        with timestamp.open("rb") as file:
            found: Any = parse_json(file.read(_LARGEST_TIMESTAMP_BYTES + 1), _LARGEST_TIMESTAMP_BYTES)
        return int(found["signed"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or folder  # of a copy that failed, where it was to go
        raise SyncError(f"{where}: disk error: {error.strerror or error}; free some space, and run it again") from error
