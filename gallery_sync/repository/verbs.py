"""The verbs of `edge-sync` that work on a repository folder."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime, timezone
from pathlib import Path

from edge.errors import SyncError
from gallery_sync.printing import print_values


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to a parser."""
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

    releases = verbs.add_parser("releases", help="list the releases of a repository folder")
    releases.add_argument("repo", type=Path, help="repository folder")
    releases.set_defaults(act=_releases)

    check = verbs.add_parser("check", help="verify the hash of every object of the release")
    check.add_argument("repo", type=Path, help="repository folder")
    check.add_argument("--history", action="store_true", help="also verify every earlier release")
    check.set_defaults(act=_check)


def _publish(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.publish import publish, publish_earlier

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
    return print_values(answer, as_json=arguments.json)


def _releases(arguments: argparse.Namespace) -> int:
    from gallery_sync.repository.folder import read_releases

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
    from gallery_sync.repository.folder import check_repository

    whole, problems = check_repository(arguments.repo, history=arguments.history)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print("to repair it, publish the same bundle and gallery folders again", file=sys.stderr)
    print_values({"whole": whole, "wrong": len(problems)}, as_json=arguments.json)
    return 1 if problems else 0
