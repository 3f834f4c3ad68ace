"""Makes a bundle folder in the cache: of files that the device has, and of downloads.

Rules this module keeps:
1. A bundle that is installed and whole is used where it is.
2. A file that may serve is copied, never linked: nothing that is written later can reach it. A download is linked.
3. What is made is verified as a whole. A model that reads other files than its own is refused before it is installed.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from edge.bundle.bundle import MANIFEST_NAME, Bundle, read_bundle
from edge.bundle.layout import SLOTS, slot_folder
from edge.durable import file_mismatch
from edge.errors import BundleError, FinesightError
from edge.inference.external_weights import has_external_weights
from gallery_sync.device.wanted import Wanted
from gallery_sync.fresh_files import copy_new, create_new, remove

log = logging.getLogger(__name__)


def installed_bundle(state_dir: Path, wanted: Wanted) -> Bundle | None:
    """Return the bundle of a release if a slot holds it whole."""
    for slot in SLOTS:
        folder = slot_folder(state_dir, slot)
        try:
            if (folder / MANIFEST_NAME).read_bytes() == wanted.manifest_json:
                return read_bundle(folder)
        except (FinesightError, OSError) as error:
            log.debug("slot %s: %s", slot, error)
    return None


def made_bundle(folder: Path, wanted: Wanted) -> Bundle | None:
    """Return the bundle of a release if an earlier run made it in this folder of the cache."""
    try:
        if (folder / MANIFEST_NAME).read_bytes() == wanted.manifest_json:
            return read_bundle(folder)
    except (FinesightError, OSError) as error:
        log.debug("%s", error)
    return None


def local_files(state_dir: Path) -> dict[str, Path]:
    """Return the paths of the bundle files on the device, by the hash that they should have."""
    local: dict[str, Path] = {}
    for slot in SLOTS:
        with suppress(FinesightError, OSError):
            bundle = read_bundle(slot_folder(state_dir, slot), verify=False)
            local |= {file.sha256: bundle.path(file.path) for file in bundle.manifest.files}
    return local


def whole_files(local: dict[str, Path], wanted: Wanted) -> dict[str, Path]:
    """Return the local files that a bundle needs and that are whole, by hash."""
    sizes = {ref.sha256: ref.size for ref in wanted.files().values() if ref.sha256 in local}
    return {
        sha256: local[sha256] for sha256, size in sizes.items() if file_mismatch(local[sha256], size, sha256) is None
    }


def place(source: Path, target: Path, cache: Path) -> None:
    """Put a file in a folder: a link to a download, but a copy of what may serve.

    Raises:
        OSError: the disk failed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.parent == cache:
        try:
            os.link(source, target)
        except OSError as error:  # the file system has no hard links
            log.debug("%s: %s", target, error)
        else:
            return
    copy_new(source, target)


def make_bundle(folder: Path, wanted: Wanted, sources: dict[str, Path], cache: Path) -> Bundle:
    """Make and verify a bundle folder.

    Args:
        folder: in the cache; what an interrupted run left of it is removed.
        wanted: the release.
        sources: a verified file for the path of each file of the bundle.
        cache: the folder of downloads.

    Raises:
        BundleError: the bundle is not whole, or a model reads files that nobody signed.
        OSError: the disk failed.
    """
    remove(folder)
    folder.mkdir(parents=True)
    for path, source in sources.items():
        place(source, folder / path, cache)
    with create_new(folder / MANIFEST_NAME) as file:  # last: it makes the folder a bundle
        file.write(wanted.manifest_json)
    bundle = read_bundle(folder)
    for path in wanted.files():
        if path.endswith(".onnx") and has_external_weights(bundle.path(path)):
            raise BundleError(f"{path}: keeps weights in other files; export it as one file")
    return bundle
