"""What is known of the devices of a line: the door to the fleet's server, and a file of the same rows.

Rules this module keeps:
1. Rows are claims: one that cannot be read is counted and left out, and stops no other.
2. A server that does not answer is an error, never "no devices".
3. The token goes to the server that was named, and is in no message.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode
from urllib.request import getproxies_environment

from edge.errors import SyncError, one_line
from edge.telemetry.known_secrets import remember
from gallery_sync.formats.fields import Document
from gallery_sync.formats.reports import DeviceRow
from gallery_sync.transport.addresses import Address, parse_address
from gallery_sync.transport.http_connection import Access, Connections, Response
from gallery_sync.transport.time_limits import Deadline, TimeLimits

LARGEST_PAGE_BYTES = 64 << 20
LARGEST_FILE_BYTES = 1 << 30
MOST_PAGES = 10_000
_PAGE, _TIMEOUT_S, _DEADLINE_S = 500, 20.0, 300.0
_UNAUTHORIZED = (401, 403)


class UnreachableError(SyncError):
    """The fleet's server does not answer, or not as it should."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of the devices of a line."""

    rows: tuple[DeviceRow, ...]
    unreadable: int = 0  # rows that were left out


class Fleet(Protocol):
    """The door to what is known of devices."""

    def rows(self, line: str) -> Rows:
        """Return what is known of the devices of a line.

        Raises:
            SyncError: it is not known.
        """
        ...


@dataclass(slots=True)
class FileFleet:
    """Reads a file that holds what the server answers: for tests, and for sites without a network."""

    path: Path

    def rows(self, line: str) -> Rows:
        """Return the rows of a line.

        Raises:
            UnreachableError: the file cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(LARGEST_FILE_BYTES + 1)
        except OSError as error:
            raise UnreachableError(f"{self.path}: cannot read: {error.strerror}") from error
        if len(data) > LARGEST_FILE_BYTES:
            raise UnreachableError(f"{self.path}: found more than {LARGEST_FILE_BYTES} bytes")
        found = parse_rows(_page(data, str(self.path))["devices"])
        return Rows(tuple(one for one in found.rows if one.line == line), found.unreadable)


@dataclass(slots=True)
class HttpFleet:
    """Asks the fleet's server, page by page."""

    address: Address
    token: str | None = None
    access: Access = field(default_factory=lambda: Access(proxies=getproxies_environment()))
    connections: Connections = field(default_factory=Connections)

    def rows(self, line: str) -> Rows:
        """Return the rows of a line.

        Raises:
            UnreachableError: the server does not answer, or not as it should.
        """
        found, unreadable, after, seen = list[DeviceRow](), 0, "", {""}
        deadline = Deadline(_DEADLINE_S)
        for _ in range(MOST_PAGES):
            page = self._ask({"line": line, "limit": _PAGE, **({"after": after} if after else {})}, deadline)
            read = parse_rows(page["devices"])
            found += [one for one in read.rows if one.line == line]
            unreadable += read.unreadable
            cursor = page.get("next")
            if cursor is None:
                return Rows(tuple(found), unreadable)
            after = str(cursor)
            if after in seen:
                break
            seen.add(after)
        raise UnreachableError(f"{self.address}: the pages of devices do not end; update the fleet's server")

    def _ask(self, query: Mapping[str, object], deadline: Deadline) -> dict[str, Any]:
        address = replace(self.address.child("v1/devices"), query=urlencode(query))
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "finesight"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            with _opened(self.connections, address, headers, self.access, deadline) as response:
                _check_status(response, address)
                data = _body(response, address)
        except UnreachableError:
            raise
        except (OSError, http.client.HTTPException, SyncError) as error:
            raise UnreachableError(f"{self.address}: no answer: {one_line(str(error))}") from error
        return _page(data, str(self.address))


def _opened(
    connections: Connections, address: Address, headers: dict[str, str], access: Access, deadline: Deadline
) -> Any:
    return connections.request(address, headers, access, TimeLimits(_TIMEOUT_S), deadline)


def _check_status(response: Response, address: Address) -> None:
    if response.status in _UNAUTHORIZED:
        raise UnreachableError(f"{address}: answered {response.status}; check the token: $FINESIGHT_FLEET_TOKEN")
    if response.status != http.client.OK:
        raise UnreachableError(f"{address}: answered {response.status}, expected 200")


def _body(response: Response, address: Address) -> bytes:
    parts, size = [], 0
    while part := response.read(1 << 16):
        parts.append(part)
        size += len(part)
        if size > LARGEST_PAGE_BYTES:
            raise UnreachableError(f"{address}: found a page of more than {LARGEST_PAGE_BYTES} bytes")
    if response.length:
        raise UnreachableError(f"{address}: the answer was cut short")
    return b"".join(parts)


def _page(data: bytes, where: str) -> dict[str, Any]:
    try:
        page = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnreachableError(f"{where}: the answer is not JSON: {one_line(str(error))}") from error
    if not isinstance(page, dict) or not isinstance(page.get("devices"), list):
        raise UnreachableError(f'{where}: found no list of devices, expected {{"devices": [...]}}')
    return page


def parse_rows(found: Iterable[object]) -> Rows:
    """Return the rows that can be read."""
    rows, unreadable = [], 0
    for one in found:
        try:
            rows.append(DeviceRow.model_validate(one))
        except (ValueError, RecursionError):
            unreadable += 1
    return Rows(tuple(rows), unreadable)


def dump_rows(rows: Iterable[DeviceRow]) -> bytes:
    """Return rows as the server answers them."""
    devices = [_fields(one) for one in rows]
    return json.dumps({"devices": devices, "next": None}).encode()


def _fields(row: Document) -> dict[str, Any]:
    return row.model_dump(mode="json", by_alias=True, exclude_none=True)


def open_fleet(where: str, token: str | None, ca_file: Path | None = None) -> Fleet:
    """Return the door to a server (http, https) or a file.

    Raises:
        SyncError: the address is none.
    """
    if not where.startswith(("http://", "https://")):
        return FileFleet(Path(where.removeprefix("file://")))
    remember([token])
    return HttpFleet(parse_address(where), token, Access(ca_file=ca_file, proxies=getproxies_environment()))
