"""Assembles a release in a folder of its own: of files that the device has, and of downloads.

Rules this module keeps:
1. A bundle or gallery that is installed and whole is used where it is.
2. A file that may serve is copied, never linked: nothing that is written later can reach it. A download is linked.
3. What is assembled is verified as a whole, and bundle and gallery fit together.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge.bundle.bundle import MANIFEST_NAME, Bundle, check_compatible, read_bundle
from edge.bundle.layout import SLOTS, gallery_folder, gallery_generations, slot_folder
from edge.durable import file_mismatch
from edge.errors import BundleError, FinesightError, GalleryError, SyncError, one_line
from edge.gallery.generation import Gallery, read_gallery, write_gallery_index
from gallery_sync.device.plan import Plan
from gallery_sync.formats.fields import ObjectRef
from gallery_sync.fresh_files import copy_new, create_new
from gallery_sync.transport.download import Fetcher, ReleaseError

log = logging.getLogger(__name__)

INCOMING_NAME = "incoming"  # in the cache
_RESERVE_BYTES = 16 << 20  # stay free for events and logs


def assemble(
    plan: Plan, fetcher: Fetcher, state_dir: Path, cache: Path, free_bytes: Callable[[Path], int]
) -> tuple[Bundle, Gallery]:
    """Return the verified bundle and gallery of a release, where they are installed or in the cache.

    Args:
        plan: the release.
        fetcher: downloads into the cache.
        state_dir: of the device.
        cache: a folder for downloads; its folder `incoming` does not exist yet.
        free_bytes: returns the free space of the file system of a folder.

    Raises:
        ReleaseError: the release is wrong.
        SyncError: the network failed, or there is too little space.
        OSError: the disk failed.
    """
    incoming = cache / INCOMING_NAME
    bundle = _installed_bundle(state_dir, plan)
    gallery = _installed_gallery(state_dir, plan)
    wanted = {} if bundle else {f"bundle/{path}": ref for path, ref in plan.bundle_objects().items()}
    wanted |= {} if gallery else {f"gallery/{path}": ref for path, ref in plan.gallery_objects().items()}
    for path, source in _get_all(plan, wanted, fetcher, state_dir, free_bytes).items():
        _place(source, incoming / path, cache)
    with _map_content_errors(plan):
        if bundle is None:
            bundle = _finish_bundle(incoming / "bundle", plan)
        if gallery is None:
            gallery = _finish_gallery(incoming / "gallery", plan)
        check_compatible(bundle, gallery)
    return bundle, gallery


def _installed_bundle(state_dir: Path, plan: Plan) -> Bundle | None:
    """Return the bundle of a release if a slot holds it whole."""
    for slot in SLOTS:
        try:
            bundle = read_bundle(slot_folder(state_dir, slot))
            if (bundle.folder / MANIFEST_NAME).read_bytes() == plan.manifest_json:
                return bundle
        except (FinesightError, OSError) as error:
            log.debug("slot %s: %s", slot, error)
    return None


def _installed_gallery(state_dir: Path, plan: Plan) -> Gallery | None:
    """Return the gallery of a release if it is installed and whole."""
    try:
        return read_gallery(gallery_folder(state_dir, plan.release.gallery.generation))
    except (FinesightError, OSError) as error:
        log.debug("%s", error)
    return None


def _local_files(state_dir: Path) -> dict[str, Path]:
    """Return the paths of the files on the device, by the hash that they should have."""
    local: dict[str, Path] = {}
    for slot in SLOTS:
        with suppress(FinesightError, OSError):
            bundle = read_bundle(slot_folder(state_dir, slot), verify=False)
            local |= {file.sha256: bundle.path(file.path) for file in bundle.manifest.files}
    for generation in gallery_generations(state_dir):
        with suppress(FinesightError, OSError):
            gallery = read_gallery(gallery_folder(state_dir, generation), verify=False)
            local |= {entry.sha256: gallery.path(name) for name, entry in gallery.categories.items()}
    return local


def _get_all(
    plan: Plan, objects: dict[str, ObjectRef], fetcher: Fetcher, state_dir: Path, free_bytes: Callable[[Path], int]
) -> dict[str, Path]:
    """Return a verified file for each path: one that the device has, or a downloaded one."""
    wanted = {ref.sha256: ref for ref in objects.values()}
    local = {sha256: path for sha256, path in _local_files(state_dir).items() if sha256 in wanted}
    local = {sha256: path for sha256, path in local.items() if file_mismatch(path, wanted[sha256].size, sha256) is None}
    needed = 2 * sum(ref.size for ref in objects.values()) + _RESERVE_BYTES  # assembled, and installed
    if objects and (found := free_bytes(state_dir)) < needed:
        where = f"release {plan.release.sequence}"
        raise SyncError(f"{state_dir}: {found} bytes are free, but {where} needs {needed}; free some space")
    return {path: local.get(ref.sha256) or fetcher.get_object(ref, path) for path, ref in objects.items()}


def _place(source: Path, target: Path, cache: Path) -> None:
    """Put a file in the assembled folder: a link to a download, but a copy of what may serve."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.parent == cache:
        try:
            os.link(source, target)
        except OSError as error:  # the file system has no hard links
            log.debug("%s: %s", target, error)
        else:
            return
    copy_new(source, target)


@contextmanager
def _map_content_errors(plan: Plan) -> Iterator[None]:
    try:
        yield
    except (BundleError, GalleryError) as error:
        raise ReleaseError(f"release {plan.release.sequence} cannot be used: {one_line(str(error))}") from error


def _finish_bundle(folder: Path, plan: Plan) -> Bundle:
    folder.mkdir(parents=True, exist_ok=True)
    with create_new(folder / MANIFEST_NAME) as file:
        file.write(plan.manifest_json)
    return read_bundle(folder)


def _finish_gallery(folder: Path, plan: Plan) -> Gallery:
    folder.mkdir(parents=True, exist_ok=True)
    gallery = write_gallery_index(folder, plan.release.gallery.created_at)
    if gallery.generation != plan.release.gallery.generation:
        raise GalleryError(
            f"the stores are those of generation {gallery.generation}, expected {plan.release.gallery.generation}"
        )
    return gallery
