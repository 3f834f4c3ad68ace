"""Small signed releases, and devices that pull them from a server on loopback.

The keys of a repository are in `repo.keys` beside it. They are made once for all tests, and copied.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from gallery_sync.formats.documents import BundleHead, Release
from gallery_sync.formats.fields import object_path, parse_bundle_manifest
from gallery_sync.repository.folder import read_object
from gallery_sync.repository.keys import KeyRing, keys_beside
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.publish import Demands, publish
from gallery_sync.repository.published import Published, read_published
from tests.store_samples import make_bundle, make_gallery

if TYPE_CHECKING:
    from gallery_sync.device.pull import PullResult
    from tests.sync_server import Server

WAITS: list[float] = []  # of the last pull, in seconds; nobody waits


@cache
def _session_keys() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="finesight-test-keys-")
    KeyRing.development(Path(folder.name) / "keys")
    return folder


def development_keys(folder: Path) -> KeyRing:
    """Return development keys in a folder of their own, the same ones for every test."""
    if not folder.exists():
        shutil.copytree(Path(_session_keys().name) / "keys", folder)
    return KeyRing.open(folder)


def keys_of(repo: Path) -> KeyRing:
    """Return the keys of a repository that `make_repository` made."""
    return development_keys(keys_beside(repo))


def make_repository(
    repo: Path, line: str = "demo", policy: str = "online", now: datetime | None = None, offline_days: int = 365
) -> KeyRing:
    """Make an empty signed repository with development keys, if there is none; return its keys."""
    keys = keys_of(repo)
    if not (repo / "repository.json").exists():
        SignedMetadata.create(repo, line, policy, keys, now or time_now(), offline_days=offline_days)
    return keys


def time_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(timezone.utc)


def trusted_root(repo: Path) -> bytes:
    """Return the root of trust with which a device of a repository is enrolled: the first one."""
    return (repo / "metadata" / "1.root.json").read_bytes()


def publish_release(
    tmp_path: Path,
    bundle_id: str,
    bundle_sequence: int,
    items: int,
    line: str = "demo",
    sequence: int | None = None,
    *,
    now: datetime | None = None,
    demands: Demands = Demands(),  # noqa: B008 - frozen
    policy: str = "online",
) -> Release:
    """Publish a small bundle and gallery in the folder `repo`, signed with development keys."""
    now = now or time_now()
    bundle = make_bundle(tmp_path / bundle_id, bundle_id, bundle_sequence)
    gallery = make_gallery(tmp_path / f"g{items}", items)
    keys = make_repository(tmp_path / "repo", line, policy, now)
    done = publish(
        tmp_path / "repo",
        keys,
        now,
        bundle_folder=bundle,
        gallery_folder=gallery,
        sequence=sequence,
        demands=demands,
    )
    return done.release


def published(repo: Path) -> Published:
    """Return what a repository has published."""
    return read_published(repo, SignedMetadata.open(repo))


def newest(repo: Path) -> tuple[Release, BundleHead]:
    """Return the newest release of a repository and the head of its bundle."""
    found = published(repo)
    assert found.release is not None
    assert found.head is not None
    return found.release, found.head


def pull_from(
    server: Server, state_dir: Path, timeout_s: float = 5.0, free: int = 1 << 40, attempts: int = 4
) -> PullResult:
    """Pull from a server without waits."""
    from gallery_sync.device.pull import pull
    from gallery_sync.transport.download import Retry
    from gallery_sync.transport.repository_files import HttpTransport

    WAITS.clear()
    retry = Retry(attempts=attempts, sleep=WAITS.append, jitter=lambda: 0.5)
    transport = HttpTransport(server.url, timeout_s)
    return pull(transport, state_dir, trusted_root(server.folder), retry=retry, free_bytes=lambda _: free)


def pull_folder(repo: Path, state_dir: Path) -> PullResult:
    """Pull from a repository folder without waits."""
    from gallery_sync.device.pull import pull
    from gallery_sync.transport.download import Retry
    from gallery_sync.transport.repository_files import FolderTransport

    retry = Retry(attempts=2, sleep=lambda _: None, jitter=lambda: 0.5)
    return pull(FolderTransport(repo), state_dir, trusted_root(repo), retry=retry)


def active(state_dir: Path) -> tuple[str, int]:
    """Return the id of the active bundle and the number of items of the active gallery."""
    from edge.bundle import slots

    held, gallery = slots.read_active(state_dir)
    return held.manifest.bundle_id, gallery.items


def embedder_for(server: Server) -> str:
    """Return the path of an object that only the newest release has."""
    _, head = newest(server.folder)
    manifest = parse_bundle_manifest(read_object(server.folder, head.manifest), "bundle")
    return next(object_path(file.sha256) for file in manifest.files if file.path == "models/tyre.onnx")


def tree_hashes(*folders: Path) -> dict[str, str]:
    """Return the hash of every file below some folders, by path."""
    files = [path for folder in folders for path in sorted(folder.rglob("*"))]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder" for path in files}
