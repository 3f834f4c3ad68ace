"""Read and verify a bundle folder, and check which galleries it can be used with.

Rules this module keeps:
1. A bundle is complete: every listed file is a regular file inside the folder, with the listed size and SHA-256.
2. A bundle and a gallery are used together only if they name the same embedding spaces, or if the bundle declares the
   gallery's space compatible (ADR 0006).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.durable import file_mismatch
from edge.errors import BundleError
from edge.gallery.generation import Gallery
from edge.manifest.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest

log = logging.getLogger(__name__)

MANIFEST_NAME = "bundle.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle folder and its manifest."""

    manifest: Manifest
    folder: Path

    def path(self, relative: str) -> Path:
        """Return the path of a file that the manifest lists."""
        return self.folder / relative


def read_bundle(folder: Path, *, verify: bool = True) -> Bundle:
    """Read a bundle folder.

    Args:
        folder: of the bundle.
        verify: also check every listed file.

    Raises:
        BundleError: the manifest is missing or invalid, or a file differs from its entry.
    """
    path = folder / MANIFEST_NAME
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{folder}: is not a bundle folder: it has no {MANIFEST_NAME}")
    try:
        with path.open("rb") as file:
            manifest = parse_manifest(file.read(MAX_MANIFEST_BYTES + 1), str(path))
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    bundle = Bundle(manifest, folder)
    for _, wrong in damaged_files(bundle) if verify else ():
        raise BundleError(wrong)
    return bundle


def damaged_files(bundle: Bundle) -> Iterator[tuple[str, str]]:
    """Yield the path of each listed file that is not as it is listed, and how it differs."""
    for entry in bundle.manifest.files:
        file = bundle.path(entry.path)
        if wrong := _leaves(bundle.folder, entry.path) or file_mismatch(file, entry.size, entry.sha256):
            yield entry.path, wrong


def _leaves(folder: Path, path: str) -> str | None:
    """Return that a listed file is outside the folder, by a link; None if it is inside."""
    file = folder / path
    try:
        inside = file.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links in a circle
        inside = False
    return None if inside else f"{file}: is a link that leaves the bundle folder; replace it with a regular file"


def check_compatible(bundle: Bundle, gallery: Gallery) -> None:
    """Check that the bundle's vectors can be compared with the gallery's.

    Raises:
        BundleError: a category is in another embedding space, and the bundle does not declare it compatible.
    """
    for category, entry in gallery.categories.items():
        embedder = bundle.manifest.embedder_for(category)
        if embedder is None:
            log.warning("gallery %s: the bundle has no embedder for category %s", gallery.generation, category)
        elif embedder.dim == entry.dim and embedder.compatible_gallery(category, entry.space_id):
            log.warning(
                "gallery %s: category %s is in an older embedding space, which bundle %s declares compatible",
                gallery.generation,
                category,
                bundle.manifest.bundle_id,
            )
        elif (embedder.space_id, embedder.dim) != (entry.space_id, entry.dim):
            raise BundleError(
                f"category {category!r}: found gallery {gallery.generation} in embedding space {entry.space_id} "
                f"of {entry.dim} numbers, expected space {embedder.space_id} of {embedder.dim} "
                f"of bundle {bundle.manifest.bundle_id}; embed the gallery with this bundle's embedder"
            )
