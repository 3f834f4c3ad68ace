"""Small releases, and devices that pull them from a server on loopback."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edge.bundle import slots
from gallery_sync.device.pull import Allowed, PullResult, pull
from gallery_sync.formats.fields import object_path, parse_bundle_manifest
from gallery_sync.formats.unsigned import Release
from gallery_sync.repository.folder import read_bundle_head, read_object, read_release
from gallery_sync.repository.publish import publish
from gallery_sync.transport.download import Retry
from gallery_sync.transport.repository_files import FolderTransport, HttpTransport
from gallery_sync.trust.hashes_only import HashesOnly
from tests.store_samples import make_bundle, make_gallery
from tests.sync_server import Server

WAITS: list[float] = []  # of the last pull, in seconds; nobody waits


def publish_release(
    tmp_path: Path, bundle_id: str, bundle_sequence: int, items: int, line: str = "demo", sequence: int | None = None
) -> Release:
    """Publish a small bundle and gallery in the folder `repo`."""
    bundle = make_bundle(tmp_path / bundle_id, bundle_id, bundle_sequence)
    gallery = make_gallery(tmp_path / f"g{items}", items)
    created_at = "2026-01-01T00:00:00Z"
    return publish(tmp_path / "repo", bundle, gallery, line=line, created_at=created_at, sequence=sequence)


def pull_from(
    server: Server,
    state_dir: Path,
    timeout_s: float = 5.0,
    free: int = 1 << 40,
    allowed: Allowed = Allowed(),  # noqa: B008 - frozen
    attempts: int = 4,
) -> PullResult:
    """Pull from a server without waits."""
    WAITS.clear()
    retry = Retry(attempts=attempts, sleep=WAITS.append, jitter=lambda: 0.5)
    transport = HttpTransport(server.url, timeout_s)
    return pull(transport, state_dir, HashesOnly(), retry=retry, free_bytes=lambda _: free, allowed=allowed)


def pull_folder(repo: Path, state_dir: Path) -> PullResult:
    """Pull from a repository folder without waits."""
    retry = Retry(attempts=2, sleep=lambda _: None, jitter=lambda: 0.5)
    return pull(FolderTransport(repo), state_dir, HashesOnly(), retry=retry)


def active(state_dir: Path) -> tuple[str, int]:
    """Return the id of the active bundle and the number of items of the active gallery."""
    held, gallery = slots.read_active(state_dir)
    return held.manifest.bundle_id, gallery.items


def embedder_for(server: Server) -> str:
    """Return the path of an object that only the newest release has."""
    release = read_release(server.folder)
    assert release is not None
    head = read_bundle_head(server.folder, release)
    manifest = parse_bundle_manifest(read_object(server.folder, head.manifest), "bundle")
    return next(object_path(file.sha256) for file in manifest.files if file.path == "models/tyre.onnx")


def tree_hashes(*folders: Path) -> dict[str, str]:
    """Return the hash of every file below some folders, by path."""
    files = [path for folder in folders for path in sorted(folder.rglob("*"))]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder" for path in files}
