"""What a repository has published: its signed documents as they are now.

Rules this module keeps:
1. A document counts only if the metadata names it, with the hash that the metadata has.
2. A damaged document is named in a warning. Releases and bundle heads are in the history, too: they are read from
   there, and the next publishing restores them. For a damaged gallery log it begins a new one.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edge.durable import make_folder, sha256_of, write_durably
from edge.errors import SyncError
from gallery_sync.formats.documents import (
    BundleHead,
    GalleryLog,
    Release,
    bundle_target,
    gallery_targets,
    release_target,
)
from gallery_sync.formats.fields import Document, parse
from gallery_sync.formats.rollouts import Rollouts, rollouts_target
from gallery_sync.repository.folder import read_history, read_old_head, remembered
from gallery_sync.repository.metadata_state import target_file

if TYPE_CHECKING:
    from gallery_sync.repository.metadata import SignedMetadata

log = logging.getLogger(__name__)
_Kind = TypeVar("_Kind", bound=Document)


@dataclass(frozen=True, slots=True)
class Published:
    """The documents that devices can see."""

    repo: Path
    line: str
    offline_days: int  # promised: a device that was away for so long still updates, and can be rolled back
    release: Release | None  # None: nothing was published
    heads: Mapping[str, BundleHead]  # of the bundles that a release may name, by bundle id
    head_hashes: Mapping[str, str]  # the hash of each
    logs: Mapping[str, GalleryLog]  # by category
    log_hashes: Mapping[str, str]  # of each log by its path, also of a damaged one
    damaged: Mapping[str, Path | None]  # copies of documents that are not as they were signed, by their path
    history: Mapping[int, Release | None] = field(default_factory=dict)  # by sequence number; None: damaged
    rollouts: Rollouts | None = None  # None: every device runs the release

    @property
    def head(self) -> BundleHead | None:
        """The head of the release's bundle."""
        return self.heads.get(self.release.bundle_id) if self.release else None

    @property
    def gallery_sequence(self) -> int:
        """The newest gallery sequence that was ever published."""
        of_releases = [release.gallery_sequence for release in self.history.values() if release]
        return max([0, *of_releases, *(one.sequence for one in self.logs.values())])

    def all_heads(self) -> dict[str, BundleHead]:
        """Return the heads of all bundles that a release ever named, those that were withdrawn too."""
        ids = {release.bundle_id for release in self.history.values() if release}
        old = {bundle_id: head for bundle_id in ids if (head := read_old_head(self.repo, bundle_id))}
        return old | dict(self.heads)

    @property
    def security_floor(self) -> int:
        """The newest security floor: no release may name a bundle with a smaller sequence number."""
        return max((head.security_floor for head in self.all_heads().values()), default=0)


def read_published(repo: Path, metadata: SignedMetadata) -> Published:
    """Read the signed documents of a repository.

    Raises:
        SyncError: the metadata is damaged, or the release is missing.
    """
    line = metadata.about.line
    damaged: dict[str, Path | None] = {}

    def read_one(role: str, path: str) -> bytes:
        try:
            data = metadata.read_target(path)
        except SyncError as error:
            log.warning("%s", error)
            damaged[path] = None
            sha256 = metadata.targets(role)[path].sha256
            for copy in remembered(repo, path):
                if sha256_of(copy) == sha256:
                    damaged[path] = copy
                    return copy.read_bytes()
            raise
        if data is None:
            raise SyncError(f"{path}: nobody signed it")
        return data

    def read(role: str, kind: type[_Kind], *paths: str) -> dict[str, _Kind]:
        found = {}
        for path in metadata.targets(role).keys() & paths if paths else metadata.targets(role):
            try:
                found[path] = parse(kind, read_one(role, path), path)
            except SyncError as error:
                log.warning("%s: %s", repo, error)
        return found

    heads = {path: head for path, head in read("models", BundleHead).items() if _is_head(path, head, line)}
    logs = read("gallery", GalleryLog)
    release = read("rollout", Release, release_target(line)).get(release_target(line))
    rollouts = read("rollout", Rollouts, rollouts_target(line)).get(rollouts_target(line))
    if release is None and release_target(line) in metadata.targets("rollout"):
        raise SyncError(
            f"{repo}: the document of the newest release is damaged; restore targets/ from a copy of the repository"
        )
    if rollouts is None and rollouts_target(line) in metadata.targets("rollout"):
        raise SyncError(
            f"{repo}: the document of the rollouts is damaged; restore targets/ from a copy of the repository"
        )
    models = metadata.targets("models")
    return Published(
        repo=repo,
        line=line,
        offline_days=metadata.about.offline_days,
        release=release,
        heads={head.bundle_id: head for head in heads.values()},
        head_hashes={head.bundle_id: models[path].sha256 for path, head in heads.items()},
        logs={one.category: one for path, one in logs.items() if log_path(line, one.category) == path},
        log_hashes={path: target.sha256 for path, target in metadata.targets("gallery").items()},
        damaged=damaged,
        history=read_history(repo, [*filter(None, [release]), *(rollouts.releases() if rollouts else [])]),
        rollouts=rollouts,
    )


def restore_documents(published: Published) -> None:
    """Write damaged documents of which there is a copy again.

    Raises:
        OSError: the disk failed.
    """
    for path, copy in published.damaged.items():
        if copy is not None:
            data = copy.read_bytes()
            target = published.repo / target_file(path, hashlib.sha256(data).hexdigest())
            make_folder(target.parent)
            write_durably(target, data)
            log.warning("%s: restored from %s", target, copy)


def log_path(line: str, category: str) -> str:
    """Return the target path of the log of one category."""
    return gallery_targets(line, [category])[category]


def _is_head(path: str, head: BundleHead, line: str) -> bool:
    return path == bundle_target(line, head.bundle_id)
