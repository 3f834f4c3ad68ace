"""What a simulated device reads of a repository: the requests of a real one, in the same order, and nothing verified.

Files that one process already parsed are not parsed again. Bytes and requests are counted by the server, not here.
"""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache
from typing import Any

from gallery_sync.formats.documents import GalleryLog, Release, bundle_target, gallery_targets
from gallery_sync.formats.fields import object_path


class Web:
    """The server of the repository, over one connection that stays open for as long as one look at it takes."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> bytes:
        """Return a file, by a request like those of gallery_sync.transport.

        Raises:
            FileNotFoundError: the server has no such file.
            OSError: the server is not there.
        """
        if self._open is None:
            self._open = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._open
        try:
            writer.write(
                f"GET /{path} HTTP/1.1\r\nAccept-Encoding: identity\r\nUser-Agent: finesight\r\n"
                f"Host: {self._host}:{self._port}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")]
            body = await reader.readexactly(int(lengths[0].partition(b":")[2]))
        except (asyncio.IncompleteReadError, IndexError) as error:
            self.close()
            raise ConnectionResetError(path) from error
        except OSError:
            self.close()
            raise
        if b"\r\nConnection: close\r\n" in head:
            self.close()
        if b" 200 " not in head[:20]:
            raise FileNotFoundError(path)
        return body

    def close(self) -> None:
        """End the connection."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


@lru_cache(maxsize=512)
def _json(data: bytes) -> Any:
    return json.loads(data)


class Repository:
    """What one device has read of the repository. It requests what gallery_sync.trust.client does, in that order."""

    def __init__(self, web: Web, base: str, line: str) -> None:
        self._web, self._base, self._line = web, base, line
        self._timestamp = b""
        self._newest: dict[str, int] = {}  # version of each role, by the newest snapshot
        self._roles: dict[str, tuple[int, dict[str, Any]]] = {}  # version and targets of each role that was read
        self._root = 1
        self._files: dict[str, bytes] = {}  # by hash, that the device has
        self.revision = 0  # of the timestamp

    async def check(self) -> None:
        """Request the timestamp, and what changed."""
        if self._timestamp and await self._get("metadata/timestamp.json") == self._timestamp:
            return
        try:
            await self._get(f"metadata/{self._root + 1}.root.json")
            self._root += 1
        except FileNotFoundError:
            pass
        data = await self._get("metadata/timestamp.json")
        signed = _json(data)["signed"]
        snapshot = await self._get(f"metadata/{signed['meta']['snapshot.json']['version']}.snapshot.json")
        self._newest = {name[:-5]: one["version"] for name, one in _json(snapshot)["signed"]["meta"].items()}
        await self._targets_of("targets")
        self._timestamp, self.revision = data, signed["version"]

    async def _targets_of(self, role: str) -> dict[str, Any]:
        version = self._newest.get(role, 0)
        if not version:
            return {}
        if role not in self._roles or self._roles[role][0] != version:
            found = _json(await self._get(f"metadata/{version}.{role}.json"))
            self._roles[role] = version, found["signed"]["targets"]
        return self._roles[role][1]

    async def document(self, path: str) -> bytes | None:
        """Return a signed document, requested unless the device has it; None: nobody signed one."""
        target = (await self._targets_of(path.partition("/")[0])).get(path)
        if target is None:
            return None
        folder, _, name = path.rpartition("/")
        sha256 = target["hashes"]["sha256"]
        return await self._file(sha256, f"targets/{folder}/{sha256}.{name}")

    async def fetch(self, release: Release) -> None:
        """Request all of a release that the device does not have."""
        head = _json(await self.document(bundle_target(self._line, release.bundle_id)) or b"{}")
        manifest = _json(await self._object(head["manifest"]["sha256"]))
        categories = [one for embedder in manifest["embedders"] for one in embedder["categories"]]
        for path in gallery_targets(self._line, categories).values():
            log = GalleryLog.model_validate_json(await self.document(path) or b"")
            for space in log.spaces:
                await self._object(space.bases[-1].object.sha256)
        for file in manifest["files"]:
            await self._object(file["sha256"])

    def close(self) -> None:
        """End the connection until the next request."""
        self._web.close()

    async def _object(self, sha256: str) -> bytes:
        return await self._file(sha256, object_path(sha256))

    async def _file(self, sha256: str, path: str) -> bytes:
        if sha256 not in self._files:
            self._files[sha256] = await self._get(path)
        return self._files[sha256]

    async def _get(self, path: str) -> bytes:
        return await self._web.get(f"{self._base}/{path}")
