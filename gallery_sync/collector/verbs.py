"""The verbs of `edge-sync` for a fleet: its server, and for operators who ask it."""

from __future__ import annotations

import argparse
import getpass
import importlib.util
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import SyncError
from gallery_sync.command_line import FLEET_TOKEN, add_ca_file, parse_duration

if TYPE_CHECKING:
    from gallery_sync.collector.client import FleetClient
    from gallery_sync.formats.reports import Answer, DeviceRow

FLEET = "FINESIGHT_FLEET"  # the variable with its address
_MOST_NAMED = 20
_POLL_S = 0.5


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to a parser."""
    fleet = verbs.add_parser("fleet", help="run the server of a fleet, which collects what devices report")
    _add_serve(fleet.add_subparsers(dest="action", required=True).add_parser("serve", help="run the fleet's server"))
    _add_devices(verbs.add_parser("devices", help="list the devices of a fleet, and what each of them runs"))
    _add_device(verbs.add_parser("device", help="show all that the fleet's server knows of a device"))
    _add_send(verbs.add_parser("send", help="send a command to devices, and wait for their answers"))
    _add_commands(verbs.add_parser("commands", help="list commands that wait for a device or its answer"))


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
    from gallery_sync.collector.serve import read_token

    url: str | None = arguments.fleet or os.environ.get(FLEET)
    if not url:
        raise SyncError(f"name the fleet's server: --fleet http://HOST:8090, or ${FLEET}")
    return url, read_token(arguments.token_file) or os.environ.get(FLEET_TOKEN) or None


def _add_serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--database", type=Path, required=True, help="SQLite file of what devices report")
    serve.add_argument("--broker", required=True, metavar="URL", help="MQTT broker: mqtt://HOST or mqtts://HOST[:PORT]")
    serve.add_argument(
        "--account-file",
        type=Path,
        help="file like broker.env with the account at the broker (default: $FINESIGHT_MQTT_USERNAME and _PASSWORD)",
    )
    add_ca_file(serve)
    serve.add_argument("--cert", type=Path, help="PEM certificate of this server, for a broker that asks for one")
    serve.add_argument("--key", type=Path, help="PEM key of --cert (default: it is in the same file)")
    serve.add_argument(
        "--repository",
        action="append",
        default=[],
        metavar="PLACE",
        help="folder or URL: wake its devices when it changes, and give turns (may be repeated)",
    )
    serve.add_argument("--listen", default="127.0.0.1:8090", help="address of the API (default: 127.0.0.1:8090)")
    serve.add_argument("--host-name", action="append", default=[], help="name that clients use (may be repeated)")
    serve.add_argument("--token-file", type=Path, help="file with the token of the API; any but loopback needs it")
    serve.add_argument("--https-cert", type=Path, help="PEM certificate: serve the API by https")
    serve.add_argument("--https-key", type=Path, help="PEM key of --https-cert (default: it is in the same file)")
    serve.add_argument("--inbox", type=Path, metavar="FOLDER", help="take uploads of devices into this folder")
    serve.add_argument("--inbox-token-file", type=Path, help="file with the token for uploads")
    serve.add_argument(
        "--keep-days", type=float, default=180.0, help="forget devices that are silent for so long (default: 180)"
    )
    serve.add_argument("--prefix", default="fleet/v1", help="of the fleet's topics (default: fleet/v1)")
    serve.add_argument("--topic-root", default="finesight", help="first level of other topics (default: finesight)")
    serve.add_argument(
        "--mqtt-version", choices=("3.1.1", "5"), default="5", help="of the protocol of the broker (default: 5)"
    )
    serve.set_defaults(act=_serve)


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


def _add_send(send: argparse.ArgumentParser) -> None:
    send.add_argument("command", metavar="verb", help="such as sync, rollback or restart_camera")
    send.add_argument("device", nargs="*", help="ids of devices")
    send.add_argument("--select", metavar="SELECTOR", help="devices by their labels, such as group=lab,site!=berlin")
    send.add_argument("--argument", action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    send.add_argument("--by", help="who sends it, for the audit (default: $USER)")
    send.add_argument("--keep", metavar="TIME", help="for devices that are off, such as 7d; 0s: not (default: 1d)")
    send.add_argument("--wait", default="60s", metavar="TIME", help="for the answers, such as 90s (default: 60s)")
    add_fleet(send)
    send.set_defaults(act=_send)


def _add_commands(commands: argparse.ArgumentParser) -> None:
    commands.add_argument("--withdraw", nargs="+", metavar="ID", help="withdraw commands that were not sent yet")
    commands.add_argument("--by", help="who withdraws them, for the audit (default: $USER)")
    add_fleet(commands)
    commands.set_defaults(act=_commands)


def _serve(arguments: argparse.Namespace) -> int:
    from gallery_sync.collector.serve import Options, read_account, serve

    if missing := [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]:
        from edge.extras import install_command

        raise SyncError(f"the fleet's server needs {missing[0]}; run: {install_command('fleet')}")
    if not 1 <= arguments.keep_days <= 36_500:
        raise SyncError(f"--keep-days: found {arguments.keep_days:g}, expected 1 to 36500")
    for name in ("prefix", "topic_root"):
        if not re.fullmatch(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*", getattr(arguments, name)):
            raise SyncError(f"--{name.replace('_', '-')}: expected levels of letters and digits, such as fleet/v1")
    serve(
        Options(
            database=arguments.database,
            broker=arguments.broker,
            account=read_account(arguments.account_file, os.environ),
            ca_file=arguments.ca_file,
            certificate=arguments.cert,
            key=arguments.key,
            repositories=tuple(arguments.repository),
            listen=arguments.listen,
            host_names=tuple(arguments.host_name),
            token_file=arguments.token_file,
            https_certificate=arguments.https_cert,
            https_key=arguments.https_key,
            inbox=arguments.inbox,
            inbox_token_file=arguments.inbox_token_file,
            keep_days=arguments.keep_days,
            prefix=arguments.prefix,
            topic_root=arguments.topic_root,
            mqtt_version=arguments.mqtt_version,
        )
    )
    return 0


def _devices(arguments: argparse.Namespace) -> int:
    from gallery_sync.collector.show import device_table, table_width

    query = [("label", label) for label in arguments.label]
    given = ((key, getattr(arguments, key)) for key in ("line", "group", "state", "release"))
    query += [(key, str(value)) for key, value in given if value is not None]
    if arguments.silent is not None:
        query.append(("silent_s", f"{seconds(arguments.silent):.0f}"))
    rows = _wait_for(arguments, query) if arguments.wait_for is not None else _rows(arguments, query)
    if arguments.json:
        print(json.dumps({"devices": [_tree(row) for row in rows]}))
    elif rows:
        print("\n".join(device_table(rows, time.time(), table_width())))
    else:
        print("no device", file=sys.stderr)
    return 0


def _rows(arguments: argparse.Namespace, query: list[tuple[str, str]]) -> list[DeviceRow]:
    with _client(arguments) as client:
        return _read_rows(client, query)


def _read_rows(client: FleetClient, query: list[tuple[str, str]]) -> list[DeviceRow]:
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
    from gallery_sync.collector.show import device_text

    with _client(arguments) as client:
        found = client.device(arguments.device)
    print(json.dumps(found) if arguments.json else "\n".join(device_text(found, time.time())))
    return 0


def _send(arguments: argparse.Namespace) -> int:
    from gallery_sync.collector.client import wait_for_answers
    from gallery_sync.collector.show import answer_text

    given, wait_s = _arguments_of(arguments.argument), seconds(arguments.wait)
    keep_s = None if arguments.keep is None else seconds(arguments.keep)
    answers: list[dict[str, Any]] = []

    def show(device: str, answer: Answer) -> None:
        answers.append(_tree(answer))
        if not arguments.json:
            print(answer_text(device, answer), flush=True)

    by = _by(arguments)
    commands: dict[str, str] = {}
    problems: dict[str, str] = {}
    with _client(arguments) as client:
        for device in _chosen(client, arguments):
            try:
                commands[device] = client.send(device, arguments.command, given, by, keep_s)
            except SyncError as error:
                problems[device] = str(error)
                print(f"{device}: not sent: {error}", file=sys.stderr)
        last = wait_for_answers(client, commands, wait_s, show)
        stored = {one: client.command(commands[one]) for one in commands if one not in last}
    for device in commands:
        answer = last.get(device)
        if answer is None or answer.state == "accepted":
            problems[device] = _why_not_done(answer, stored.get(device, {}), arguments.wait)
            print(f"{device}: {problems[device]}; edge-sync device {device} shows later answers", file=sys.stderr)
        elif answer.state != "done":
            problems[device] = answer.state
    if arguments.json:
        print(json.dumps({"commands": commands, "answers": answers, "problems": problems}))
    return 1 if problems else 0


def _why_not_done(answer: Answer | None, stored: dict[str, Any], waited: str) -> str:
    from gallery_sync.collector.show import time_text

    if answer is None and stored.get("state") == "waiting":
        return f"waits: the device is off, or the broker is; it is kept until {time_text(stored.get('until') or 0.0)}"
    kept = f", sent again until {time_text(stored['until'])}" if stored.get("until") else ""
    return f"{'no answer' if answer is None else 'not done'} in {waited}{kept}"


def _commands(arguments: argparse.Namespace) -> int:
    from gallery_sync.collector.show import command_text

    failed = False
    with _client(arguments) as client:
        for command in arguments.withdraw or ():
            try:
                client.withdraw(command, _by(arguments))
            except SyncError as error:
                failed = True
                print(f"edge-sync: {error}", file=sys.stderr)
        found = client.kept()
    if arguments.json:
        print(json.dumps({"commands": found}))
    else:
        print("\n".join(map(command_text, found)) or "no command waits", file=sys.stdout if found else sys.stderr)
    return 1 if failed else 0


def _chosen(client: FleetClient, arguments: argparse.Namespace) -> list[str]:
    """Return the devices that a command is for."""
    from gallery_sync.formats.rollouts import parse_selector

    if bool(arguments.device) == (arguments.select is not None):
        raise SyncError("name devices, or select them by --select; an empty selector is all of them")
    if arguments.select is None:
        return list(dict.fromkeys(arguments.device))
    try:
        selector = parse_selector(arguments.select)
    except ValueError as error:
        raise SyncError(f"--select: {error}") from error
    chosen = [row.device for row in _read_rows(client, []) if selector.matches(row.labels)]
    if not chosen:
        raise SyncError(f"--select: no device matches {arguments.select[:80]!r}; edge-sync devices lists them")
    names = ", ".join(chosen[:_MOST_NAMED]) + (", ..." if len(chosen) > _MOST_NAMED else "")
    print(f"edge-sync: {arguments.command} to {len(chosen)} devices: {names}", file=sys.stderr)
    return chosen


def _arguments_of(texts: list[str]) -> dict[str, Any]:
    """Return the arguments of a command; a value that is a JSON number, true, false or null is taken as that."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise SyncError(f"--argument: found {text[:80]!r}, expected a key, = and a value")
        if key in found:
            raise SyncError(f"--argument: {key[:80]!r} comes twice")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def seconds(text: str) -> float:
    """Parse a duration such as 90s, 15m, 1h or 2d.

    Raises:
        SyncError: it is none.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise SyncError(str(error)) from error


def _client(arguments: argparse.Namespace) -> FleetClient:
    from gallery_sync.collector.client import FleetClient as Client

    url, token = fleet_address(arguments)
    return Client(url, token, ca_file=arguments.ca_file)


def _tree(document: Any) -> Any:
    return document.model_dump(mode="json", by_alias=True, exclude_none=True)


def _by(arguments: argparse.Namespace) -> str:
    if arguments.by is not None and not arguments.by.strip():  # such as of a variable that is not set
        raise SyncError("--by: found an empty name; give yours, for the audit")
    return arguments.by or _user()


def _user() -> str:
    try:
        return getpass.getuser()[:80]
    except (KeyError, OSError):
        raise SyncError("cannot tell who sends this; give --by NAME") from None
