"""A static file server on loopback, in a process of its own, that counts requests and bytes by device.

The first part of each path is a device id, the rest is a file: GET /cam-001/metadata/timestamp.json. Bytes are those of
requests and responses, headers included.

Rules this module keeps:
1. Commands come by its standard input, one word a line; it answers each with one line of JSON.
2. `close` refuses connections and ends the open ones; `open` listens on the same port again.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_REASONS = {200: "OK", 206: "Partial Content", 404: "Not Found", 405: "Method Not Allowed"}


@dataclass
class Count:
    """What one device requested."""

    requests: int = 0
    polls: int = 0  # of metadata/timestamp.json
    received: int = 0  # bytes from the device
    sent: int = 0  # bytes to it

    def add(self, other: Count) -> None:
        self.requests += other.requests
        self.polls += other.polls
        self.received += other.received
        self.sent += other.sent


class FleetServer:
    """The server as another process sees it."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fleet_server", str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self.port: int = self._ask("open")
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FleetServer:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def device_url(self, device_id: str) -> str:
        """Return the address of the repository for one device."""
        return f"{self.url}/{device_id}"

    def close(self) -> None:
        """Become unreachable."""
        self._ask("close")

    def open(self) -> None:
        """Be reachable again."""
        self._ask("open")

    def counts(self) -> dict[str, Count]:
        """Return what each device requested so far."""
        return {name: Count(**one) for name, one in self._ask("counts").items()}

    def total(self) -> Count:
        """Return what all devices requested so far."""
        total = Count()
        for one in self.counts().values():
            total.add(one)
        return total

    def _ask(self, word: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class _Server:
    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._counts: dict[str, Count] = {}
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._port = 0

    async def do(self, word: str) -> Any:
        if word == "counts":
            return {name: asdict(one) for name, one in self._counts.items()}
        if word == "close" and self._server is not None:
            self._server.close()
            self._server = None
            for writer in list(self._open):
                writer.transport.abort()
        if word == "open" and self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, backlog=4096)
            self._port = self._server.sockets[0].getsockname()[1]
        return self._port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                keep = self._answer(head, writer)
                await writer.drain()
                if not keep:
                    return
        except (asyncio.IncompleteReadError, OSError):  # the client left
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> bool:
        lines = head.decode("latin-1").split("\r\n")
        method, _, rest = lines[0].partition(" ")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        device, _, path = rest.partition(" ")[0].partition("?")[0].lstrip("/").partition("/")
        status, body, more = self._file(method, path, headers.get("range", ""))
        keep = headers.get("connection", "").lower() != "close"
        answer = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nServer: fleet\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Length: {len(body)}\r\n{more}{'' if keep else 'Connection: close' + chr(13) + chr(10)}\r\n"
        ).encode() + body
        count = self._counts.setdefault(device, Count())
        count.add(Count(1, int(path == "metadata/timestamp.json"), len(head), len(answer)))
        writer.write(answer)
        return keep

    def _file(self, method: str, path: str, wanted: str) -> tuple[int, bytes, str]:
        if method != "GET":
            return 405, b"", ""
        file = (self._folder / path).resolve()
        if not file.is_relative_to(self._folder) or not file.is_file():
            return 404, b"not found\n", ""
        body = file.read_bytes()
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted):
            start, end = int(match[1]), int(match[2] or len(body) - 1)
            if start < len(body):
                end = min(end, len(body) - 1)
                return 206, body[start : end + 1], f"Content-Range: bytes {start}-{end}/{len(body)}\r\n"
        return 200, body, ""


async def _run(folder: Path) -> None:
    server, loop = _Server(folder), asyncio.get_running_loop()
    while word := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await server.do(word.strip())), flush=True)


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1])))
