"""A running console for tests, and a client of it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from console.services import Services
from console.settings import Settings
from console.web.serve import ConsoleServer, Listen, close_services, open_services

TOKEN = "a-token-for-tests-only"


@dataclass(frozen=True)
class Reply:
    """What the console answered."""

    status: int
    headers: Mapping[str, str]  # by lower-case name
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    """Asks a console over HTTP, with the token unless `token` is None."""

    url: str
    services: Services
    token: str | None = TOKEN

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, None, headers)

    def send(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        """Send JSON."""
        data = b"" if body is None else json.dumps(body).encode()
        return self.ask(method, path, data, {"Content-Type": "application/json", **headers})

    def upload(self, path: str, files: Mapping[str, bytes], **fields: str) -> Reply:
        """Send a form with files, as a browser does."""
        parts = [
            f'--limit\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()
        ]
        for name, data in files.items():
            head = f'--limit\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
            parts.append(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + data + b"\r\n")
        body = b"".join([*parts, b"--limit--\r\n"])
        return self.ask("POST", path, body, {"Content-Type": "multipart/form-data; boundary=limit"})

    def ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        where = urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        try:
            sent = dict(headers) if self.token is None else {"Authorization": f"Bearer {self.token}", **headers}
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def without_token(self) -> Client:
        return replace(self, token=None)


@contextmanager
def running_console(folder: Path, **settings: Any) -> Iterator[Client]:
    """Run a console on loopback, at any free port, with its data in a folder."""
    services = open_services(Settings(folder, **settings), TOKEN)
    try:
        with ConsoleServer(services, Listen(port=0)) as server:
            yield Client(server.url, services)
    finally:
        close_services(services)
