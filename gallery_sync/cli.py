"""The `edge-sync` command: publish a bundle and a gallery, pull them to a device, check a repository."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from edge import __version__
from edge.errors import FinesightError


def _publish(arguments: argparse.Namespace) -> int:
    from gallery_sync.publish import publish

    release = publish(
        arguments.repo,
        arguments.bundle,
        arguments.gallery,
        line=arguments.line,
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        sequence=arguments.sequence,
    )
    answer = {"line": release.line, "release": release.sequence, "gallery": release.gallery.generation}
    return _print_values(answer, as_json=arguments.json)


def _pull(arguments: argparse.Namespace) -> int:
    from edge.bundle.golden_probes import verify_slot
    from edge.bundle.slots import activate
    from gallery_sync.pull import pull
    from gallery_sync.transport import open_transport
    from gallery_sync.trust import HashesOnly

    pulled = pull(open_transport(arguments.url, arguments.timeout_s), arguments.state_dir, HashesOnly())
    answer = asdict(pulled)
    if arguments.activate and not pulled.serving:
        verify_slot(arguments.state_dir, pulled.slot)
        activate(arguments.state_dir, pulled.slot, pulled.gallery)
        answer["serving"] = True
    return _print_values(answer, as_json=arguments.json)


def _check(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository import check_repository

    whole, problems = check_repository(arguments.repo)
    for problem in problems:
        print(problem, file=sys.stderr)
    _print_values({"whole": whole, "wrong": len(problems)}, as_json=arguments.json)
    return 1 if problems else 0


def _print_values(values: dict[str, object], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps(values))
    else:
        for key, value in values.items():
            print(f"{key}: {value}")
    return 0


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
    publish.add_argument("--bundle", type=Path, required=True, help="bundle folder")
    publish.add_argument("--gallery", type=Path, required=True, help="gallery folder")
    publish.add_argument("--line", default="demo", help="product line; one repository has one line (default: demo)")
    publish.add_argument(
        "--sequence", type=int, help="sequence number of the release (default: one more than the last)"
    )
    publish.set_defaults(act=_publish)

    pull = verbs.add_parser("pull", help="download the newest release and stage it on a device")
    pull.add_argument("url", help="repository URL: http://, https:// or file://")
    pull.add_argument(
        "--state-dir",
        type=Path,
        default=Path(os.environ.get("FINESIGHT_STATE_DIR", "/var/lib/finesight")),
        help="state folder of the device (default: $FINESIGHT_STATE_DIR or /var/lib/finesight)",
    )
    pull.add_argument("--activate", action="store_true", help="also activate the release, after its golden probes pass")
    pull.add_argument(
        "--timeout-s", type=float, default=20.0, help="seconds without a byte before a download fails (default: 20)"
    )
    pull.set_defaults(act=_pull)

    check = verbs.add_parser("check", help="verify the hash of every object of the release")
    check.add_argument("repo", type=Path, help="repository folder")
    check.set_defaults(act=_check)
    for verb in (publish, pull, check):
        verb.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command. Return 0 on success, 1 on an error (one line, no traceback), 2 on wrong usage."""
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        answer: int = arguments.act(arguments)
    except FinesightError as error:
        print(f"edge-sync: {error}", file=sys.stderr)
        return 1
    return answer


if __name__ == "__main__":
    sys.exit(main())
