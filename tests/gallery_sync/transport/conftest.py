"""A web server with a document and objects, and fetchers of it: no release, no device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gallery_sync.formats.fields import ObjectRef, object_path
from gallery_sync.transport.download import Fetcher, Retry
from gallery_sync.transport.repository_files import HttpTransport
from tests.sync_server import Server, serving

DOCUMENT = b'{"line": "demo", "sequence": 1}'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Serve a folder with one document."""
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "release.json").write_bytes(DOCUMENT)
    with serving(tmp_path / "repo") as running:
        yield running


@pytest.fixture
def put(server: Server) -> Callable[[bytes], ObjectRef]:
    """Store an object on the server."""

    def store(data: bytes) -> ObjectRef:
        ref = ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        path = server.folder / object_path(ref.sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return ref

    return store


@pytest.fixture
def waits() -> list[float]:
    """The seconds that a fetcher waited."""
    return []


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The folder of downloads."""
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def fetch(server: Server, cache: Path, waits: list[float]) -> Callable[..., Fetcher]:
    """Make a fetcher of the server: as after a restart."""

    def make(*, attempts: int = 4, timeout_s: float = 5.0, transport: object = None, **options: object) -> Fetcher:
        retry = Retry(attempts, waits.append, lambda: 0.5)
        return Fetcher(transport or HttpTransport(server.url, timeout_s), cache, retry, **options)

    return make
