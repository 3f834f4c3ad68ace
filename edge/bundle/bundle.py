"""A bundle folder: its manifest, verified, and the galleries it may serve with.

Rules this module keeps:
1. A bundle is whole: size and SHA-256 of every listed file, regular files only, inside the folder.
2. A bundle and a gallery serve together only when they name the same embedding spaces, or the bundle declares the
   gallery's compatible (ADR 0006).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from edge.durable import mismatch
from edge.errors import BundleError
from edge.gallery.generation import Gallery
from edge.manifest import Manifest, parse_manifest

log = logging.getLogger(__name__)

MANIFEST_NAME = "bundle.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle folder and what it holds."""

    manifest: Manifest
    folder: Path

    def path(self, relative: str) -> Path:
        """Where a file of the manifest lies."""
        return self.folder / relative


def read_bundle(folder: Path, *, verify: bool = True) -> Bundle:
    """Read a bundle folder.

    Args:
        folder: of the bundle.
        verify: also check every listed file.

    Raises:
        BundleError: no manifest, a manifest this version refuses, or a file that is not the one it lists.
    """
    path = folder / MANIFEST_NAME
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{folder}: found no {MANIFEST_NAME}, expected a bundle folder")
    try:
        manifest = parse_manifest(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read: {error}") from error
    for entry in manifest.files if verify else []:
        file = folder / entry.path
        if not file.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{file}: found a link out of the bundle folder, expected a regular file in it")
        if wrong := mismatch(file, entry.size, entry.sha256):
            raise BundleError(wrong)
    return Bundle(manifest, folder)


def check_pair(bundle: Bundle, gallery: Gallery) -> None:
    """Check that queries of the bundle may be searched among the vectors of the gallery.

    Raises:
        BundleError: a category's spaces differ, and the bundle does not declare them compatible.
    """
    for category, entry in gallery.categories.items():
        embedder = bundle.manifest.embedder_of(category)
        if embedder is None:
            log.warning("gallery %s: no embedder of the bundle serves category %s", gallery.generation, category)
        elif embedder.dim == entry.dim and embedder.searches(category, entry.space_id):
            log.warning(
                "gallery %s: category %s is of an older embedding space, which bundle %s declares compatible",
                gallery.generation,
                category,
                bundle.manifest.bundle_id,
            )
        elif (embedder.space_id, embedder.dim) != (entry.space_id, entry.dim):
            raise BundleError(
                f"category {category!r}: found gallery {gallery.generation} in embedding space {entry.space_id} "
                f"of {entry.dim} numbers, expected space {embedder.space_id} of {embedder.dim} "
                f"of bundle {bundle.manifest.bundle_id}"
            )
