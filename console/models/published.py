"""Makes folders of the newest pair that a repository published, as a device would have it, in a cache.

Rules this module keeps:
1. The files are verified by the hashes that were signed. What is half made is never used.
2. The folder is named by the release and the state of its galleries; the two newest are kept, older ones are removed.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.bundle.bundle import MANIFEST_NAME
from edge.bundle.layout import identity
from edge.errors import ConsoleError, FinesightError
from edge.file_names import distinct_file_names
from edge.gallery.generation import INDEX_NAME, write_gallery_index
from edge.gallery.store import SUFFIX

if TYPE_CHECKING:
    from gallery_sync.formats.documents import Release
    from gallery_sync.repository.published import Published

_KEPT = 2
_ATTEMPTS = 3  # while another process publishes
_POINTERS = ("metadata", "metadata/timestamp.json", "targets")


@dataclass(frozen=True, slots=True)
class PublishedPair:
    """The newest pair of a repository, and where its folders are or will be."""

    release: int
    bundle_id: str
    folder: Path

    @property
    def bundle(self) -> Path:
        """The bundle's folder."""
        return self.folder / "bundle"

    @property
    def gallery(self) -> Path:
        """The gallery's folder."""
        return self.folder / "gallery"

    @property
    def is_made(self) -> bool:
        """Whether the folders are there."""
        return (self.gallery / INDEX_NAME).is_file()


class PublishedPairs:
    """The newest pair of one repository."""

    def __init__(self, repo: Path, cache: Path) -> None:
        """Read nothing yet.

        Args:
            repo: folder of the repository.
            cache: where folders of pairs are made.
        """
        self._repo, self._cache = repo, cache
        self._lock = threading.Lock()
        self._seen: object = None
        self._newest: PublishedPair | None = None

    def newest(self) -> PublishedPair | None:
        """Return the newest pair; None if nothing was published. The metadata is read again when it has changed.

        Raises:
            SyncError: it is no repository, or damaged.
        """
        with self._lock:
            seen = tuple(identity(self._repo / name) for name in _POINTERS)
            if seen != self._seen:
                self._newest, self._seen = self._find(_read(self._repo))[0], seen
            return self._newest

    def make(self) -> PublishedPair:
        """Make the folders of the newest pair, and return it. This takes seconds with a large gallery.

        Raises:
            ConsoleError: nothing was published.
            FinesightError: the repository is damaged, or the disk failed.
        """
        if (known := self.newest()) is not None and known.is_made:
            return known
        with self._lock:
            for attempt in range(_ATTEMPTS):
                published = _read(self._repo)
                pair, release = self._find(published)
                if pair is None or release is None:
                    raise ConsoleError("missing", "the repository has no release yet; publish a bundle and a gallery")
                if pair.is_made:
                    return pair
                try:
                    self._make(published, release, pair)
                except FinesightError:
                    if attempt == _ATTEMPTS - 1:
                        raise
                except OSError as error:
                    raise ConsoleError("storage", f"{self._cache}: cannot be written: {error.strerror}") from error
                else:
                    self._remove_old(pair)
                    return pair
            raise AssertionError

    def _find(self, published: Published) -> tuple[PublishedPair | None, Release | None]:
        release = max(published.in_use, key=lambda one: one.sequence, default=None)
        if release is None or release.bundle_id not in published.heads:
            return None, None
        logs = sorted(published.log_hashes.items())
        state = hashlib.sha256(repr((release.model_dump_json(), logs)).encode()).hexdigest()[:16]
        folder = self._cache / f"release-{release.sequence}-{state}"
        return PublishedPair(release.sequence, release.bundle_id, folder), release

    def _make(self, published: Published, release: Release, pair: PublishedPair) -> None:
        self._cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=self._cache) as scratch:
            made = Path(scratch) / "pair"
            _write_bundle(published, release, made / "bundle")
            _write_gallery(published, release, made / "gallery")
            shutil.rmtree(pair.folder, ignore_errors=True)
            made.rename(pair.folder)

    def _remove_old(self, newest: PublishedPair) -> None:
        others = [one for one in self._cache.glob("release-*") if one != newest.folder]
        for old in sorted(others, key=lambda one: -one.stat().st_mtime)[_KEPT - 1 :]:
            shutil.rmtree(old, ignore_errors=True)


def _read(repo: Path) -> Published:
    from gallery_sync.repository.metadata import SignedMetadata
    from gallery_sync.repository.published import read_published

    return read_published(repo, SignedMetadata.open(repo))


def _write_bundle(published: Published, release: Release, folder: Path) -> None:
    from gallery_sync.formats.fields import ObjectRef, object_path
    from gallery_sync.repository.folder import object_problem, read_manifest, read_object

    head, repo = published.heads[release.bundle_id], published.repo
    folder.mkdir(parents=True)
    for entry in read_manifest(repo, head).files:
        ref = ObjectRef(sha256=entry.sha256, size=entry.size)
        if wrong := object_problem(repo, ref):
            raise ConsoleError("missing", f"bundle {release.bundle_id}: {wrong}")
        (folder / entry.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repo / object_path(entry.sha256), folder / entry.path)
    (folder / MANIFEST_NAME).write_bytes(read_object(repo, head.manifest))


def _write_gallery(published: Published, release: Release, folder: Path) -> None:
    from gallery_sync.repository.folder import read_manifest
    from gallery_sync.repository.galleries import make_store
    from gallery_sync.repository.pairs import space_for

    folder.mkdir(parents=True)
    manifest = read_manifest(published.repo, published.heads[release.bundle_id])
    names = distinct_file_names(published.logs)
    for category, log in published.logs.items():
        embedder = manifest.embedder_for(category)
        space = space_for(embedder, log, release.gallery_sequence) if embedder else None
        if space is None:
            continue
        out = folder / f"{names[category]}{SUFFIX}"
        made = make_store(published.repo, category, space, release.gallery_sequence, out)
        if made != out:
            shutil.copyfile(made, out)
    write_gallery_index(folder, release.created_at)
