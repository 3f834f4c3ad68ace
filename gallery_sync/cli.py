"""The `edge-sync` command: a repository of signed releases, and the devices that follow it."""

from __future__ import annotations

import argparse
import sys

from edge import __version__
from edge.errors import FinesightError
from edge.telemetry.known_secrets import hide, set_up_logging
from gallery_sync.adapters import verbs as adapter_verbs
from gallery_sync.agent import verbs as agent_verbs
from gallery_sync.collector import verbs as collector_verbs
from gallery_sync.command_line import add_json
from gallery_sync.device import verbs as device_verbs
from gallery_sync.enrolment import verbs as enrolment_verbs
from gallery_sync.fleet_client import command_verbs
from gallery_sync.fleet_client import verbs as fleet_verbs
from gallery_sync.repository import verbs as repository_verbs
from gallery_sync.repository.ceremonies import verbs as ceremony_verbs
from gallery_sync.repository.items import verbs as item_verbs
from gallery_sync.rollouts import fragment_verbs
from gallery_sync.rollouts import verbs as rollout_verbs


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="edge-sync", description="Publish bundles and galleries in a repository, and pull them to a device."
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--verbose", action="store_true", help="log every step")
    verbs = parser.add_subparsers(dest="verb", required=True)
    rooms = (
        *(ceremony_verbs, repository_verbs, item_verbs, rollout_verbs, fragment_verbs, collector_verbs),
        *(fleet_verbs, command_verbs, enrolment_verbs, device_verbs, agent_verbs, adapter_verbs),
    )
    for room in rooms:
        room.add_verbs(verbs)
    for verb in verbs.choices.values():
        add_json(verb)
    return parser


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
    except BrokenPipeError:  # `edge-sync ... | head`
        sys.stderr.close()
        return 0
    return answer


if __name__ == "__main__":
    sys.exit(main())
