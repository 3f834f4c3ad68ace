"""The verbs of `edge-sync` that make enrolments on the server and give one to a device."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import SyncError
from gallery_sync.command_line import add_ca_file, add_state_dir, parse_broker, print_values

if TYPE_CHECKING:
    from gallery_sync.enrolment.batch import BrokerAddress
    from gallery_sync.formats.enrolment import Enrolment
    from gallery_sync.transport.download import Fetcher

_ADOPTED = """\
WARNING: THIS DEVICE FOLLOWED A REPOSITORY WITHOUT SIGNATURES, AND IS TAKEN OVER.
Whoever could write to that repository could put anything on this device until now. From now on, it installs nothing
that the keys of its root of trust did not sign. What it serves goes on until the next release.\
"""


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to a parser."""
    _add_enrol(verbs.add_parser("enrol", help="make this device one of a fleet: its id, line, repository and root"))
    enrolment = verbs.add_parser("enrolment", help="make enrolments for new devices, on the server")
    actions = enrolment.add_subparsers(dest="action", required=True)
    _add_new(actions.add_parser("new", help="make enrolments for a batch of devices"))
    _add_retire(actions.add_parser("retire", help="delete claims from the repository, after the devices used them"))


def _add_enrol(enrol: argparse.ArgumentParser) -> None:
    source = enrol.add_mutually_exclusive_group(required=True)
    source.add_argument("file", nargs="?", type=Path, help="enrolment file from edge-sync enrolment new")
    source.add_argument("--text", help="text of the QR code: finesight:enrol?...")
    source.add_argument("--claim", metavar="TOKEN", help="claim token; also give --url")
    enrol.add_argument("--url", help="repository URL: http://, https:// or file:// (needed with --claim)")
    add_state_dir(enrol)
    enrol.add_argument("--replace", action="store_true", help="accept another identity than the device has")
    enrol.add_argument("--adopt", action="store_true", help="take over a device that followed an unsigned repository")
    add_ca_file(enrol)
    enrol.set_defaults(act=_enrol)


def _add_new(new: argparse.ArgumentParser) -> None:
    new.add_argument("repository", type=Path, help="repository folder")
    new.add_argument("--url", required=True, help="repository URL as the devices reach it")
    new.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="new folder for the enrolments")
    new.add_argument("--group", help="group of the devices, such as a shop")
    new.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="label of the devices, such as site=berlin, that rollouts select by (may be repeated)",
    )
    which = new.add_mutually_exclusive_group(required=True)
    which.add_argument("--count", type=int, help="number of devices")
    which.add_argument("--device", action="append", metavar="ID", help="id of one device (may be repeated)")
    new.add_argument("--prefix", default="cam-", help="start of their ids, before the number (default: cam-)")
    new.add_argument("--start", type=int, default=1, help="number of the first device (default: 1)")
    new.add_argument("--claims", action="store_true", help="also put a sealed enrolment with a claim token per device")
    new.add_argument("--broker", metavar="URL", help="MQTT broker of the devices: mqtt://HOST or mqtts://HOST[:PORT]")
    new.add_argument(
        "--credentials",
        type=Path,
        metavar="CSV",
        help="accounts at the broker: device_id, username, password (default: made here, with files for mosquitto)",
    )
    new.add_argument("--topic-root", default="finesight", help="first level of the topics (default: finesight)")
    new.add_argument(
        "--fleet-account",
        type=Path,
        metavar="FILE",
        help="account of the fleet's server at the broker, made if there is none (default: fleet.env beside FOLDER)",
    )
    new.set_defaults(act=_new)


def _add_retire(retire: argparse.ArgumentParser) -> None:
    retire.add_argument("repository", type=Path, help="repository folder")
    retire.add_argument("device", nargs="*", help="ids of devices (default: all of the list)")
    which = retire.add_mutually_exclusive_group(required=True)
    which.add_argument("--list", type=Path, metavar="CSV", help="devices.csv of the batch")
    which.add_argument("--token", action="append", help="claim token (may be repeated)")
    which.add_argument("--all", action="store_true", help="every claim of the repository")
    retire.set_defaults(act=_retire)


def _enrol(arguments: argparse.Namespace) -> int:
    from gallery_sync.enrolment.device_files import enrol

    enrolment = _get(arguments)
    enrolled = enrol(arguments.state_dir, enrolment, replace=arguments.replace, adopt=arguments.adopt)
    if enrolled.adopted_release is not None:
        print(_ADOPTED, file=sys.stderr)
    return print_values(asdict(enrolled), as_json=arguments.json)


def _get(arguments: argparse.Namespace) -> Enrolment:
    from gallery_sync.enrolment.document import read_text
    from gallery_sync.enrolment.fetch import from_claim, from_file, from_text

    if arguments.file:
        return from_file(arguments.file)
    if arguments.text:
        text = read_text(arguments.text)
        return from_text(text, _fetcher(arguments, arguments.url or text.repository))
    if not arguments.url:
        raise SyncError("a claim token alone does not say where the repository is; give --url URL")
    return from_claim(arguments.claim, _fetcher(arguments, arguments.url))


def _fetcher(arguments: argparse.Namespace, url: str) -> Fetcher:
    from urllib.request import getproxies_environment

    from gallery_sync.transport.download import Fetcher
    from gallery_sync.transport.http_connection import Access
    from gallery_sync.transport.repository_files import open_transport
    from gallery_sync.transport.time_limits import Deadline
    from gallery_sync.trust.client import usual_retry

    access = Access(ca_file=arguments.ca_file, proxies=getproxies_environment())
    return Fetcher(open_transport(url, access=access, deadline=Deadline(120.0)), arguments.state_dir, usual_retry())


def _new(arguments: argparse.Namespace) -> int:
    from gallery_sync.enrolment.batch import LIST_NAME, Batch, make_batch, numbered, read_repository
    from gallery_sync.enrolment.broker_accounts import new_account, read_accounts

    batch = Batch(
        url=arguments.url.rstrip("/"),
        device_ids=arguments.device or numbered(arguments.prefix, arguments.count, arguments.start),
        group=arguments.group,
        labels=_labels(arguments.label),
        broker=_broker(arguments) if arguments.broker else None,
        accounts=read_accounts(arguments.credentials) if arguments.credentials else {},
        claims=arguments.claims,
    )
    if batch.accounts and (missing := [one for one in batch.device_ids if one not in batch.accounts]):
        raise SyncError(f"{arguments.credentials}: has no account for device {missing[0]}")
    rows = make_batch(read_repository(arguments.repository), batch, arguments.out, new_account)
    longest = max(len(row["text"]) for row in rows)
    made = {"devices": len(rows), "list": str(arguments.out / LIST_NAME), "longest_text": longest}
    account = {"fleet_account": str(batch.broker.server_file)} if batch.broker else {}
    return print_values(made | account, as_json=arguments.json)


def _labels(given: list[str]) -> dict[str, str]:
    pairs = [one.partition("=") for one in given]
    if wrong := [one for one, (key, _, value) in zip(given, pairs, strict=True) if not key or not value]:
        raise SyncError(f"--label: found {wrong[0][:80]!r}, expected a label such as site=berlin")
    labels = {key: value for key, _, value in pairs}
    if len(labels) < len(pairs):
        raise SyncError("--label: found a label twice; a device has one value for each")
    return labels


def _broker(arguments: argparse.Namespace) -> BrokerAddress:
    from gallery_sync.enrolment.batch import BrokerAddress
    from gallery_sync.enrolment.broker_accounts import SERVER_FILE

    try:
        host, port, tls = parse_broker(arguments.broker)
    except ValueError as error:
        raise SyncError(
            "--broker is not mqtt://HOST or mqtts://HOST[:PORT]; accounts come from --credentials"
        ) from error
    account = arguments.fleet_account or arguments.out.absolute().parent / SERVER_FILE
    return BrokerAddress(host, port, tls, arguments.topic_root, server_file=account)


def _retire(arguments: argparse.Namespace) -> int:
    from gallery_sync.enrolment.batch import read_tokens, retire, retire_all

    if arguments.all:
        count = retire_all(arguments.repository)
    else:
        tokens = arguments.token or read_tokens(arguments.list, arguments.device)
        count = retire(arguments.repository, tokens)
    return print_values({"retired": count}, as_json=arguments.json)
