"""The verbs of `edge-sync` that show what the fleet server knows of devices."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import SyncError
from gallery_sync.command_line import FLEET_TOKEN, add_ca_file, parse_duration

if TYPE_CHECKING:
    from gallery_sync.fleet_client.client import FleetClient
    from gallery_sync.formats.reports import DeviceRow

FLEET = "FINESIGHT_FLEET"  # the variable with its address
_POLL_S = 0.5


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to a parser."""
    _add_devices(verbs.add_parser("devices", help="list the devices of a fleet, and what each of them runs"))
    _add_device(verbs.add_parser("device", help="show all that the fleet's server knows of a device"))


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a fleet's server."""
    parser.add_argument("--fleet", metavar="URL", help=f"address of the fleet's server (default: ${FLEET})")
    parser.add_argument("--token-file", type=Path, help=f"file with its token (default: the token in ${FLEET_TOKEN})")
    add_ca_file(parser)


def fleet_address(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """Return address and token of the fleet's server, from options or the environment.

    Raises:
        SyncError: there is no address, or the token cannot be read.
    """
    from gallery_sync.collector.credentials import read_token

    url: str | None = arguments.fleet or os.environ.get(FLEET)
    if not url:
        raise SyncError(f"name the fleet's server: --fleet http://HOST:8090, or ${FLEET}")
    return url, read_token(arguments.token_file) or os.environ.get(FLEET_TOKEN) or None


def _add_devices(devices: argparse.ArgumentParser) -> None:
    add_fleet(devices)
    devices.add_argument("--line", help="of this product line")
    devices.add_argument("--group", help="of this group")
    devices.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    devices.add_argument("--state", help="with an agent in this state, such as idle or trial")
    devices.add_argument("--release", type=int, help="that run this release")
    devices.add_argument("--silent", metavar="TIME", help="that have not reported for so long, such as 90m, 1h or 2d")
    devices.add_argument("--wait-for", type=int, metavar="N", help="wait until there are so many such devices")
    devices.add_argument("--within", default="10m", metavar="TIME", help="longest wait (default: 10m)")
    devices.set_defaults(act=_devices)


def _add_device(device: argparse.ArgumentParser) -> None:
    device.add_argument("device", help="id of the device")
    add_fleet(device)
    device.set_defaults(act=_device)


def _devices(arguments: argparse.Namespace) -> int:
    from gallery_sync.fleet_client.show import device_table, table_width

    query = [("label", label) for label in arguments.label]
    given = ((key, getattr(arguments, key)) for key in ("line", "group", "state", "release"))
    query += [(key, str(value)) for key, value in given if value is not None]
    if arguments.silent is not None:
        query.append(("silent_s", f"{seconds(arguments.silent):.0f}"))
    rows = _wait_for(arguments, query) if arguments.wait_for is not None else _rows(arguments, query)
    if arguments.json:
        print(json.dumps({"devices": [as_tree(row) for row in rows]}))
    elif rows:
        print("\n".join(device_table(rows, time.time(), table_width())))
    else:
        print("no device", file=sys.stderr)
    return 0


def _rows(arguments: argparse.Namespace, query: list[tuple[str, str]]) -> list[DeviceRow]:
    with fleet_client(arguments) as client:
        return read_rows(client, query)


def read_rows(client: FleetClient, query: list[tuple[str, str]]) -> list[DeviceRow]:
    """Return the devices that a query selects; print how many rows cannot be read.

    Raises:
        SyncError: the server cannot be reached.
    """
    found = client.devices(query)
    if found.unreadable:
        print(f"edge-sync: {found.unreadable} devices are left out: their rows cannot be read", file=sys.stderr)
    return list(found.rows)


def _wait_for(arguments: argparse.Namespace, query: list[tuple[str, str]]) -> list[DeviceRow]:
    """Return the devices once there are enough of them; a server that cannot be reached may come."""
    deadline = time.monotonic() + seconds(arguments.within)
    while True:
        problem: SyncError | None = None
        rows: list[DeviceRow] = []
        try:
            rows = _rows(arguments, query)
        except SyncError as error:
            problem = error
        if problem is None and len(rows) >= arguments.wait_for:
            return rows
        if time.monotonic() >= deadline:
            text = f"found {len(rows)} such devices in {arguments.within}, expected {arguments.wait_for}"
            raise SyncError(text if problem is None else f"{text}: {problem}")
        time.sleep(_POLL_S)


def _device(arguments: argparse.Namespace) -> int:
    from gallery_sync.fleet_client.show import device_text

    with fleet_client(arguments) as client:
        found = client.device(arguments.device)
    print(json.dumps(found) if arguments.json else "\n".join(device_text(found, time.time())))
    return 0


def seconds(text: str) -> float:
    """Parse a duration such as 90s, 15m, 1h or 2d.

    Raises:
        SyncError: it is none.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise SyncError(str(error)) from error


def fleet_client(arguments: argparse.Namespace) -> FleetClient:
    """Return the fleet's server that the options or the environment name.

    Raises:
        SyncError: there is no address, or it or the token is invalid.
    """
    from gallery_sync.fleet_client.client import FleetClient as Client

    url, token = fleet_address(arguments)
    return Client(url, token, ca_file=arguments.ca_file)


def as_tree(document: Any) -> Any:
    """Return a document as JSON values, without the fields that are not set."""
    return document.model_dump(mode="json", by_alias=True, exclude_none=True)
