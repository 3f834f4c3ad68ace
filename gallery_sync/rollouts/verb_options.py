"""What the verbs of a rollout share: options, the operator, where devices are known, and how a change is printed."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gallery_sync.command_line import FLEET_TOKEN, add_ca_file, print_values, utc_now, who
from gallery_sync.repository.verb_options import key_ring
from gallery_sync.rollouts.argument_types import share

if TYPE_CHECKING:
    from gallery_sync.formats.rollouts import Gates
    from gallery_sync.rollouts.changes import Changed, Desk
    from gallery_sync.rollouts.fleet import Fleet


def add_gates(parser: argparse.ArgumentParser, failed: str = "0%%", silent: str = "10%%") -> None:
    """Add the gates that can change while a rollout is under way."""
    for name, metavar, word, default in (("failed", "2%", "failed", failed), ("silent", "10%", "are silent", silent)):
        text = f"pause when more devices than this {word} (default: {default})"
        parser.add_argument(f"--max-{name}", type=share, metavar=metavar, help=text)


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """Add where devices are known."""
    parser.add_argument(
        "--fleet",
        metavar="URL",
        help=f"fleet server, or a file of its devices; its token is in ${FLEET_TOKEN}",
    )
    add_ca_file(parser)


def add_by(parser: argparse.ArgumentParser) -> None:
    """Add the name of the operator."""
    parser.add_argument("--by", metavar="NAME", help="your name, for the audit log (default: your user name)")


def print_changed(done: Changed, arguments: argparse.Namespace) -> int:
    """Print what a change did. Return the exit code 0."""
    values: dict[str, object] = {"did": done.what, "revision": done.revision}
    if done.draft is not None:
        values |= {"draft": str(done.draft), "waits_for": list(done.waits_for)}
        say_draft(done.draft)
    return print_values(values, as_json=arguments.json)


def say_draft(draft: Path) -> None:
    """Say that a change waits for signatures."""
    print(f"edge-sync: devices see nothing of it until it is signed: edge-sync sign {draft}", file=sys.stderr)


def desk(arguments: argparse.Namespace) -> Desk:
    """Return where and by whom rollouts are changed.

    Raises:
        SyncError: the keys are missing or damaged, or the operator has no name.
    """
    from gallery_sync.rollouts.changes import Desk

    return Desk(arguments.repo, key_ring(arguments), who(arguments), utc_now())


def fleet_of(arguments: argparse.Namespace) -> Fleet | None:
    """Return where devices are known; None: nowhere.

    Raises:
        SyncError: the address is none.
    """
    from gallery_sync.rollouts.fleet import open_fleet

    return open_fleet(arguments.fleet, os.environ.get(FLEET_TOKEN), arguments.ca_file) if arguments.fleet else None


def gates_of(arguments: argparse.Namespace) -> Gates:
    """Return the gates of a new rollout."""
    from gallery_sync.formats.rollouts import Gates

    wanted = {
        "max_failed_percent": arguments.max_failed,
        "max_silent_percent": arguments.max_silent,
        "silent_after_s": arguments.silent_after,
    }
    return Gates(**{key: value for key, value in wanted.items() if value is not None})
