"""Checks a repository to the last byte: signatures, expiry, documents, gallery logs, and the hash of every file.

Rules this module keeps:
1. A problem is what makes a device refuse or miss something now or, with the history, after a rollback. A warning is
   what will become one, or only costs space.
2. Nothing is changed, and no key is needed.
3. An unreadable document never hides what else is wrong.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from edge.durable import sha256_of
from edge.errors import FinesightError, SyncError
from gallery_sync.formats.config import ConfigFragment, is_config
from gallery_sync.formats.documents import GalleryLog, Release, SpaceLog
from gallery_sync.formats.fields import LARGEST_SEQUENCE, ObjectRef, object_path, parse
from gallery_sync.gallery_log import live_root
from gallery_sync.gallery_log.states import check_log, roots_of
from gallery_sync.repository.folder import history_path
from gallery_sync.repository.galleries import make_store, newest_root
from gallery_sync.repository.metadata import SignedMetadata, expiry_report
from gallery_sync.repository.pairs import Checked, check_bundle, check_pair, trimmed_categories, window_releases
from gallery_sync.repository.published import Published, log_path, read_published
from gallery_sync.repository.roles.state import target_file

log = logging.getLogger(__name__)

Reached = Callable[[str, ObjectRef], str | None]  # path, size and hash; returns what is wrong
_MOST_EARLIER_LOGS = 1000


@dataclass(slots=True)
class Report:
    """What a check found."""

    whole: int = 0  # objects
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_repository(repo: Path, now: datetime, *, history: bool = False, reached: Reached | None = None) -> Report:
    """Check everything that devices can fetch.

    Args:
        repo: the repository folder.
        now: the time, in UTC.
        history: also check that each earlier release of the promised offline window can be rolled back to.
        reached: also asks a web server for each file; None: only the folder is read.

    Raises:
        SyncError: the folder is no repository, or its metadata is damaged.
    """
    report = Report()
    metadata = SignedMetadata.open(repo)
    _check_expiry(repo, now, report)
    published = read_published(repo, metadata)
    report.problems += [
        f"{repo / target_file(path, metadata.targets(_role(path))[path].sha256)}: missing or damaged; "
        + ("publishing again restores it" if copy else "restore it from a copy of the repository")
        for path, copy in published.damaged.items()
    ]
    checked = Checked(repo)
    for head in published.heads.values():
        check_bundle(checked, head, deliveries=True)
    for path, one in published.logs.items():
        _check_log(checked, published, path, one, report)
    if published.release is None:
        report.warnings.append(f"{published.repo}: nothing was published yet")
    for release in published.in_use:
        _check_release(published, release, checked, report)
    _check_fragments(metadata, report)
    if history:
        _check_history(published, checked, now, report)
    _check_files(repo, checked, report)
    report.whole += checked.whole
    report.problems += checked.wrong
    if reached is not None:
        _check_reached(metadata, checked, reached, report)
    return report


def _role(path: str) -> str:
    return path.partition("/")[0]


def _check_expiry(repo: Path, now: datetime, report: Report) -> None:
    for expiry, state in expiry_report(repo, now):
        until = f"{expiry.expires_at:%Y-%m-%d %H:%M}"
        if state == "expired":
            report.problems.append(
                f"{expiry.role} {expiry.version} expired at {until}: devices go on with what they have and take "
                "nothing new; sign it again: edge-sync refresh, or edge-sync rotate --renew for a role of people"
            )
        elif state == "half":
            report.warnings.append(
                f"{expiry.role} {expiry.version} is past half of its life, and expires at {until}; run edge-sync "
                "refresh every day"
            )


def _check_log(checked: Checked, published: Published, category: str, one: GalleryLog, report: Report) -> None:
    where = f"gallery log of category {category!r}"
    if one.line != published.line:
        report.problems.append(f"{where}: found line {one.line!r}, expected {published.line!r}")
    for space in one.spaces:
        refs = [*(base.object for base in space.bases), *(segment.object for segment in space.segments)]
        whole = [checked.check(ref, f"a base or change of category {category!r}") for ref in refs]
        try:
            check_log(space)
            if all(whole):
                _check_roots(published.repo, category, space)
        except FinesightError as error:
            report.problems.append(f"{where}: {error}")
        if max(roots_of(space)) > one.sequence:
            report.problems.append(f"{where}: found state {max(roots_of(space))}, newer than the log's {one.sequence}")
    later = one
    for earlier in _earlier_logs(published, category, one):
        if problem := _fork(earlier, later):
            report.problems.append(f"{where}: {problem}: the log was forked; find out who signed it")
        later = earlier


def _check_roots(repo: Path, category: str, space: SpaceLog) -> None:
    """Check that each base has its signed root, and that the changes lead to the newest one."""
    for base in space.bases:
        found = live_root.of_store(repo / object_path(base.object.sha256))
        if found != base.live_root:
            raise SyncError(f"gallery {base.sequence} has live root {found}, expected {base.live_root}")
    with tempfile.TemporaryDirectory(prefix="finesight-check-") as folder:
        first = space.model_copy(update={"bases": space.bases[:1]})
        store = make_store(repo, category, first, LARGEST_SEQUENCE, Path(folder) / "store")
        if (found := live_root.of_store(store)) != newest_root(first):
            raise SyncError(f"the changes lead to live root {found}, expected {newest_root(first)}")


def _earlier_logs(published: Published, category: str, one: GalleryLog) -> Iterator[GalleryLog]:
    """Yield the logs before one, the newest first, as far as their files are kept."""
    path = log_path(published.line, category)
    for _ in range(_MOST_EARLIER_LOGS):
        if one.previous is None:
            return
        file = published.repo / target_file(path, one.previous)
        try:
            if not file.is_file() or sha256_of(file) != one.previous:
                return
            one = parse(GalleryLog, file.read_bytes(), str(file))
        except (OSError, SyncError) as error:
            log.warning("%s", error)
            return
        yield one


def _fork(earlier: GalleryLog, later: GalleryLog) -> str | None:
    """Return how a log contradicts the one before it; None if it does not."""
    if later.sequence < earlier.sequence:
        return f"sequence {later.sequence} follows {earlier.sequence}"
    for space in earlier.spaces:
        after = later.space(space.space_id)
        known = roots_of(after) if after else {}
        for sequence, root in roots_of(space).items():
            if known.get(sequence, root) != root:
                return f"gallery {sequence} has another live root than before"
    return None


def _check_release(published: Published, release: Release, checked: Checked, report: Report) -> None:
    head, what = published.heads.get(release.bundle_id), f"release {release.sequence}"
    if head is None:
        report.problems.append(f"{what}: nobody signed the head of its bundle {release.bundle_id}; publish again")
        return
    if published.head_hashes[head.bundle_id] != release.bundle_head:
        report.problems.append(
            f"{what}: names another head of bundle {head.bundle_id} than the signed one; publish again"
        )
    if release.gallery_sequence < head.gallery_from:
        report.problems.append(
            f"{what}: has gallery {release.gallery_sequence}, and its bundle needs {head.gallery_from}; publish again"
        )
    if head.sequence < published.security_floor:
        found = report.problems if release is published.release else report.warnings
        found.append(f"{what}: bundle {head.bundle_id} is below the security floor {published.security_floor}")
    check_pair(checked, published, head, release.gallery_sequence)


def _check_history(published: Published, checked: Checked, now: datetime, report: Report) -> None:
    window = {release.sequence for release in window_releases(published, now)}
    for number, release in published.history.items():
        if release is None:
            report.problems.append(f"{history_path(published.repo, number)}: damaged; it cannot be rolled back to")
            continue
        head = published.heads.get(release.bundle_id)
        if head is None:
            continue  # withdrawn: nobody goes back to it
        if number in window:
            check_pair(checked, published, head, release.gallery_sequence)
        elif gone := trimmed_categories(published, release, now):
            report.warnings.append(
                f"release {number} cannot be rolled back to any more: category {gone[0]!r} is trimmed"
            )


def _check_fragments(metadata: SignedMetadata, report: Report) -> None:
    for path in metadata.targets("rollout"):
        if not is_config(metadata.about.line, path):
            continue
        try:
            parse(ConfigFragment, metadata.read_target(path) or b"", path)
        except SyncError as error:
            report.problems.append(f"{error}; or publish it again: edge-sync config publish")


def _check_files(repo: Path, checked: Checked, report: Report) -> None:
    """Check the hashes of files that no document names now."""
    others = [path for path in (repo / "objects").rglob("*") if path.is_file() and path.name not in checked.problems]
    unnamed = 0
    for path in others:
        unnamed += path.stat().st_size
        if path.suffix == ".partial":
            report.warnings.append(f"{path}: left by an interrupted publishing; edge-sync gc removes it")
        elif sha256_of(path) != path.name:
            report.warnings.append(f"{path}: damaged, and no document names it; edge-sync gc removes it")
    for path in (repo / "targets").rglob("*.json"):
        if path.is_file() and sha256_of(path) != path.name.partition(".")[0] and not _is_known(path, report):
            report.warnings.append(f"{path}: damaged, and not in the newest metadata")
    if unnamed:
        report.warnings.append(f"{len(others)} objects of {unnamed} bytes are for earlier documents; see edge-sync gc")


def _is_known(path: Path, report: Report) -> bool:
    return any(problem.startswith(f"{path}:") for problem in report.problems)


def _check_reached(metadata: SignedMetadata, checked: Checked, reached: Reached, report: Report) -> None:
    """Ask a web server for everything that a device fetches."""
    paths = ["metadata/timestamp.json", *metadata_files(metadata)]
    for role in ("models", "gallery", "rollout"):
        paths += [target_file(path, target.sha256) for path, target in metadata.targets(role).items()]
    paths += [object_path(sha256) for sha256, problem in checked.problems.items() if problem is None]
    for path in paths:
        file = metadata.repo / path
        if file.is_file():
            ref = ObjectRef(sha256=sha256_of(file), size=file.stat().st_size)
            report.problems += filter(None, [reached(path, ref)])


def metadata_files(metadata: SignedMetadata) -> list[str]:
    """Return the paths of the newest metadata files with a version in their name."""
    roles = ("root", "snapshot", "targets", "models", "gallery", "rollout")
    return [f"metadata/{metadata.version(role)}.{role}.json" for role in roles]
