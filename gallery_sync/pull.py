"""Pulls a release to a device: downloads missing files, verifies them, and stages the release in the inactive slot.

Rules this module keeps:
1. The active bundle and gallery never change; `edge.bundle.slots.activate` is a separate step.
2. A release older than one already staged is rejected.
3. Files that the device already has are reused, after their hash is verified again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge.bundle import slots
from edge.bundle.active_pointer import read_active_pointer
from edge.bundle.bundle import MANIFEST_NAME, read_bundle
from edge.durable import file_mismatch, write_durably
from edge.errors import BundleError, FinesightError, SyncError
from edge.file_names import distinct_file_names
from edge.gallery.generation import generation_id, read_gallery, write_gallery_index
from edge.gallery.store import SUFFIX
from edge.manifest import Manifest, parse_manifest
from gallery_sync.download import Fetcher, Retry, Transport
from gallery_sync.repository import RELEASE_NAME, BundleHead, GalleryHead, ObjectRef, Release, parse

log = logging.getLogger(__name__)

_SMALL_BYTES = 4 << 20  # a release, a head or a manifest
_LARGEST_BYTES = 8 << 30  # all objects of a release


class ReleaseVerifier(Protocol):
    """Verifies a release."""

    def verify(self, release_json: bytes, where: str) -> Release:
        """Return the release in these bytes, or raise SyncError."""
        ...


@dataclass(frozen=True, slots=True)
class PullResult:
    """The result of a pull."""

    sequence: int  # sequence number of the release
    slot: str
    bundle_id: str
    gallery: str  # generation
    downloaded_bytes: int
    serving: bool  # the release is already active


@dataclass(frozen=True, slots=True)
class _Plan:
    """A release with its parsed documents."""

    release: Release
    head: BundleHead
    manifest_json: bytes
    manifest: Manifest
    galleries: dict[str, GalleryHead]

    def objects(self) -> dict[str, ObjectRef]:
        """Return the large objects by their path in the assembled folder."""
        files = {f"bundle/{file.path}": ObjectRef(sha256=file.sha256, size=file.size) for file in self.manifest.files}
        names = distinct_file_names(self.galleries)
        return files | {f"gallery/{names[name]}{SUFFIX}": head.base for name, head in self.galleries.items()}


@contextmanager
def _exclusive_lock(state_dir: Path) -> Iterator[None]:
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "sync.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SyncError(f"{state_dir}: another pull is running; wait until it ends") from error
        yield


def _small_object(fetcher: Fetcher, ref: ObjectRef, name: str) -> bytes:
    if ref.size > _SMALL_BYTES:
        raise SyncError(f"{name}: found {ref.size} bytes, expected at most {_SMALL_BYTES}")
    return fetcher.get_object(ref, name).read_bytes()


def _read_plan(fetcher: Fetcher, release: Release) -> _Plan:
    head = parse(BundleHead, _small_object(fetcher, release.bundle, "bundle head"), "bundle head")
    manifest_json = _small_object(fetcher, head.manifest, "bundle manifest")
    try:
        manifest = parse_manifest(manifest_json.decode(), f"bundle {head.bundle_id}")
    except (BundleError, UnicodeDecodeError) as error:
        raise SyncError(str(error)) from error
    if (manifest.bundle_id, manifest.sequence) != (head.bundle_id, head.sequence):
        raise SyncError(f"bundle head: found manifest of {manifest.bundle_id}, expected {head.bundle_id}")
    galleries = {}
    for category, ref in release.gallery.heads.items():
        where = f"gallery head {category}"
        gallery = parse(GalleryHead, _small_object(fetcher, ref, where), where)
        if gallery.category != category:
            raise SyncError(f"{where}: found category {gallery.category!r}, expected {category!r}")
        galleries[category] = gallery
    found = generation_id({category: gallery.entry() for category, gallery in galleries.items()})
    if found != release.gallery.generation:
        raise SyncError(f"release: found heads of generation {found}, expected {release.gallery.generation}")
    return _Plan(release, head, manifest_json, manifest, galleries)


def _local_files(state_dir: Path) -> dict[str, Path]:
    """Return the paths of the files on the device, by the hash that they should have."""
    local: dict[str, Path] = {}
    for slot in slots.SLOTS:
        try:
            bundle = read_bundle(slots.slot_folder(state_dir, slot), verify=False)
        except FinesightError:
            continue
        local |= {file.sha256: bundle.path(file.path) for file in bundle.manifest.files}
    for folder in (state_dir / "gallery").glob("[0-9a-f]*"):
        try:
            gallery = read_gallery(folder, verify=False)
        except FinesightError:
            continue
        local |= {entry.sha256: gallery.path(name) for name, entry in gallery.categories.items()}
    return local


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # the file system has no hard links
        shutil.copyfile(source, target)


def _assemble(plan: _Plan, fetcher: Fetcher, state_dir: Path, target: Path, free_bytes: Callable[[Path], int]) -> None:
    """Assemble bundle and gallery as folders of hard links to local and downloaded files."""
    objects = plan.objects()
    wanted = {ref.sha256: ref for ref in objects.values()}
    local = {sha256: path for sha256, path in _local_files(state_dir).items() if sha256 in wanted}
    local = {sha256: path for sha256, path in local.items() if file_mismatch(path, wanted[sha256].size, sha256) is None}
    total = sum(ref.size for ref in wanted.values())
    needed = total + sum(ref.size for ref in wanted.values() if ref.sha256 not in local)
    where = f"release {plan.release.sequence}"
    if total > _LARGEST_BYTES:
        raise SyncError(f"{where}: found {total} bytes, expected at most {_LARGEST_BYTES}")
    if (found := free_bytes(state_dir)) < needed:
        raise SyncError(f"{state_dir}: {found} bytes are free, but {where} needs {needed}; free some space")
    shutil.rmtree(target, ignore_errors=True)
    for path, ref in objects.items():
        _link(local.get(ref.sha256) or fetcher.get_object(ref, path), target / path)
    for folder in ("bundle", "gallery"):
        (target / folder).mkdir(exist_ok=True)
    (target / "bundle" / MANIFEST_NAME).write_bytes(plan.manifest_json)
    write_gallery_index(target / "gallery", plan.release.gallery.created_at)


def _check_not_older(state_dir: Path, release: Release) -> None:
    path = state_dir / "sync.json"
    try:
        last_sequence = int(json.loads(path.read_bytes())["sequence"])
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise SyncError(f"{path} is damaged; delete it to allow any release") from error
    if release.sequence < last_sequence:
        raise SyncError(
            f"release {release.sequence} is older than release {last_sequence}, staged before; publish a new one"
        )


def _remove_stale_parts(cache: Path, plan: _Plan) -> None:
    """Delete parts of objects that this release does not need."""
    wanted = {ref.sha256 for ref in plan.objects().values()}
    for file in cache.glob("*.part"):
        if file.name.removesuffix(".part") not in wanted:
            file.unlink()


def pull(
    transport: Transport,
    state_dir: Path,
    verifier: ReleaseVerifier,
    *,
    retry: Retry = Retry(attempts=5, sleep=time.sleep, jitter=random.random),  # noqa: B008 - frozen
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> PullResult:
    """Download the newest release and stage it on this device.

    Args:
        transport: source of the repository files, from `open_transport`.
        state_dir: state folder of the device.
        verifier: verifies the release.
        retry: attempts and waits of a download.
        free_bytes: returns the free space of the file system of a folder.

    Raises:
        SyncError: the network, the repository or the disk failed.
        BundleError: the embedding spaces of bundle and gallery differ, or a pointer file is damaged.
    """
    cache = state_dir / "cache" / "sync"
    try:
        with _exclusive_lock(state_dir):
            cache.mkdir(parents=True, exist_ok=True)
            fetcher = Fetcher(transport, cache, retry)
            where = f"{transport.base}/{RELEASE_NAME}"
            release = verifier.verify(fetcher.get_small(RELEASE_NAME, _SMALL_BYTES), where)
            _check_not_older(state_dir, release)
            plan = _read_plan(fetcher, release)
            _remove_stale_parts(cache, plan)
            _assemble(plan, fetcher, state_dir, cache / "incoming", free_bytes)
            pulled = _install(plan, cache / "incoming", state_dir, fetcher.downloaded_bytes)
            shutil.rmtree(cache)
    except OSError as error:
        raise SyncError(f"{state_dir}: cannot read or write: {error.strerror or error}") from error
    return pulled


def _install(plan: _Plan, incoming: Path, state_dir: Path, downloaded_bytes: int) -> PullResult:
    slot = slots.install_bundle(incoming / "bundle", state_dir)
    generation = slots.install_gallery(incoming / "gallery", state_dir)
    now = read_active_pointer(state_dir)
    serving = now is not None and (now.slot, now.gallery) == (slot, generation)
    if not serving:
        slots.stage(state_dir, slot, generation)
    write_durably(state_dir / "sync.json", json.dumps({"sequence": plan.release.sequence}).encode())
    log.info("release %s is ready: bundle %s, gallery %s", plan.release.sequence, plan.manifest.bundle_id, generation)
    return PullResult(plan.release.sequence, slot, plan.manifest.bundle_id, generation, downloaded_bytes, serving)
