"""The repository folder: its objects, its history of releases, and its lock.

    metadata/, targets/          signed metadata and documents, see gallery_sync.repository.metadata
    objects/<aa>/<sha256>        immutable files named by their hash: manifests, models, stores, segments, deliveries
    releases/<sequence>.json     every signed release, for operators: `release list`, `rollback`
    bundles/<bundle id>.head     the head of every bundle that was ever published, for operators, also of withdrawn ones
    repository.json              line, policy and promised offline window, for operators

Rules this module keeps:
1. Any web server, bucket or mirror can host the folder. Devices read metadata, targets and objects alone.
2. One process at a time changes a repository.
3. An object is written under another name, verified, flushed and renamed. A whole object is never written again.
4. The history is written before the metadata that makes a release visible. What is newer than every signed release was
   left by an interrupted publishing, and nobody reads it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.durable import file_mismatch, make_folder, replace_file, write_durably
from edge.errors import SyncError
from edge.manifest.manifest import Manifest
from gallery_sync.formats.documents import BundleHead, Release
from gallery_sync.formats.fields import (
    LARGEST_DOCUMENT_BYTES,
    ObjectRef,
    canonical_json,
    object_path,
    parse,
    parse_bundle_manifest,
)

_HEADS, _HISTORY = "bundles", "releases"
_MOST_COPIES = 8  # that are tried
_OLD_S = 86400.0


@contextmanager
def locked(repo: Path) -> Iterator[None]:
    """Let one process at a time change a repository, and map errors of the disk.

    Raises:
        SyncError: there is no such folder, or the disk failed.
    """
    if not repo.is_dir():
        raise SyncError(f"{repo}: is not a repository folder; make one with: edge-sync init")
    try:
        descriptor = os.open(repo, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SyncError(f"{repo}: cannot read or write: {error.strerror or error}; run the command again") from error


def store_file(repo: Path, source: Path, ref: ObjectRef) -> None:
    """Make sure that a file is an object of the repository.

    Raises:
        SyncError: the file is not as `ref` says.
        OSError: the disk failed.
    """
    path = repo / object_path(ref.sha256)
    if file_mismatch(path, ref.size, ref.sha256) is None:
        _keep_young(path)
        return
    make_folder(path.parent)
    partial = path.with_name(path.name + ".partial")
    try:
        shutil.copyfile(source, partial)
        wrong = file_mismatch(partial, ref.size, ref.sha256)
        if wrong is None:
            replace_file(partial, path)
            return
    except OSError:
        _remove(partial)
        raise
    _remove(partial)
    raise SyncError(f"{source} changed during publishing: {wrong}")


def _remove(partial: Path) -> None:
    """Remove a useless part, which must not keep a full disk full."""
    with contextlib.suppress(OSError):
        partial.unlink(missing_ok=True)


def store_bytes(repo: Path, data: bytes) -> ObjectRef:
    """Make sure that some bytes are an object of the repository, and return its reference.

    Raises:
        OSError: the disk failed.
    """
    ref = ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    path = repo / object_path(ref.sha256)
    if file_mismatch(path, ref.size, ref.sha256) is None:
        _keep_young(path)
    else:
        make_folder(path.parent)
        write_durably(path, data)
    return ref


def _keep_young(path: Path) -> None:
    """Make an old object young, so that no garbage collection takes it from a draft that waits for signatures."""
    if time.time() - path.stat().st_mtime > _OLD_S:
        os.utime(path)


def object_problem(repo: Path, ref: ObjectRef) -> str | None:
    """Return how an object differs from its reference; None if it is whole."""
    return file_mismatch(repo / object_path(ref.sha256), ref.size, ref.sha256)


def read_object(repo: Path, ref: ObjectRef) -> bytes:
    """Read an object and verify its hash.

    Raises:
        SyncError: the object is missing, changed or cannot be read.
    """
    if wrong := object_problem(repo, ref):
        raise SyncError(wrong)
    path = repo / object_path(ref.sha256)
    try:
        return path.read_bytes()
    except OSError as error:
        raise SyncError(f"{path}: cannot read: {error.strerror}") from error


def read_manifest(repo: Path, head: BundleHead) -> Manifest:
    """Read the manifest of a bundle.

    Raises:
        SyncError: it is missing, changed or damaged.
    """
    return parse_bundle_manifest(read_object(repo, head.manifest), f"bundle {head.bundle_id}")


def write_history(repo: Path, release: Release, head: BundleHead) -> None:
    """Remember a release and the head of its bundle, before they become visible.

    Raises:
        OSError: the disk failed.
    """
    files = {
        repo / _HISTORY / f"{release.sequence}.json": canonical_json(release),
        repo / _HEADS / f"{head.bundle_id}.head": canonical_json(head),
    }
    for path, data in files.items():
        if not path.is_file() or path.read_bytes() != data:
            make_folder(path.parent)
            write_durably(path, data)


def history_path(repo: Path, sequence: int) -> Path:
    """Return the path of a release in the history."""
    return repo / _HISTORY / f"{sequence}.json"


def history_sequences(repo: Path) -> list[int]:
    """Return the sequence numbers of the files of the history, in order; they are not read yet."""
    stems = [path.stem for path in (repo / _HISTORY).glob("*.json")]
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdecimal() and len(stem) < len(str(2**53)))


def read_history(repo: Path, signed: Iterable[Release]) -> dict[int, Release | None]:
    """Return every release up to the newest signed one by its sequence number, None where its file is damaged."""
    known = {one.sequence: one for one in signed}
    found: dict[int, Release | None] = {}
    for sequence in history_sequences(repo):
        if not known or sequence < max(known):
            found[sequence] = _read_release(history_path(repo, sequence), sequence)
    return found | known


def _read_release(path: Path, sequence: int) -> Release | None:
    try:
        release = parse(Release, _read_small(path), str(path))
    except (OSError, SyncError):
        return None
    return release if release.sequence == sequence else None


def read_old_head(repo: Path, bundle_id: str) -> BundleHead | None:
    """Read the remembered head of a bundle; None if there is none, or it is damaged."""
    path = repo / _HEADS / f"{bundle_id}.head"
    try:
        head = parse(BundleHead, _read_small(path), str(path))
    except (OSError, SyncError):
        return None
    return head if head.bundle_id == bundle_id else None


def remembered(repo: Path, path: str) -> list[Path]:
    """Return the files of the history that may be copies of a signed document, by its target path."""
    role, _, name = path.partition("/")
    if role == "rollout":
        return [history_path(repo, sequence) for sequence in reversed(history_sequences(repo))][:_MOST_COPIES]
    head = repo / _HEADS / f"{name.rpartition('/')[2].removesuffix('.json')}.head"
    return [head] if role == "models" and head.is_file() else []


def _read_small(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST_DOCUMENT_BYTES + 1)
