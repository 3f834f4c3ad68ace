"""A small hawkBit on loopback: the device's side of its API (DDI) and its states, after the sources of version 1.1.0.

Followed: `DdiRootController`, `DataConversionHelper` and `JpaControllerManagement` of its tag 1.1.0.
Among the rest: `closed` with `none` counts as success, feedback of a closed action is answered with 410, and a
cancellation that is not under way with 405.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "5d8fSD54fdsFG98DDsa"
TENANT, CONTROLLER = "DEFAULT", "cam-001"
ROOT = f"/{TENANT}/controller/v1/{CONTROLLER}"


@dataclass
class ServerAction:
    """An action as hawkBit keeps it."""

    id: int
    release: bytes | None = None  # content of release.json
    metadata: dict[str, str] | None = None
    status: str = "RUNNING"  # or CANCELING, CANCELED, FINISHED, ERROR, DOWNLOADED
    window: str | None = None  # available, unavailable
    download_only: bool = False
    soft: bool = False
    history: list[tuple[str, str, str]] = field(default_factory=list)  # execution, result, details of each feedback

    @property
    def is_active(self) -> bool:
        return self.status in ("RUNNING", "CANCELING")

    def deployment(self, url: str) -> dict[str, Any]:
        handling = "forced" if self.download_only or not self.soft else "attempt"
        update = "skip" if self.download_only or self.window == "unavailable" else handling
        chunk: dict[str, Any] = {"part": "bApp", "version": "3", "name": "finesight shop", "artifacts": []}
        if self.release is not None:
            href = f"{url}{ROOT}/softwaremodules/23/artifacts/release.json"
            chunk["artifacts"] = [
                {
                    "filename": "release.json",
                    "hashes": {
                        "sha1": hashlib.sha1(self.release).hexdigest(),
                        "md5": hashlib.md5(self.release).hexdigest(),
                        "sha256": hashlib.sha256(self.release).hexdigest(),
                    },
                    "size": len(self.release),
                    "_links": {
                        "download-http": {"href": href},
                        "download": {"href": href},
                        "md5sum-http": {"href": f"{href}.MD5SUM"},
                        "md5sum": {"href": f"{href}.MD5SUM"},
                    },
                }
            ]
        if self.metadata:
            chunk["metadata"] = [{"key": key, "value": value} for key, value in self.metadata.items()]
        found: dict[str, Any] = {"download": handling, "update": update, "chunks": [chunk]}
        if self.window:
            found["maintenanceWindow"] = self.window
        return {"id": str(self.id), "deployment": found}


class Hawkbit(ThreadingHTTPServer):
    """The server. Tests change `actions`, and read what the device sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.actions: dict[int, ServerAction] = {}
        self.sleep = "00:01:00"
        self.attributes: dict[str, str] = {}
        self.wants_attributes = False
        self.fails: list[int | bytes] = []  # statuses, or bodies with 200, that answer the next requests
        self.requests: list[str] = []
        self.authorization = f"TargetToken {TOKEN}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves in the middle of an answer is what some tests are about."""

    def assign(self, number: int, release: bytes | None = None, **more: Any) -> ServerAction:
        self.actions[number] = ServerAction(number, release, **more)
        return self.actions[number]

    @property
    def active(self) -> ServerAction | None:
        return next((one for one in self.actions.values() if one.is_active), None)

    def count(self, part: str) -> int:
        return sum(part in request for request in self.requests)


class _Handler(BaseHTTPRequestHandler):
    server: Hawkbit
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a response in one packet
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        body = self._body()
        self._answer(lambda: self._post(body))

    def do_PUT(self) -> None:
        body = self._body()
        self._answer(lambda: self._put(body))

    def _body(self) -> Any:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json"
        return json.loads(data)

    def _answer(self, act: Callable[[], int | bytes | dict[str, Any]]) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        found: int | bytes | dict[str, Any] = 401
        if self.headers.get("Authorization") == self.server.authorization:
            found = self.server.fails.pop(0) if self.server.fails else act()
        status = found if isinstance(found, int) else 200
        data = found if isinstance(found, bytes) else json.dumps(found).encode() if isinstance(found, dict) else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/hal+json;charset=UTF-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _action(self, pattern: str) -> ServerAction | None:
        match = re.fullmatch(re.escape(ROOT) + pattern, self.path)
        return self.server.actions.get(int(match[1])) if match else None

    def _get(self) -> int | bytes | dict[str, Any]:
        if self.path == ROOT:
            return self._base()
        if action := self._action(r"/deploymentBase/(\d+)(?:\?c=-?\d+)?"):
            is_over = action.status in ("CANCELING", "CANCELED")
            return 404 if is_over else action.deployment(self.server.url)
        if action := self._action(r"/cancelAction/(\d+)"):
            is_cancelled = action.status in ("CANCELING", "CANCELED")
            return {"id": str(action.id), "cancelAction": {"stopId": str(action.id)}} if is_cancelled else 404
        active = self.server.active
        if self.path == f"{ROOT}/softwaremodules/23/artifacts/release.json" and active and active.release:
            return active.release
        return 404

    def _base(self) -> dict[str, Any]:
        links: dict[str, Any] = {}
        if active := self.server.active:
            is_cancelling = active.status == "CANCELING"
            path = f"cancelAction/{active.id}" if is_cancelling else f"deploymentBase/{active.id}?c=-2127183556"
            links[path.partition("/")[0]] = {"href": f"{self.server.url}{ROOT}/{path}"}
        if self.server.wants_attributes:
            links["configData"] = {"href": f"{self.server.url}{ROOT}/configData"}
        return {"config": {"polling": {"sleep": self.server.sleep}}, "_links": links}

    def _post(self, body: Any) -> int:
        status = body["status"]
        execution, finished, details = status["execution"], status["result"]["finished"], status.get("details") or []
        if action := self._action(r"/deploymentBase/(\d+)/feedback"):
            if not action.is_active:
                return 410
            action.history.append((execution, finished, " ".join(details)))
            if execution == "closed":
                action.status = "ERROR" if finished == "failure" else "FINISHED"  # also with `none`
            elif execution == "canceled":
                action.status = "CANCELED"
            elif execution == "downloaded" and action.download_only:
                action.status = "DOWNLOADED"
            return 200
        if action := self._action(r"/cancelAction/(\d+)/feedback"):
            if action.status not in ("CANCELING", "CANCELED"):
                return 405
            action.history.append((f"cancel {execution}", finished, " ".join(details)))
            if execution == "rejected" or (execution == "closed" and finished == "failure"):
                action.status = "RUNNING"
            elif execution == "closed":
                action.status = "CANCELED"
            return 200
        return 404

    def _put(self, body: Any) -> int:
        if self.path != f"{ROOT}/configData":
            return 404
        self.server.attributes |= body["data"]
        self.server.wants_attributes = False
        return 200

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def hawkbit() -> Iterator[Hawkbit]:
    """Run the server."""
    with Hawkbit() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()
