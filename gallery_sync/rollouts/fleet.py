"""What is known of the devices of a line: the door to the fleet's server, and a file of the same rows.

Rules this module keeps:
1. A row that cannot be read is counted and left out. It stops no other row.
2. A server that does not answer is an error, never "no devices".
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge.errors import SyncError, one_line
from gallery_sync.fleet_client.client import FleetClient, FleetRefusedError, Rows, parse_rows
from gallery_sync.formats.documents import Release
from gallery_sync.formats.fields import Document
from gallery_sync.formats.reports import DeviceRow

LARGEST_FILE_BYTES = 1 << 30
Within = tuple[str, int]  # the salt of a plan, and a bucket: devices in buckets below it

__all__ = ["FileFleet", "Fleet", "HttpFleet", "Rows", "UnreachableError", "dump_rows", "open_fleet", "parse_rows"]


class UnreachableError(SyncError):
    """The fleet's server does not answer, or not as it should."""


class Fleet(Protocol):
    """The door to what is known of devices."""

    def rows(self, line: str, about: Release | None = None, within: Within | None = None, /) -> Rows:
        """Return what is known of the devices of a line.

        Args:
            line: of the devices.
            about: what the gates of this release do not need may be missing; None: nothing is.
            within: other devices may be missing; None: none is.

        Raises:
            SyncError: it is not known.
        """
        ...


@dataclass(slots=True)
class FileFleet:
    """Reads a file that holds what the server answers: for tests, and for sites without a network."""

    path: Path

    def rows(self, line: str, _about: Release | None = None, _within: Within | None = None, /) -> Rows:
        """Return the rows of a line, whole ones.

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
        return _of_line(parse_rows(_page(data, str(self.path))["devices"]), line)


@dataclass(slots=True)
class HttpFleet:
    """Asks the fleet's server."""

    client: FleetClient

    def rows(self, line: str, about: Release | None = None, within: Within | None = None, /) -> Rows:
        """Return the rows of a line.

        Raises:
            UnreachableError: the server does not answer, or not as it should.
        """
        try:
            found = self._devices(line, about, within)
        except SyncError as error:
            raise UnreachableError(str(error)) from error
        return _of_line(found, line)

    def _devices(self, line: str, about: Release | None, within: Within | None) -> Rows:
        query = [("line", line), *([("within", f"{within[0]},{within[1]}")] if within else [])]
        try:
            return self.client.devices(query, about)
        except FleetRefusedError as error:
            if (about is None and within is None) or error.status != http.client.BAD_REQUEST:
                raise
            return self.client.devices([("line", line)])  # of an earlier version, which knows whole rows alone


def _of_line(found: Rows, line: str) -> Rows:
    return Rows(tuple(one for one in found.rows if one.line == line), found.unreadable)


def _page(data: bytes, where: str) -> dict[str, Any]:
    try:
        page = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnreachableError(f"{where}: not JSON: {one_line(str(error))}") from error
    if not isinstance(page, dict) or not isinstance(page.get("devices"), list):
        raise UnreachableError(f'{where}: found no list of devices, expected {{"devices": [...]}}')
    return page


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
    return HttpFleet(FleetClient(where, token, ca_file=ca_file))
