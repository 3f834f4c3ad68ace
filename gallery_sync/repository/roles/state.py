"""The signed metadata of a repository folder as it is on disk: read, verified, and how long each role lives.

    repository.json                    line and policy, for the operator's tools; no device trusts it
    metadata/N.root.json               which keys sign which role; every version is kept
    metadata/timestamp.json            the newest snapshot; devices ask for this file alone when nothing changed
    metadata/N.snapshot.json           the version and hash of every other role
    metadata/N.targets.json            the keys of models, rollout and gallery; it lists no target itself
    metadata/N.{models,rollout,gallery}.json   the targets, see gallery_sync.formats.documents
    targets/<folder>/<sha256>.<name>   the targets themselves

Rules this module keeps:
1. Nothing is signed again that was not verified: a change on the web server never gets a signature by accident.
2. Roots are verified one after the other, from the root that lies beside the keys, if there is one.
3. Metadata signed with the keys of the root before is accepted while reading, and marked: a rotation was interrupted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from edge.errors import SyncError, first_line, one_line
from edge.strict_json import parse_json
from gallery_sync.formats.fields import Document, Name, parse
from gallery_sync.repository.files import read_file

REPOSITORY_NAME = "repository.json"
TOP_ROLES, DELEGATED_ROLES = ("root", "targets", "snapshot", "timestamp"), ("models", "rollout", "gallery")
ISSUED_FIELD = "x-issued"  # of timestamp: when it was signed; devices never let their clock fall behind it
LARGEST_BYTES = {"root": 512_000, "timestamp": 16_384, "snapshot": 2_000_000}  # as python-tuf's client allows
LARGEST_TARGETS_BYTES = 5_000_000
LARGEST_VERSION = 2**31 - 1
ONLINE_DAYS, MODELS_DAYS, YEAR_DAYS = 7, 90, 365
LEAST_OFFLINE_DAYS, MOST_OFFLINE_DAYS = 90, 365

_Parsed = TypeVar("_Parsed", Root, Snapshot, Targets, Timestamp)


class About(Document):
    """What a repository is for: `repository.json`."""

    kind: ClassVar[str] = "description of a repository"

    schema_version: Literal[2] = Field(default=2, alias="schema")
    line: Name
    policy: Literal["online", "offline"]
    offline_days: Annotated[int, Field(strict=True, ge=LEAST_OFFLINE_DAYS, le=MOST_OFFLINE_DAYS)] = MOST_OFFLINE_DAYS

    def lifetime(self, role: str) -> timedelta:
        """Return how long metadata of a role is fresh after it was signed."""
        days = {"root": YEAR_DAYS, "targets": YEAR_DAYS}.get(role)
        if days is None:
            online = MODELS_DAYS if role == "models" else ONLINE_DAYS
            days = online if self.policy == "online" else self.offline_days
        return timedelta(days=days)


@dataclass(frozen=True)
class State:
    """The published metadata; everything in it is verified."""

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    timestamp_bytes: bytes
    snapshot: Metadata[Snapshot]
    targets: Mapping[str, Metadata[Targets]]  # of targets, models, rollout and gallery
    stale: frozenset[str]  # roles that are still signed with the keys of the root before

    def of(self, role: str) -> Metadata[Any]:
        """Return the metadata of a role."""
        top: dict[str, Metadata[Any]] = {"root": self.root, "snapshot": self.snapshot, "timestamp": self.timestamp}
        return top.get(role) or self.targets[role]


def read_about(repo: Path) -> About:
    """Read what a repository is for.

    Raises:
        SyncError: the folder is no repository, or the file is damaged.
    """
    path = repo / REPOSITORY_NAME
    if not path.exists():
        raise SyncError(f"{repo}: is not a repository of signed releases; run edge-sync init {repo} --line LINE first")
    return parse(About, read_file(path, 64 << 10, WAY_OUT), str(path))


def make_about(line: str, policy: str, offline_days: int) -> About:
    """Make what a repository is for, from what a person gave.

    Raises:
        SyncError: a value is wrong.
    """
    try:
        return About.model_validate({"line": line, "policy": policy, "offline_days": offline_days})
    except ValueError as error:
        raise SyncError(
            f"found line {one_line(line)!r}, policy {one_line(policy)!r} and {offline_days} days; expected a line of "
            "letters, digits, '.', '_' and '-', the policy online or offline, and 90 to 365 days"
        ) from error


def about_bytes(about: About) -> bytes:
    """Return the content of `repository.json`."""
    return (json.dumps(about.model_dump(by_alias=True), indent=1) + "\n").encode()


def load(repo: Path, trusted_root: bytes | None) -> State | None:
    """Read and verify the metadata of a repository; None if it has no timestamp: nothing was published.

    Raises:
        SyncError: a file is missing or damaged, or a signature is wrong.
    """
    folder = repo / "metadata"
    if not (folder / "timestamp.json").exists():
        return None
    roots = _roots(folder, trusted_root)
    root, earlier = roots[-1], [one.signed for one in roots[:-1]][-1:]
    stale: set[str] = set()

    def check(role: str, md: Metadata[Any], where: Path) -> None:
        if verifies(root.signed, role, md):
            return
        if not any(verifies(one, role, md) for one in earlier):
            raise SyncError(f"{where}: not signed by the keys of the role {role}; {WAY_OUT}")
        stale.add(role)

    path = folder / "timestamp.json"
    timestamp_bytes = read_file(path, LARGEST_BYTES["timestamp"], WAY_OUT)
    timestamp = read_metadata(Timestamp, timestamp_bytes, path)
    check("timestamp", timestamp, path)
    snapshot, path = _listed(folder, "snapshot", Snapshot, timestamp.signed.snapshot_meta)
    check("snapshot", snapshot, path)
    targets = {}
    for role in ("targets", *DELEGATED_ROLES):
        listed = snapshot.signed.meta.get(f"{role}.json")
        if listed is None:
            raise SyncError(f"{path}: does not list the role {role}; {WAY_OUT}")
        targets[role], where = _listed(folder, role, Targets, listed)
        if role == "targets":
            check(role, targets[role], where)
        elif not verifies(targets["targets"].signed, role, targets[role]):
            raise SyncError(f"{where}: not signed by the keys of the role {role}; {WAY_OUT}")
    return State(root, timestamp, timestamp_bytes, snapshot, targets, frozenset(stale))


WAY_OUT = "restore the file from a copy of the repository, or run edge-sync recover"


def verifies(by: Root | Targets, role: str, md: Metadata[Any]) -> bool:
    """Return whether enough keys of a role signed its metadata."""
    try:
        return by.get_verification_result(role, md.signed_bytes, md.signatures).verified
    except (ValueError, RepositoryError):
        return False


def read_metadata(kind: type[_Parsed], data: bytes, where: Path | str) -> Metadata[_Parsed]:
    """Parse metadata of a role; its signatures are not verified yet.

    Raises:
        SyncError: the bytes are not metadata of this kind.
    """
    try:
        parse_json(data, LARGEST_TARGETS_BYTES)
        md: Metadata[_Parsed] = Metadata.from_bytes(data)
    except (ValueError, RepositoryError) as error:
        told = one_line(first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error))
        raise SyncError(f"{where}: damaged: {told}; {WAY_OUT}") from error
    if not isinstance(md.signed, kind):
        raise SyncError(f"{where}: found metadata of {md.signed.type}, expected {kind.type}; {WAY_OUT}")
    return md


def role_and_version(data: bytes, where: Path) -> tuple[str, int]:
    """Return the role of metadata, empty where its file name says it (models, rollout and gallery), and its version.

    Raises:
        SyncError: the bytes are not metadata.
    """
    try:
        signed: Any = parse_json(data, LARGEST_TARGETS_BYTES)["signed"]
        role, version = str(signed["_type"]), int(signed["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise SyncError(f"{where}: is not metadata: {one_line(first_line(error))}") from error
    return "" if role == "targets" else role, version


def file_name(role: str, version: int) -> str:
    """Return the name of the metadata file of a role."""
    return "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"


def target_file(path: str, sha256: str) -> str:
    """Return the path of a target in the repository folder."""
    folder, _, name = path.rpartition("/")
    return f"targets/{folder}/{sha256}.{name}"


def root_versions(folder: Path) -> Iterator[int]:
    """Yield the versions of the root files of a metadata folder, in order."""
    stems = [path.name.removesuffix(".root.json") for path in folder.glob("*.root.json")]
    yield from sorted(int(stem) for stem in stems if stem.isascii() and stem.isdecimal() and len(stem) < 11)


def _roots(folder: Path, trusted_root: bytes | None) -> list[Metadata[Root]]:
    """Return verified roots, the newest last: from the trusted one on, or from the oldest that is there."""
    versions = list(root_versions(folder))
    if trusted_root is not None:
        first = read_metadata(Root, trusted_root, "root.json beside the keys")
        if not versions or versions[-1] < first.signed.version:
            raise SyncError(
                f"{folder}: its newest root is older than root.json beside the keys, version {first.signed.version}; "
                "it was restored from an old copy? run edge-sync recover"
            )
        path = folder / file_name("root", first.signed.version)
        if read_file(path, LARGEST_BYTES["root"], WAY_OUT) != trusted_root:
            raise SyncError(f"{path}: differs from root.json beside the keys; {WAY_OUT}")
    else:
        path = folder / file_name("root", next(iter(versions), 1))
        first = read_metadata(Root, read_file(path, LARGEST_BYTES["root"], WAY_OUT), path)
        if not verifies(first.signed, "root", first):
            raise SyncError(f"{path}: not signed by its own keys; {WAY_OUT}")
    roots = [first]
    before = folder / file_name("root", first.signed.version - 1)
    if trusted_root is not None and before.exists():  # only to read what an interrupted rotation left
        roots.insert(0, read_metadata(Root, read_file(before, LARGEST_BYTES["root"], WAY_OUT), before))
    while (path := folder / file_name("root", roots[-1].signed.version + 1)).exists():
        new = read_metadata(Root, read_file(path, LARGEST_BYTES["root"], WAY_OUT), path)
        if not _follows(roots[-1].signed, new):
            raise SyncError(f"{path}: not signed by the keys of the root before it and by its own; {WAY_OUT}")
        roots.append(new)
    return roots


def _follows(before: Root, new: Metadata[Root]) -> bool:
    try:
        return new.signed.get_root_verification_result(before, new.signed_bytes, new.signatures).verified
    except (ValueError, RepositoryError):
        return False


def _listed(folder: Path, role: str, kind: type[_Parsed], listed: MetaFile) -> tuple[Metadata[_Parsed], Path]:
    """Read metadata whose version and hash other metadata lists."""
    path = folder / file_name(role, listed.version)
    data = read_file(path, LARGEST_BYTES.get(role, LARGEST_TARGETS_BYTES), WAY_OUT)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != (listed.hashes or {}).get("sha256", sha256):
        raise SyncError(f"{path}: found SHA-256 {sha256}, expected another one; {WAY_OUT}")
    md = read_metadata(kind, data, path)
    if md.signed.version != listed.version:
        raise SyncError(f"{path}: found version {md.signed.version}, expected {listed.version}; {WAY_OUT}")
    return md, path
