"""A simulated device requests what a device requests."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.simulated_repository import Repository, Web
from gallery_sync.device.pull import pull
from gallery_sync.formats.documents import Release, release_target
from gallery_sync.formats.rollouts import rollouts_target
from gallery_sync.transport.download import Retry
from gallery_sync.transport.repository_files import HttpTransport
from tests.sync_samples import publish_release, trusted_root
from tests.sync_server import Server, serving

LINE = "demo"
RETRY = Retry(attempts=2, sleep=lambda _: None, jitter=lambda: 0.5)


def requested(server: Server) -> list[str]:
    """Return the files that were requested since the last call, in order.

    Objects have no name here: a device may request a compressed form. A device that is enrolled knows its line, so it
    does not request repository.json.
    """
    paths = [path.removeprefix("repo/") for path, _ in server.requests]
    server.requests.clear()
    return ["object" if path.startswith("objects/") else path for path in paths if path != "repository.json"]


def real(server: Server, state: Path) -> list[str]:
    transport = HttpTransport(f"{server.url}/repo", 5.0)
    pull(transport, state, trusted_root(server.folder / "repo"), retry=RETRY, free_bytes=lambda _: 1 << 40)
    return requested(server)


def simulated(server: Server, repository: Repository) -> list[str]:
    async def look() -> None:
        await repository.check()
        base = await repository.document(release_target(LINE))
        await repository.document(rollouts_target(LINE))
        await repository.fetch(Release.model_validate_json(base or b""))
        repository.close()

    asyncio.run(look())
    return requested(server)


def test_simulated_device_requests_what_a_device_requests(tmp_path):
    publish_release(tmp_path, "first", 1, 3)
    with serving(tmp_path, keep_alive=True) as server:
        repository = Repository(Web("127.0.0.1", server.server_port), "repo", LINE)
        assert simulated(server, repository) == real(server, tmp_path / "state")
        assert simulated(server, repository) == real(server, tmp_path / "state") == ["metadata/timestamp.json"]
        publish_release(tmp_path, "second", 2, 3)
        assert simulated(server, repository) == real(server, tmp_path / "state")
