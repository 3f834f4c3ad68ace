"""What the verbs on a repository folder share: their options, the keys they name, and how a release is printed."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gallery_sync.command_line import print_values

if TYPE_CHECKING:
    from gallery_sync.repository.commit_pair import Publication
    from gallery_sync.repository.keys import KeyRing
    from gallery_sync.repository.published import Published

KEYS_HELP = "folder of its keys (default: $FINESIGHT_KEYS, or REPO.keys beside it)"


def add_repo(parser: argparse.ArgumentParser, *, keys: bool = True) -> None:
    """Add the repository folder and, where the verb signs or looks for keys, the folder of its keys."""
    parser.add_argument("repo", type=Path, help="repository folder")
    if keys:
        parser.add_argument("--keys", type=Path, help=KEYS_HELP)


def add_hold(parser: argparse.ArgumentParser) -> None:
    """Add the option that publishes a release for no device yet."""
    parser.add_argument(
        "--hold",
        action="store_true",
        help="publish it for no device yet; edge-sync rollout create brings it to them in waves",
    )


def keys_folder(named: Path | None, repo: Path) -> Path:
    """Return the folder of the keys of a repository: the named one, that of the environment, or the one beside it."""
    from gallery_sync.repository.keys import keys_beside

    found = named or os.environ.get("FINESIGHT_KEYS")
    return Path(found) if found else keys_beside(repo)


def key_ring(arguments: argparse.Namespace) -> KeyRing:
    """Return the keys of the repository of a verb.

    Raises:
        SyncError: they are missing or damaged.
    """
    from gallery_sync.repository.keys import KeyRing

    return KeyRing.open(keys_folder(arguments.keys, arguments.repo))


def published_in(repo: Path) -> Published:
    """Return what a repository publishes.

    Raises:
        SyncError: it is no repository, or damaged.
    """
    from gallery_sync.repository.metadata import SignedMetadata
    from gallery_sync.repository.published import read_published

    return read_published(repo, SignedMetadata.open(repo))


def print_publication(done: Publication, arguments: argparse.Namespace) -> int:
    """Print a release that was published, or that waits for signatures. Return the exit code 0."""
    release = done.release
    values: dict[str, object] = {
        "line": release.line,
        "release": release.sequence,
        "bundle": release.bundle_id,
        "gallery": release.gallery_sequence,
        "new": done.is_new,
        "held": done.held,
    }
    for note in done.notes:
        print(f"edge-sync: {note}", file=sys.stderr)
    if done.draft is not None:
        values |= {"draft": str(done.draft), "waits_for": list(done.waits_for)}
        print(
            f"edge-sync: devices see nothing of release {release.sequence} until it is signed: "
            f"edge-sync sign {done.draft}",
            file=sys.stderr,
        )
    return print_values(values, as_json=arguments.json)
