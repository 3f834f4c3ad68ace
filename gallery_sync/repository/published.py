"""What a repository has published: its signed documents as they are now.

Rules this module keeps:
1. A document counts only if the metadata names it, with the hash that the metadata has.
2. A damaged document is named in a warning. Releases and bundle heads are in the history, too: they are read from
   there, and the next publishing restores them. For a damaged gallery log it begins a new one.
3. A release counts as in use if a device may run it or be given it: the base, and all that the rollouts name.
"""

from __future__ import annotations

import hashlib
import logging
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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
from gallery_sync.formats.fields import Document, canonical_json, parse
from gallery_sync.formats.rollouts import MOST_HELD, Plan, Rollouts, rollouts_target
from gallery_sync.repository.folder import read_history, read_old_head, remembered
from gallery_sync.repository.roles.state import target_file

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

    @property
    def in_use(self) -> list[Release]:
        """The releases that devices may run or be given, the base first; one that has several parts is there once."""
        found = [*filter(None, [self.release]), *(self.rollouts.releases() if self.rollouts else [])]
        return list({one.sequence: one for one in reversed(found)}.values())[::-1]

    @property
    def newest_sequence(self) -> int:
        """The largest number of a release in use; 0: there is none."""
        return max((one.sequence for one in self.in_use), default=0)

    @property
    def plan(self) -> Plan | None:
        """The rollout that is under way."""
        return self.rollouts.plan if self.rollouts else None

    def roles_of(self, release: Release) -> list[str]:
        """Return what a release is to devices now: newest, held, and so on."""
        number, found = release.sequence, []
        if self.release is not None and self.release.sequence == number:
            found.append("newest")
        if self.rollouts is not None:
            named = self.rollouts
            found += ["held"] if any(one.sequence == number for one in named.held) else []
            found += [f"rollout {named.plan.id}"] if named.plan and named.plan.release.sequence == number else []
            found += [f"for {one.selector}" for one in named.groups if one.release.sequence == number]
            found += [f"pinned for {one.selector}" for one in named.pins if one.release.sequence == number]
        return found

    def refuse_during_rollout(self) -> None:
        """Refuse to change what all devices run while a rollout is under way.

        Raises:
            SyncError: one is.
        """
        if self.plan is None or self.release is None:  # after a disaster: devices need a release first
            return
        repo = shlex.quote(str(self.repo))
        raise SyncError(
            f"{self.repo}: rollout {self.plan.id} of release {self.plan.release.sequence} is under way; publish with "
            f"--hold, wait until it is complete, or end it first: edge-sync rollout abort {repo}"
        )

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
    _refuse_damaged(metadata, {release_target(line): release, rollouts_target(line): rollouts})
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


def _refuse_damaged(metadata: SignedMetadata, found: Mapping[str, Document | None]) -> None:
    """Refuse a repository that lacks a signed document without which nothing can be published."""
    for path, one in found.items():
        if one is None and path in metadata.targets("rollout"):
            name = "rollouts" if path == rollouts_target(metadata.about.line) else "newest release"
            raise SyncError(
                f"{metadata.repo}: the document of the {name} is damaged; restore targets/ from a copy of the "
                "repository"
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


def first_rollouts(line: str) -> Rollouts:
    """Return rollouts that say nothing yet."""
    return Rollouts(line=line, revision=1, pins=[], groups=[], held=[])


def with_held(rollouts: Rollouts, release: Release) -> Rollouts:
    """Return the rollouts with one more release that is held back."""
    held = sorted([*rollouts.held, release], key=lambda one: one.sequence)
    for one in held[:-MOST_HELD]:
        log.warning("release %s is not held any more: there are more than %s", one.sequence, MOST_HELD)
    return rollouts.model_copy(update={"held": held[-MOST_HELD:]})


def each_release(rollouts: Rollouts, change: Callable[[Release], Release]) -> Rollouts:
    """Return the rollouts with every release changed."""

    def changed(one: Any) -> Any:
        return one.model_copy(update={"release": change(one.release)})

    return rollouts.model_copy(
        update={
            "plan": changed(rollouts.plan) if rollouts.plan else None,
            "pins": [changed(one) for one in rollouts.pins],
            "groups": [changed(one) for one in rollouts.groups],
            "held": [change(one) for one in rollouts.held],
        }
    )


def put_rollouts(metadata: SignedMetadata, published: Published, rollouts: Rollouts) -> Rollouts:
    """Put the next revision of the rollouts, and return it; `commit` publishes it.

    Raises:
        SyncError: they break a limit.
    """
    last = published.rollouts.revision if published.rollouts else 0
    revision = max(last + 1, metadata.version("rollout"))  # which never goes back, also after a disaster
    path = rollouts_target(published.line)
    data = canonical_json(rollouts.model_copy(update={"revision": revision}))
    checked = parse(Rollouts, data, path)
    metadata.put("rollout", path, data)
    return checked


def log_path(line: str, category: str) -> str:
    """Return the target path of the log of one category."""
    return gallery_targets(line, [category])[category]


def _is_head(path: str, head: BundleHead, line: str) -> bool:
    return path == bundle_target(line, head.bundle_id)
