"""The door to hawkBit: its Direct Device Integration (DDI) over HTTP.

Rules this module keeps:
1. Every request has the time limits of `gallery_sync.transport`, and every answer a limit in bytes.
2. The token goes to the host of `--url` alone. No redirect and no link of an answer is followed.
3. Nothing is tried again here. A feedback of an action that is closed, or not known any more, is no error.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import logging
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import getproxies_environment

from edge import __version__
from edge.errors import SyncError, one_line
from edge.telemetry.known_secrets import remember
from gallery_sync.adapters.device_view import Named
from gallery_sync.adapters.hawkbit_messages import (
    LARGEST_ANSWER_BYTES,
    LARGEST_NAME_BYTES,
    RELEASE_NAME,
    Deployment,
    Execution,
    Finished,
    Poll,
    ReleaseFile,
    feedback,
    labels_json,
    read_cancel,
    read_deployment,
    read_named,
    read_poll,
)
from gallery_sync.transport.addresses import Address, parse_address
from gallery_sync.transport.errors import InterruptedTransferError, TransferError
from gallery_sync.transport.http_connection import Access, Connections
from gallery_sync.transport.repository_files import retry_after
from gallery_sync.transport.time_limits import Deadline, TimeLimits

log = logging.getLogger(__name__)

_REQUEST_LIMIT_S = 60.0
_OVER = (404, 405, 410)  # the action is closed, not to be cancelled, or not known
_ADVICE = {
    401: "check the token, and whether the tenant allows this kind of token",
    403: "check the token, and the quotas of hawkBit",
    404: "check --url, --tenant and --controller-id",
}


@dataclass(frozen=True, slots=True)
class HawkbitClient:
    """One device at one hawkBit."""

    base: Address  # of the device
    authorization: str = field(repr=False)
    access: Access
    connections: Connections = field(default_factory=Connections)

    def poll(self) -> Poll:
        """Ask what hawkBit wants.

        Raises:
            TransferError: the network or hawkBit failed.
            SyncError: the answer is wrong.
        """
        return read_poll(self._send("GET", ""))

    def deployment(self, action: str, tag: str | None, line: str) -> Deployment:
        """Get an action of a device of a line; raises as `poll` does."""
        return read_deployment(
            self._send("GET", f"deploymentBase/{action}", query=f"c={tag}" if tag else ""), action, line
        )

    def release_file(self, file: ReleaseFile) -> Named:
        """Get the artifact that names a release, with its size and hash checked; raises as `poll` does."""
        path = f"softwaremodules/{file.module}/artifacts/{RELEASE_NAME}"
        data = self._send("GET", path, most_bytes=LARGEST_NAME_BYTES)
        if (found := hashlib.sha256(data).hexdigest()) != file.ref.sha256:
            raise SyncError(f"{RELEASE_NAME}: found SHA-256 {found}, expected {file.ref.sha256}")
        return read_named(data)

    def cancelled(self, action: str) -> str:
        """Return the id of the action that a cancellation is about; raises as `poll` does."""
        return read_cancel(self._send("GET", f"cancelAction/{action}"))

    def tell(self, action: str, execution: Execution, finished: Finished, text: str) -> bool:
        """Send the state of an action; return whether hawkBit took it. False: the action is over there.

        Raises:
            TransferError: the network or hawkBit failed.
        """
        return self._tell(f"deploymentBase/{action}/feedback", feedback(execution, finished, text))

    def answer_cancel(self, action: str, execution: Execution, finished: Finished, text: str) -> bool:
        """Confirm or reject a cancellation; as `tell`."""
        return self._tell(f"cancelAction/{action}/feedback", feedback(execution, finished, text))

    def put_labels(self, labels: dict[str, str]) -> None:
        """Send the attributes of the device; raises as `poll` does."""
        self._send("PUT", "configData", labels_json(labels))

    def _tell(self, path: str, content: dict[str, Any]) -> bool:
        try:
            self._send("POST", path, content)
        except TransferError as error:
            if error.status not in _OVER:
                raise
            log.info("hawkBit: %s", error)
            return False
        return True

    def _send(
        self,
        method: str,
        path: str,
        content: dict[str, Any] | None = None,
        *,
        query: str = "",
        most_bytes: int = LARGEST_ANSWER_BYTES,
    ) -> bytes:
        address = self.base.child(path) if path else self.base
        target = Address(address.scheme, address.host, address.port, address.path, query, None)
        body = b"" if content is None else json.dumps(content).encode()
        headers = {
            "Accept": "application/hal+json, application/json, application/octet-stream",
            "Accept-Encoding": "identity",
            "Authorization": self.authorization,
            "User-Agent": f"finesight/{__version__}",
        }
        if method != "GET":
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        deadline = Deadline(_REQUEST_LIMIT_S)
        try:
            with self.connections.request(
                target, headers, self.access, TimeLimits(), deadline, (method, body)
            ) as response:
                data = bytearray()
                while (chunk := response.read(1 << 16)) and len(data) <= most_bytes:
                    data += chunk
                    deadline.remaining_s()
                _check_status(response.status, response.headers, target)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise InterruptedTransferError(
                f"{target}: no answer: {one_line(str(error) or type(error).__name__)}"
            ) from error
        if len(data) > most_bytes:
            raise SyncError(f"{target}: the answer is larger than {most_bytes} bytes")
        return bytes(data)


def _check_status(status: int, headers: http.client.HTTPMessage, address: Address) -> None:
    if status in (200, 201, 202, 204):
        return
    text = f"{address}: hawkBit answered HTTP {status}"
    if status in (301, 302, 303, 307, 308):
        raise SyncError(f"{text}: it redirects; give its final address with --url")
    advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
    raise TransferError(text + advice, status, retry_after(headers.get("Retry-After", ""), time.time()))


def open_client(
    url: str, tenant: str, controller_id: str, token: tuple[str, str], ca_file: Path | None = None
) -> HawkbitClient:
    """Return the client of one device; nothing is sent yet.

    Args:
        url: address of hawkBit.
        tenant: of it.
        controller_id: of the device.
        token: its kind, TargetToken or GatewayToken, and its value.
        ca_file: trust only these certificate authorities; None: those of the system.

    Raises:
        SyncError: one of them is wrong.
    """
    scheme, value = token
    remember({value})
    if not re.fullmatch(r"[!-~]{1,4000}", value):
        raise SyncError("there is no token, or it is none; put it into the environment variable that --token-env names")
    address = parse_address(url)
    if address.credentials or address.query:
        raise SyncError(f"{address}: has a user, a password or a query; give the address alone, and a token")
    for name, text in (("--tenant", tenant), ("--controller-id", controller_id)):
        if not re.fullmatch(r"[^/\x00-\x1f\x7f]{1,256}", text) or text in (".", ".."):
            raise SyncError(f"{name} {one_line(text)!r}: is no name of hawkBit")
    if address.scheme == "http" and not _is_here(address.host):
        log.warning("%s: the token is sent unencrypted; use https", address)
    path = f"{address.path.rstrip('/')}/{quote(tenant, safe='')}/controller/v1/{quote(controller_id, safe='')}"
    base = Address(address.scheme, address.host, address.port, path, "", None)
    return HawkbitClient(base, f"{scheme} {value}", Access(ca_file=ca_file, proxies=getproxies_environment()))


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
