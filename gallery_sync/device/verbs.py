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
from gallery_sync.printing import print_values


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to a parser."""
    _add_pull(verbs.add_parser("pull", help="download the newest release and stage it on a device"))


def _add_pull(pull: argparse.ArgumentParser) -> None:
    pull.add_argument(
        "url",
        nargs="?",
        default=os.environ.get("FINESIGHT_REPOSITORY"),
        help="repository URL: http://, https:// or file:// (default: $FINESIGHT_REPOSITORY)",
    )
    pull.add_argument(
        "--state-dir",
        type=Path,
        default=Path(os.environ.get("FINESIGHT_STATE_DIR", "/var/lib/finesight")),
        help="state folder of the device (default: $FINESIGHT_STATE_DIR or /var/lib/finesight)",
    )
    pull.add_argument("--activate", action="store_true", help="also activate the release, after its golden probes pass")
    pull.add_argument("--line", help="follow this product line from now on (default: the line of the last release)")
    pull.add_argument(
        "--allow-jump",
        action="store_true",
        help="accept the repository's sequence number, also if it is older than the last or far above it",
    )
    pull.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="follow redirects to this host, too, such as a CDN (may be repeated)",
    )
    pull.add_argument(
        "--ca-file", type=Path, help="trust only the certificate authorities in this PEM file (default: the system's)"
    )
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
    pull.set_defaults(act=_pull)


def _pull(arguments: argparse.Namespace) -> int:
    from gallery_sync.device.pull import Allowed, activate_pulled, pull
    from gallery_sync.transport.http_connection import Access
    from gallery_sync.transport.repository_files import open_transport
    from gallery_sync.transport.time_limits import Deadline
    from gallery_sync.trust.hashes_only import HashesOnly

    if not arguments.url:
        raise SyncError("no repository; give its URL, or set FINESIGHT_REPOSITORY")
    remember(secrets_in(arguments.url))
    transport = open_transport(
        arguments.url,
        arguments.timeout_s,
        access=Access(
            frozenset(host.lower() for host in arguments.allow_host), arguments.ca_file, getproxies_environment()
        ),
        min_bytes_per_s=arguments.min_rate,
        deadline=Deadline(arguments.deadline_s),
    )
    allowed = Allowed(arguments.line, arguments.allow_jump)
    pulled = pull(transport, arguments.state_dir, HashesOnly(), allowed=allowed)
    if arguments.activate and not pulled.serving:
        pulled = activate_pulled(arguments.state_dir, pulled)
    return print_values(asdict(pulled), as_json=arguments.json)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number
