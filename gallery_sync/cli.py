"""The `edge-sync` command: publish bundles and galleries, pull them to a device, list and check a repository."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from urllib.request import getproxies_environment

from edge import __version__
from edge.errors import FinesightError, SyncError
from edge.redact import secrets_in
from edge.telemetry.known_secrets import hide, remember, set_up_logging


def _publish(arguments: argparse.Namespace) -> int:
    from gallery_sync.publish import publish, publish_earlier

    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    folders = [folder for folder in (arguments.bundle, arguments.gallery) if folder is not None]
    if len(folders) != (2 if arguments.rollback_to is None else 0):
        raise SyncError("what to publish? give --bundle and --gallery, or --rollback-to alone")
    if arguments.rollback_to is not None:
        release = publish_earlier(
            arguments.repo,
            arguments.rollback_to,
            created_at=when,
            sequence=arguments.sequence,
            allow_jump=arguments.allow_jump,
        )
    else:
        release = publish(
            arguments.repo,
            arguments.bundle,
            arguments.gallery,
            line=arguments.line,
            created_at=when,
            sequence=arguments.sequence,
            allow_jump=arguments.allow_jump,
        )
    answer = {"line": release.line, "release": release.sequence, "gallery": release.gallery.generation}
    return _print_values(answer, as_json=arguments.json)


def _pull(arguments: argparse.Namespace) -> int:
    from gallery_sync.http_connection import Access
    from gallery_sync.pull import Allowed, activate_pulled, pull
    from gallery_sync.time_limits import Deadline
    from gallery_sync.transport import open_transport
    from gallery_sync.trust import HashesOnly

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
    return _print_values(asdict(pulled), as_json=arguments.json)


def _releases(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository import read_releases

    rows = [
        {
            "release": release.sequence,
            "created_at": release.created_at,
            "bundle": head.bundle_id if head else None,
            "bundle_sequence": head.sequence if head else None,
            "gallery": release.gallery.generation,
            "rollback_to": release.rollback_to,
        }
        for release, head in read_releases(arguments.repo)
    ]
    if arguments.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        again = f" (release {row['rollback_to']} again)" if row["rollback_to"] else ""
        bundle = f"bundle {row['bundle']}" if row["bundle"] else "a damaged bundle head"
        print(f"{row['release']}: {row['created_at']} {bundle}, gallery {row['gallery']}{again}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository import check_repository

    whole, problems = check_repository(arguments.repo, history=arguments.history)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print("to repair it, publish the same bundle and gallery folders again", file=sys.stderr)
    _print_values({"whole": whole, "wrong": len(problems)}, as_json=arguments.json)
    return 1 if problems else 0


def _print_values(values: dict[str, object], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(values))
    else:
        for key, value in values.items():
            print(f"{key}: {value}")
    return 0


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="edge-sync", description="Publish bundles and galleries in a repository, and pull them to a device."
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--verbose", action="store_true", help="log every step")
    verbs = parser.add_subparsers(dest="verb", required=True)

    publish = verbs.add_parser("publish", help="publish a bundle and a gallery in a repository folder")
    publish.add_argument("repo", type=Path, help="repository folder")
    publish.add_argument("--bundle", type=Path, help="bundle folder")
    publish.add_argument("--gallery", type=Path, help="gallery folder")
    publish.add_argument("--line", default="demo", help="product line; one repository has one line (default: demo)")
    publish.add_argument(
        "--rollback-to",
        type=int,
        metavar="SEQUENCE",
        help="instead of folders: publish bundle and gallery of this earlier release again, as a new release",
    )
    publish.add_argument(
        "--sequence", type=int, help="sequence number of the release (default: one more than the last)"
    )
    publish.add_argument(
        "--allow-jump",
        action="store_true",
        help="accept a sequence number more than a million above the last; devices need their --allow-jump",
    )
    publish.set_defaults(act=_publish)
    _add_pull(verbs.add_parser("pull", help="download the newest release and stage it on a device"))

    releases = verbs.add_parser("releases", help="list the releases of a repository folder")
    releases.add_argument("repo", type=Path, help="repository folder")
    releases.set_defaults(act=_releases)

    check = verbs.add_parser("check", help="verify the hash of every object of the release")
    check.add_argument("repo", type=Path, help="repository folder")
    check.add_argument("--history", action="store_true", help="also verify every earlier release")
    check.set_defaults(act=_check)
    for verb in verbs.choices.values():
        verb.add_argument("--json", action="store_true", help="print JSON")
    return parser


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


def main(argv: list[str] | None = None) -> int:
    """Run the command. Return 0 on success, 1 on an error (one line, no traceback), 2 on wrong usage."""
    arguments = build_parser().parse_args(argv)
    set_up_logging("INFO" if arguments.verbose else "WARNING", "%(levelname)s %(name)s: %(message)s")
    try:
        answer: int = arguments.act(arguments)
    except FinesightError as error:
        print(f"edge-sync: {hide(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("edge-sync: interrupted; the next one goes on where it stopped", file=sys.stderr)
        return 130
    return answer


if __name__ == "__main__":
    sys.exit(main())
