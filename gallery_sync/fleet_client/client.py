"""The fleet server's HTTP API as programs use it: devices page by page, one device, commands.

with FleetClient("http://127.0.0.1:8090", token) as client:
    found = client.devices([("line", "shop")])

Rules this module keeps:
1. A row that cannot be read is counted and left out. It stops no other row.
2. A server that does not answer, or not as it should, is an error, never "no devices".
3. The token goes to the named server alone, and no message shows it.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import getproxies_environment

from pydantic import ValidationError
from pydantic_core import from_json

from edge.errors import SyncError, first_validation_error, one_line
from edge.strict_json import parse_json
from edge.telemetry.known_secrets import remember
from gallery_sync.command_line import FLEET_TOKEN
from gallery_sync.formats.documents import Release
from gallery_sync.formats.reports import Answer, DeviceRow
from gallery_sync.transport.addresses import parse_address
from gallery_sync.transport.http_connection import Access, Connections, Response
from gallery_sync.transport.time_limits import Deadline, TimeLimits

_TIMEOUT_S, _REQUEST_S, _ALL_PAGES_S = 20.0, 60.0, 300.0
_LARGEST_BYTES = 128 << 20
_ROWS, _NARROW_ROWS = 500, 1000  # of a page
_MOST_PAGES = 10_000
_ADVICE = {
    401: f"check the token: ${FLEET_TOKEN} or --token-file",
    403: f"check the token: ${FLEET_TOKEN} or --token-file",
    421: "use the server's address, or start it with --host-name",
}


class FleetRefusedError(SyncError):
    """The fleet server answered that it cannot; `status` is that of HTTP."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a client waits, and how much it reads."""

    timeout_s: float = _TIMEOUT_S  # without a byte
    request_s: float = _REQUEST_S  # for a whole answer
    largest_bytes: int = _LARGEST_BYTES  # of an answer


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of some devices."""

    rows: tuple[DeviceRow, ...]
    unreadable: int = 0  # rows that were left out
    next_device: str | None = None  # of a page: to go on after; None: these were the last


def parse_rows(found: Iterable[object]) -> Rows:
    """Return the rows that can be read."""
    rows, unreadable = [], 0
    for one in found:
        try:
            rows.append(DeviceRow.model_validate(one))
        except (ValueError, RecursionError):
            unreadable += 1
    return Rows(tuple(rows), unreadable)


def _parse_fast(content: bytes, _: int) -> Any:
    """Parse a page of devices, whose fields are checked one by one afterwards: five times as fast as `parse_json`."""
    return from_json(content, allow_inf_nan=False)


class FleetClient:
    """A fleet server; belongs to one thread."""

    def __init__(
        self, url: str, token: str | None = None, *, ca_file: Path | None = None, limits: Limits = Limits()
    ) -> None:
        """Use a server; nothing is sent yet.

        Args:
            url: such as http://127.0.0.1:8090.
            token: that its --token-file holds; None: it needs none.
            ca_file: the only certificate authorities to trust; None: those of the system.
            limits: of each request.

        Raises:
            SyncError: the URL or the token is invalid.
        """
        self._limits = limits
        if token is not None and not (token and token.isascii() and token.isprintable()):
            raise SyncError("the token of the fleet server is empty or has characters that no token has")
        self._address = parse_address(url)
        if self._address.query:
            raise SyncError(f"{self._address} has a query; give the server's address alone, like http://HOST:8090")
        remember([token])
        self._access = Access(ca_file=ca_file, proxies=getproxies_environment())
        self._connections = Connections()
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "finesight"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def __enter__(self) -> FleetClient:  # noqa: PYI034  Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._connections.close()

    def devices(self, query: Sequence[tuple[str, str]] = (), about: Release | None = None) -> Rows:
        """Return the devices that a query selects, by device id.

        Args:
            query: keys and values of `/v1/devices`.
            about: reports without what the gates of this release do not need, which is several times as fast; None:
                whole ones.

        Raises:
            SyncError: the server cannot be reached, refuses, or answers what it should not.
        """
        if about is not None:
            query = [*query, ("about", f"{about.sequence},{about.bundle_id},{about.gallery_sequence}")]
        pages = list(self._pages(query, _ROWS if about is None else _NARROW_ROWS))
        return Rows(tuple(row for page in pages for row in page.rows), sum(page.unreadable for page in pages))

    def page(
        self,
        query: Sequence[tuple[str, str]] = (),
        after: str = "",
        limit: int = _ROWS,
        deadline: Deadline | None = None,
    ) -> Rows:
        """Return one page of the devices that a query selects, by device id.

        Args:
            query: keys and values of `/v1/devices`.
            after: the device before the first one.
            limit: rows of the page, 1 to 1000.
            deadline: None: that of one request.

        Raises:
            SyncError: the server cannot be reached, refuses, or answers what it should not.
        """
        pairs = [*query, ("limit", str(limit)), *([("after", after)] if after else [])]
        page = self._ask("GET", "v1/devices", pairs, deadline=deadline, parse=_parse_fast)
        rows, following = page.get("devices"), page.get("next")
        if not isinstance(rows, list):
            raise self._wrong("no list of devices")
        if following is not None and (not rows or not isinstance(following, str) or following <= after):
            raise self._wrong("a page that does not go on")
        return replace(parse_rows(rows), next_device=following)

    def _pages(self, query: Sequence[tuple[str, str]], limit: int) -> Iterator[Rows]:
        after: str | None = ""
        deadline = Deadline(_ALL_PAGES_S)
        for _ in range(_MOST_PAGES):
            page = self.page(query, after or "", limit, deadline)
            yield page
            if (after := page.next_device) is None:
                return
        raise self._wrong("pages without end")

    def summary(self, line: str | None = None) -> dict[str, Any]:
        """Return the counts of the devices, of a line or of all.

        Raises:
            SyncError: the server cannot be reached, refuses, or answers what it should not.
        """
        return self._ask("GET", "v1/summary", [("line", line)] if line else ())

    def device(self, device: str) -> dict[str, Any]:
        """Return all that the server knows of a device.

        Raises:
            SyncError: there is none, or the server cannot be reached.
        """
        return self._ask("GET", f"v1/devices/{quote(device, safe='')}")

    def send(self, device: str, verb: str, arguments: Mapping[str, Any], by: str, keep_s: float | None = None) -> str:
        """Send a command, or have it kept for a device that is off; return its id.

        Args:
            device: its id.
            verb: of the command.
            arguments: of the command.
            by: who sends it.
            keep_s: how long it is kept, 0: not at all; None: as long as the server does.

        Raises:
            SyncError: it was neither sent nor kept.
        """
        order: dict[str, Any] = {"verb": verb, "arguments": dict(arguments), "by": by}
        order |= {} if keep_s is None else {"keep_s": keep_s}
        sent = self._ask("POST", f"v1/devices/{quote(device, safe='')}/commands", body=order)
        if not isinstance(command := sent.get("id"), str):
            raise self._wrong("no id of the command")
        return command

    def kept(self) -> list[dict[str, Any]]:
        """Return the commands that wait for their device or its answer, the oldest first.

        Raises:
            SyncError: the server cannot be reached.
        """
        found = self._ask("GET", "v1/commands").get("commands")
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self._wrong("no list of commands")
        return found

    def withdraw(self, command: str, by: str) -> None:
        """Withdraw a command that was not sent yet.

        Raises:
            SyncError: it was sent, or the server cannot be reached.
        """
        self._ask("DELETE", f"v1/commands/{quote(command, safe='')}", [("by", by)])

    def command(self, command: str) -> dict[str, Any]:
        """Return a command with its answers, the first one first, as the server has them.

        Raises:
            SyncError: there is none, or the server cannot be reached.
        """
        return self._ask("GET", f"v1/commands/{quote(command, safe='')}")

    def answers(self, command: str) -> list[Answer]:
        """Return the answers to a command, the first one first.

        Raises:
            SyncError: the server cannot be reached.
        """
        found = self.command(command).get("answers")
        try:
            return [Answer.model_validate(one) for one in found] if isinstance(found, list) else []
        except ValidationError as error:
            raise self._wrong(first_validation_error(error)) from error

    def _ask(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        body: Mapping[str, Any] | None = None,
        deadline: Deadline | None = None,
        parse: Callable[[bytes, int], Any] = parse_json,
    ) -> dict[str, Any]:
        """Send a request and return the JSON object of its answer."""
        full = f"{self._address.path.rstrip('/')}/{path}"
        address = replace(self._address, path=full, query=urlencode(query))
        data = b"" if body is None else json.dumps(body).encode()
        about_body = {"Content-Type": "application/json", "Content-Length": str(len(data))} if data else {}
        headers = self._headers | about_body
        limits, deadline = TimeLimits(self._limits.timeout_s), deadline or Deadline(self._limits.request_s)
        try:
            with self._connections.request(address, headers, self._access, limits, deadline, (method, data)) as answer:
                status, content = answer.status, self._body(answer)
        except SyncError as error:
            if deadline.is_over:
                raise SyncError(f"{self._address}: the fleet server takes too long to answer") from error
            raise
        except (OSError, http.client.HTTPException) as error:
            text = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise SyncError(f"{self._address}: cannot reach the fleet server: {one_line(str(text))}") from error
        return self._read(status, content, parse)

    def _body(self, answer: Response) -> bytes:
        parts, size = [], 0
        while part := answer.read(1 << 16):
            parts.append(part)
            if (size := size + len(part)) > self._limits.largest_bytes:
                raise self._wrong(f"an answer of more than {self._limits.largest_bytes} bytes")
        if answer.length:
            raise self._wrong("an answer that was cut short")
        return b"".join(parts)

    def _read(self, status: int, content: bytes, parse: Callable[[bytes, int], Any]) -> dict[str, Any]:
        try:
            found = parse(content, self._limits.largest_bytes)
        except ValueError as error:
            if status >= http.client.MULTIPLE_CHOICES:
                raise self._refused(status, "") from error
            raise self._wrong("not JSON") from error
        if status >= http.client.MULTIPLE_CHOICES:
            raise self._refused(status, found.get("error", "") if isinstance(found, dict) else "")
        if not isinstance(found, dict):
            raise self._wrong("not a JSON object")
        return found

    def _refused(self, status: int, text: object) -> SyncError:
        advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
        found = one_line(str(text)) or f"answered with status {status}"
        return FleetRefusedError(status, f"{self._address}: {found}{advice}")

    def _wrong(self, what: str) -> SyncError:
        return SyncError(f"{self._address}: this is no fleet server, or one of another version: {what}")
