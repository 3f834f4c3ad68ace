"""Makes a repository whole again after a disaster: its folder was lost, or an old copy of it came back.

Rules this module keeps:
1. Devices never go back: every new version is above all that any copy, or the list beside the keys, knows of.
2. A copy is trusted as far as it is signed. Its roots must follow from root.json beside the keys.
3. Objects and targets are copied if their hash is right. What is missing then is published again from its folders.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge.durable import file_mismatch, make_folder, write_durably
from edge.errors import SyncError
from gallery_sync.repository.files import read_file
from gallery_sync.repository.folder import locked
from gallery_sync.repository.keys import ROLES, KeyRing
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.roles.commit import Committed
from gallery_sync.repository.roles.state import (
    LARGEST_TARGETS_BYTES,
    REPOSITORY_NAME,
    About,
    about_bytes,
    file_name,
    load,
    read_about,
    role_and_version,
    target_file,
)

_NUMBERED = tuple(role for role in ROLES if role != "root")  # a root is followed by its next version alone
MARGIN = 1000  # versions between the newest one that a copy has and the new one: devices may have seen some of them
_KEPT_FOLDERS = ("releases", "bundles", "rollouts")  # for operators: they have no hash, and are copied as they are


@dataclass(frozen=True)
class Recovered:
    """What a recovery did."""

    committed: Committed
    objects: int  # that were copied
    lost: tuple[str, ...]  # targets that no copy has whole: publish them again
    problems: tuple[str, ...] = ()  # of copies that could not be used


def recover(
    repo: Path,
    keys: KeyRing,
    now: datetime,
    *,
    copies: Sequence[Path] = (),
    line: str | None = None,
    policy: str = "online",
    offline_days: int = 365,
    above: int = MARGIN,
) -> Recovered:
    """Make a repository again from copies of it, or from its roots beside the keys alone.

    Args:
        repo: its folder: lost, empty, or restored from an old copy.
        keys: of the repository; root.json beside them says which repository it is.
        now: UTC.
        copies: folders that hold a copy: a mirror, a backup, an air-gap stick.
        line: of the repository, if no copy tells it.
        policy: likewise.
        offline_days: likewise.
        above: how far new versions are above the newest known ones.

    Raises:
        SyncError: no copy can be used, keys are missing, or the disk failed.
    """
    make_folder(repo)
    with locked(repo), tempfile.TemporaryDirectory(dir=repo.parent) as scratch:
        sources = [_as_repository(copy, Path(scratch) / str(number)) for number, copy in enumerate((repo, *copies))]
        usable, problems = _usable(sources)
        objects = sum(_copy_objects(copy, repo) for copy in sources if copy != repo)
        if not usable and copies:
            raise SyncError(
                f"no copy can be used; to begin again from the roots beside the keys, give none: {problems[0]}"
            )
        if not usable:
            return _from_roots(repo, keys, now, _about(repo, line, policy, offline_days), above, objects)
        _copy_metadata(max(usable, key=lambda copy: usable[copy]), repo, keys)
        if not (repo / REPOSITORY_NAME).exists():
            _write(repo / REPOSITORY_NAME, about_bytes(_about(repo, line, policy, offline_days)))
        metadata = SignedMetadata.open_older(repo, keys)
        lost = _drop_lost(metadata, repo, sources)
        metadata.number_above(_above(keys, metadata, above))
        return Recovered(metadata.commit(now), objects, tuple(lost), tuple(problems))


def _usable(sources: Sequence[Path]) -> tuple[dict[Path, int], list[str]]:
    """Return which copies hold whole metadata, with the version of timestamp, and what is wrong with the others."""
    usable, problems = {}, []
    for copy in sources:
        try:
            state = load(copy, None)
        except SyncError as error:
            problems.append(str(error))
            continue
        if state is not None:
            usable[copy] = state.timestamp.signed.version
        elif copy != sources[0]:
            problems.append(f"{copy}: has no metadata/timestamp.json; it is not a copy of a repository")
    return usable, problems


def _as_repository(copy: Path, scratch: Path) -> Path:
    """Return a copy as a repository folder: that of a device has the names of files without versions."""
    if not (copy / "timestamp.json").is_file():
        return copy
    make_folder(scratch / "metadata")
    for path in (*copy.glob("*.json"), *copy.glob("root_history/*.json")):
        data = read_file(path, LARGEST_TARGETS_BYTES)
        role, version = role_and_version(data, path)
        (scratch / "metadata" / file_name(role or path.stem, version)).write_bytes(data)
    return scratch


def _about(repo: Path, line: str | None, policy: str, offline_days: int) -> About:
    if line is None and (repo / REPOSITORY_NAME).exists():
        return read_about(repo)
    if line is None:
        raise SyncError("no copy of the repository was given; say which line it is with --line, and its --policy")
    return About(line=line, policy="offline" if policy == "offline" else "online", offline_days=offline_days)


def _from_roots(repo: Path, keys: KeyRing, now: datetime, about: About, above: int, objects: int) -> Recovered:
    """Begin again with the newest root; devices go on from theirs, for every root is there again."""
    root = keys.trusted_root()
    if root is None:
        raise SyncError(
            f"{keys.folder}: has no root.json, and there is no copy of the repository; devices must enrol again"
        )
    damaged = repo / "metadata/timestamp.json"
    if damaged.exists():
        damaged.rename(damaged.with_name("timestamp.json.damaged"))
    for version, data in keys.roots().items():
        _write(repo / f"metadata/{version}.root.json", data)
    _write(repo / REPOSITORY_NAME, about_bytes(about))
    taken = keys.published()
    metadata = SignedMetadata.again(repo, keys, about, root, {role: taken.get(role, 0) + above for role in _NUMBERED})
    return Recovered(metadata.commit(now), objects, ())


def _above(keys: KeyRing, metadata: SignedMetadata, above: int) -> Mapping[str, int]:
    """Return the versions that new ones must exceed; a role whose keys are not here keeps its version if it may."""
    known = {role: max(metadata.version(role), keys.published().get(role, 0)) for role in _NUMBERED}
    return {
        role: version + above
        for role, version in known.items()
        if version > metadata.version(role) or metadata.can_sign(role)
    }


def _copy_metadata(source: Path, repo: Path, keys: KeyRing) -> None:
    for version, data in keys.roots().items():
        _write(repo / f"metadata/{version}.root.json", data)
    if source == repo:
        return
    if (source / REPOSITORY_NAME).exists():
        _write(repo / REPOSITORY_NAME, (source / REPOSITORY_NAME).read_bytes())
    files = sorted(
        (source / "metadata").glob("*.json"), key=lambda path: path.name == "timestamp.json"
    )  # it comes last
    for path in files:
        if path.is_file() and not path.is_symlink():
            _write(repo / "metadata" / path.name, path.read_bytes())
    for name in _KEPT_FOLDERS:
        if (source / name).is_dir():
            shutil.copytree(source / name, repo / name, dirs_exist_ok=True)


def _drop_lost(metadata: SignedMetadata, repo: Path, sources: Sequence[Path]) -> list[str]:
    """Copy the targets that some copy has whole; take the others out of their roles."""
    lost = []
    for role in ("models", "gallery", "rollout"):
        for path, listed in metadata.targets(role).items():
            name = target_file(path, listed.sha256)
            whole = [one / name for one in sources if file_mismatch(one / name, listed.size, listed.sha256) is None]
            if not whole:
                metadata.remove(role, path)
                lost.append(path)
            elif whole[0] != repo / name:
                _write(repo / name, whole[0].read_bytes())
    return lost


def _copy_objects(source: Path, repo: Path) -> int:
    copied = 0
    for path in sorted((source / "objects").glob("??/*")):
        target = repo / path.relative_to(source)
        if not path.is_file() or path.is_symlink():
            continue
        size = path.stat().st_size
        if file_mismatch(target, size, path.name) is None or file_mismatch(path, size, path.name) is not None:
            continue
        make_folder(target.parent)
        partial = target.with_name(target.name + ".partial")
        shutil.copyfile(path, partial)
        partial.replace(target)
        copied += 1
    return copied


def _write(path: Path, data: bytes) -> None:
    make_folder(path.parent)
    write_durably(path, data)
