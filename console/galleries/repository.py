"""The door to the signed repository whose gallery the console curates: what it has published now.

Rules this module keeps:
1. What was read is kept until the repository's timestamp changes, which every publishing writes.
2. The version of a gallery changes with what a plan depends on: logs, release, bundle, rollouts.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path

from console.settings import Settings
from edge.errors import ConsoleError
from edge.manifest.embedder import EmbedderModel, OpenSet
from edge.manifest.manifest import Manifest
from gallery_sync.formats.documents import GalleryLog, SpaceLog
from gallery_sync.repository.edited_gallery import edited_sequence
from gallery_sync.repository.items.edit import newest_manifest
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.pairs import space_for
from gallery_sync.repository.published import Published, read_published

NO_REPOSITORY = "the console has no repository whose gallery it can show; start it with --repo"


@dataclass(frozen=True, slots=True)
class Seen:
    """The state of the repository that a page or a plan is made from."""

    published: Published
    manifest: Manifest  # of the newest release's bundle
    version: str  # changes with what a plan depends on

    def shown_space(self, log: GalleryLog) -> SpaceLog | None:
        """Return the space that the newest bundle searches, or else the one that changed last; None: none is edited."""
        embedder, reached = self.manifest.embedder_for(log.category), edited_sequence(self.published)
        if embedder is not None:
            return space_for(embedder, log, reached)
        return max(
            (one for one in log.spaces if one.bases[0].sequence <= reached),
            key=lambda one: max(one.bases[-1].sequence, *(segment.sequence for segment in one.segments), 0),
            default=None,
        )

    def threshold(self, category: str, space_id: str) -> float | None:
        """Return the least similarity of a match; None: the newest bundle does not search this."""
        embedder = self.manifest.embedder_for(category)
        return None if embedder is None else _threshold(embedder, category, space_id)


class SignedGallery:
    """The gallery of the repository. Any thread may use it."""

    def __init__(self, settings: Settings) -> None:
        self.repo, self.keys, self.folder = settings.repository, settings.keys, settings.data / "gallery"
        self.turn = threading.RLock()  # of who reads the gallery into the tables, or publishes: one thread at a time
        self._lock = threading.Lock()
        self._held: tuple[bytes, Seen] | None = None

    def see(self) -> Seen:
        """Return what the repository has published.

        Raises:
            ConsoleError: the console has no repository (missing).
            SyncError: it is no repository, is damaged, or nothing was published.
        """
        if self.repo is None:
            raise ConsoleError("missing", NO_REPOSITORY)
        with self._lock:
            stamp = _stamp(self.repo)
            if self._held is None or self._held[0] != stamp or not stamp:
                published = read_published(self.repo, SignedMetadata.open(self.repo))
                manifest = newest_manifest(published)
                self._held = stamp, Seen(published, manifest, _version(self.repo, published))
            return self._held[1]


def _stamp(repo: Path) -> bytes:
    try:
        return (repo / "metadata" / "timestamp.json").read_bytes()
    except OSError:
        return b""  # the reader says what is wrong


def _version(repo: Path, published: Published) -> str:
    release, rollouts = published.release, published.rollouts
    parts = [
        str(repo),
        [release.sequence, release.bundle_id, release.bundle_head] if release else [],
        sorted(published.log_hashes.items()),
        rollouts.revision if rollouts else 0,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _threshold(embedder: EmbedderModel, category: str, space_id: str) -> float | None:
    if space_id == embedder.space_id:
        return embedder.open_set.get(category, OpenSet()).threshold
    compatible = embedder.compatible_gallery(category, space_id)
    return compatible.open_set.threshold if compatible else None
