"""The verbs of `edge-sync` that fetch a release to a device."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from urllib.request import getproxies_environment

from edge.errors import SyncError
from edge.redact import secrets_in
from edge.telemetry.known_secrets import remember
from gallery_sync.command_line import add_ca_file, add_state_dir, print_values

AGENT_CONFIG = Path("/etc/finesight/agent.yaml")
LARGEST_ROOT_BYTES = 512_000  # as python-tuf reads it


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to a parser."""
    _add_pull(verbs.add_parser("pull", help="download the newest release and stage it on a device"))


def _add_pull(pull: argparse.ArgumentParser) -> None:
    pull.add_argument(
        "url",
        nargs="?",
        default=os.environ.get("FINESIGHT_REPOSITORY"),
        help="repository URL: http://, https:// or file:// (default: $FINESIGHT_REPOSITORY, or that of the enrolment)",
    )
    add_state_dir(pull)
    pull.add_argument("--activate", action="store_true", help="also activate the release, after its golden probes pass")
    pull.add_argument(
        "--root",
        type=Path,
        metavar="FILE",
        help="root of trust of the repository, such as its 1.root.json; needed once, on a device that is not enrolled",
    )
    pull.add_argument("--line", help="product line (default: that of the device, or else the repository's)")
    pull.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="follow redirects to this host, too, such as a CDN (may be repeated)",
    )
    add_ca_file(pull)
    pull.add_argument(
        "--timeout-s",
        type=_positive,
        default=20.0,
        help="seconds without a byte before a download fails (default: 20)",
    )
    pull.add_argument(
        "--deadline-s",
        type=_positive,
        default=1500.0,
        help="seconds that the whole pull may take; the next one goes on where it stopped (default: 1500)",
    )
    pull.add_argument(
        "--min-rate",
        type=float,
        default=500.0,
        help="bytes per second, averaged over 30 s, below which a download fails (default: 500)",
    )
    pull.add_argument(
        "--config", type=Path, help=f"the file with the labels of the device (default: {AGENT_CONFIG}, if it exists)"
    )
    pull.set_defaults(act=_pull)


def _pull(arguments: argparse.Namespace) -> int:
    from gallery_sync.device.identity import read_own_labels
    from gallery_sync.device.pull import activate_pulled, pull
    from gallery_sync.transport.http_connection import Access
    from gallery_sync.transport.repository_files import open_transport
    from gallery_sync.transport.time_limits import Deadline
    from gallery_sync.trust.enrolment_file import read_enrolment

    enrolled = read_enrolment(arguments.state_dir)
    url = arguments.url or (enrolled.repository if enrolled else None)
    if not url:
        raise SyncError("no repository; give its URL, set FINESIGHT_REPOSITORY, or enrol the device")
    remember(secrets_in(url))
    transport = open_transport(
        url,
        arguments.timeout_s,
        access=Access(
            frozenset(host.lower() for host in arguments.allow_host), arguments.ca_file, getproxies_environment()
        ),
        min_bytes_per_s=arguments.min_rate,
        deadline=Deadline(arguments.deadline_s),
    )
    line = arguments.line or (enrolled.line if enrolled else None)
    labels = read_own_labels(arguments.config or AGENT_CONFIG, must_exist=arguments.config is not None)
    pulled = pull(transport, arguments.state_dir, _read_root(arguments.root), line=line, labels=labels)
    if arguments.activate and not pulled.serving:
        pulled = activate_pulled(arguments.state_dir, pulled)
    values = asdict(pulled)
    if pulled.waits is None:
        del values["waits"]
    return print_values(values, as_json=arguments.json)


def _read_root(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_ROOT_BYTES)
    except OSError as error:
        raise SyncError(f"{path}: cannot read: {error.strerror}") from error


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number
