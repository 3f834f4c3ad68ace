"""Fetches a release into the cache and verifies it as a whole. Interrupted at any point, the next run goes on.

Rules this module keeps:
1. Nothing that serves is written. Everything is made in `cache/sync` of the state folder, never in /tmp.
2. Disk space and memory are checked before the first large download.
3. What the device has is not downloaded again; what an earlier run downloaded or made is used.
4. A release is given back only when the bundle is whole, every category has the signed live root, and both fit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge.bundle.bundle import Bundle, check_compatible
from edge.bundle.pairs import read_pointer_or_none
from edge.errors import BundleError, GalleryError, one_line
from edge.gallery.generation import Gallery
from edge.telemetry.counters import Counters
from edge.types import Counts
from gallery_sync.device.bundle_files import installed_bundle, local_files, made_bundle, make_bundle, whole_files
from gallery_sync.device.deliveries import Objects, Tools, Way, get_file, ways
from gallery_sync.device.galleries import Cap, Maker
from gallery_sync.device.gallery_plan import Change, local_stores, plan_changes, same_gallery
from gallery_sync.device.resources import Resources, check_resources
from gallery_sync.device.stage import Fetched
from gallery_sync.device.wanted import Wanted
from gallery_sync.fresh_files import make_private_folder, remove
from gallery_sync.transport.errors import ReleaseError

log = logging.getLogger(__name__)

BUNDLE_NAME, GALLERY_NAME = "bundle", "gallery"  # folders in the cache


def cache_folder(state_dir: Path) -> Path:
    """Return the folder of downloads in a state folder."""
    return state_dir / "cache" / "sync"


@dataclass(frozen=True, slots=True)
class Options:
    """What a device allows, and doors to its world."""

    resources: Resources = field(default_factory=Resources)
    cap: Cap = field(default_factory=Cap)  # largest change of a gallery in one step
    counts: Counts = field(default_factory=Counters)
    may_fetch_whole: Callable[[int], bool] = lambda _: True  # so many bytes, after a delivery failed


@dataclass(frozen=True, slots=True)
class Plan:
    """What a release needs that the device does not have."""

    bundle: Bundle | None  # on the device, whole
    gallery: Gallery | None  # on the device, whole
    here: dict[str, Path]  # whole files of the bundle on the device, by hash
    missing: dict[str, list[Way]]  # the ways to each other file, by its path in the bundle
    changes: list[Change]

    @property
    def download_bytes(self) -> int:
        """What is downloaded if no fallback is needed, without what the cache has already."""
        files = sum({choices[0].object.sha256: choices[0].object.size for choices in self.missing.values()}.values())
        return files + (0 if self.gallery else sum(change.steps.size for change in self.changes))


def plan(wanted: Wanted, state_dir: Path) -> Plan:
    """Look what the device has of a release; nothing is downloaded.

    Raises:
        RefusedError: a gallery log does not lead to the release.
    """
    cache = cache_folder(state_dir)
    active, _ = read_pointer_or_none(state_dir)
    serving = active.gallery if active else None
    bundle = installed_bundle(state_dir, wanted) or made_bundle(cache / BUNDLE_NAME, wanted)
    local = {} if bundle else local_files(state_dir)
    here = whole_files(local, wanted)
    missing = {
        path: ways(ref, wanted.head.deliveries, local, cache)
        for path, ref in wanted.files().items()
        if not bundle and ref.sha256 not in here
    }
    changes = plan_changes(wanted, local_stores(state_dir, serving), serving)
    return Plan(bundle, same_gallery(changes, state_dir), here, missing, changes)


def fetch(wanted: Wanted, objects: Objects, state_dir: Path, options: Options = Options()) -> Fetched:
    """Download what is missing of a release, and verify all of it.

    Args:
        wanted: the release.
        objects: a `Fetcher` into `cache_folder(state_dir)`.
        state_dir: of the device.
        options: what the device allows.

    Raises:
        RefusedError: this device does not take the release: a gallery changes too much.
        ReleaseError: the release is wrong.
        BudgetError: the byte policy does not allow the bytes now.
        SyncError: the network failed, or there is too little disk or memory.
        OSError: the disk failed.
    """
    cache = cache_folder(state_dir)
    make_private_folder(cache)
    remove_stale(wanted, state_dir)
    todo = plan(wanted, state_dir)
    _check_resources(wanted, todo, state_dir, options)
    try:
        gallery = todo.gallery or _make_gallery(wanted, todo, objects, cache, options)
        bundle = todo.bundle or _make_bundle(wanted, todo, objects, cache, options)
        check_compatible(bundle, gallery)
    except (BundleError, GalleryError) as error:
        raise ReleaseError(f"{wanted.what} cannot be used: {one_line(str(error))}") from error
    return Fetched(wanted, bundle, gallery)


def _check_resources(wanted: Wanted, todo: Plan, state_dir: Path, options: Options) -> None:
    bundle = 0 if todo.bundle else sum(ref.size for ref in wanted.files().values())
    delivered = sum(choices[0].object.size for choices in todo.missing.values() if choices[0].method != "whole")
    changes = [] if todo.gallery else todo.changes
    check_resources(
        wanted.what,
        state_dir,
        options.resources,
        disk=2 * bundle + delivered + sum(change.disk_bytes for change in changes),  # made, and installed
        memory=sum(change.memory_bytes for change in changes),
    )


def _make_gallery(wanted: Wanted, todo: Plan, objects: Objects, cache: Path, options: Options) -> Gallery:
    cap = None if wanted.may_change_much else options.cap
    created_at = wanted.release.gallery_created_at or wanted.release.created_at
    maker = Maker(objects, options.counts, cap, options.may_fetch_whole)
    return maker.make(cache / GALLERY_NAME, todo.changes, created_at)


def _make_bundle(wanted: Wanted, todo: Plan, objects: Objects, cache: Path, options: Options) -> Bundle:
    tools = Tools(objects, _apply_delivery, options.counts, options.may_fetch_whole)
    sources = {}
    for path, ref in wanted.files().items():
        sources[path] = todo.here.get(ref.sha256) or get_file(path, ref, todo.missing[path], cache, tools)
    return make_bundle(cache / BUNDLE_NAME, wanted, sources, cache)


def _apply_delivery(delivery: Path, base: Path | None, out: Path, size: int, sha256: str) -> None:
    from gallery_sync.transport.compressed import apply_delivery

    apply_delivery(delivery, base, out, size, sha256)


def remove_stale(wanted: Wanted, state_dir: Path) -> None:
    """Remove from the cache what a release does not need.

    Raises:
        OSError: the disk failed.
    """
    needed = {ref.sha256 for ref in wanted.files().values()} | {one.object.sha256 for one in wanted.head.deliveries}
    for space in wanted.spaces().values():
        needed |= {base.object.sha256 for base in space.bases} | {one.object.sha256 for one in space.segments}
    for path in cache_folder(state_dir).iterdir():
        if path.name.partition(".")[0] not in needed and path.name != BUNDLE_NAME:
            remove(path)


def clear_cache(state_dir: Path) -> None:
    """Remove all downloads: after a release is installed, or was found wrong.

    Raises:
        OSError: the disk failed.
    """
    remove(cache_folder(state_dir))
