"""The command line of the public conformance suite for TUF clients, over the client that devices use.

    python -m gallery_sync.conformance --metadata-dir D init ROOT
    python -m gallery_sync.conformance --metadata-dir D --metadata-url U refresh
    python -m gallery_sync.conformance --metadata-dir D --metadata-url U --target-name T --target-base-url B
        --target-dir O download

It is https://github.com/theupdateframework/tuf-conformance, CLIENT-CLI.md. Exit code 0: done, 1: refused. Two things
differ from a device: no time is too early, because the suite replays repositories of the past, and a failed request is
not tried again, because the suite counts them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from edge.durable import write_durably
from edge.errors import FinesightError, SyncError
from gallery_sync.transport.download import Retry
from gallery_sync.transport.repository_files import Body, FolderTransport, HttpTransport, open_transport
from gallery_sync.transport.time_limits import Deadline
from gallery_sync.trust.client import METADATA, TARGETS, TrustedClient
from gallery_sync.trust.clock import Clock, system_time
from gallery_sync.trust.floors import Floors

LARGEST_TARGET_BYTES = 64 << 20
_OWN = ".client"  # ends the name of the folder beside the metadata that holds what is no metadata
_ALWAYS = datetime(1970, 1, 1, tzinfo=timezone.utc)


class _TwoServers:
    """A repository whose metadata and targets are in two places."""

    def __init__(self, metadata_url: str, target_url: str | None) -> None:
        self.deadline = Deadline(60.0)
        self._metadata = open_transport(metadata_url, deadline=self.deadline)
        self._targets = open_transport(target_url, deadline=self.deadline) if target_url else None
        self.base = self._metadata.base
        self.budget = None  # no limit of bytes

    @contextmanager
    def get(self, path: str, offset: int) -> Iterator[Body]:
        """Get a file of either place."""
        transport: FolderTransport | HttpTransport | None = self._metadata
        below = path.removeprefix(METADATA)
        if path.startswith(TARGETS):
            transport, below = self._targets, path.removeprefix(TARGETS)
        if transport is None:
            raise SyncError("no --target-base-url")
        with transport.get(below, offset) as body:
            yield body


def _open(arguments: argparse.Namespace, now: Clock) -> TrustedClient:
    folder: Path = arguments.metadata_dir
    own = _own_folder(folder)
    return TrustedClient(
        own,
        (own / "root").read_bytes(),
        _TwoServers(arguments.metadata_url, arguments.target_base_url),
        Floors(own),
        now=now,
        retry=Retry(1, lambda _: None, lambda: 0.0),
        built_at=_ALWAYS,
        metadata_folder=folder,
    )


def _init(folder: Path, root: Path) -> None:
    _own_folder(folder).mkdir(exist_ok=True)
    shutil.copyfile(root, _own_folder(folder) / "root")
    shutil.copyfile(root, folder / "root.json")


def _own_folder(folder: Path) -> Path:
    return folder.with_name(folder.name + _OWN)


def _download(client: TrustedClient, names: list[str], folder: Path) -> None:
    for name in names:
        signed = client.target(name, LARGEST_TARGET_BYTES)
        if signed is None:
            raise SyncError(f"{name}: nobody signed it")
        path = folder / quote(name, "")
        if not path.is_file() or path.read_bytes() != signed.data:
            write_durably(path, signed.data)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(prog="python -m gallery_sync.conformance", description=__doc__.splitlines()[0])
    parser.add_argument("--metadata-dir", type=Path, required=True, help="folder of the trusted metadata")
    parser.add_argument("--metadata-url", help="URL of the repository's metadata")
    parser.add_argument("--target-name", action="append", default=[], help="target to download (may be repeated)")
    parser.add_argument("--target-base-url", help="URL of the repository's targets")
    parser.add_argument("--target-dir", type=Path, help="folder for downloaded targets")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("init", help="start with a root of trust").add_argument("root", type=Path)
    verbs.add_parser("refresh", help="refresh the metadata")
    verbs.add_parser("download", help="download targets")
    return parser


def main(argv: list[str] | None = None, now: Clock = system_time) -> int:
    """Run the command with a clock. Return 0 on success, 1 on an error."""
    arguments = build_parser().parse_args(argv)
    try:
        if arguments.verb == "init":
            _init(arguments.metadata_dir, arguments.root)
            return 0
        client = _open(arguments, now)
        client.refresh()
        if arguments.verb == "download":
            _download(client, arguments.target_name, arguments.target_dir)
    except (FinesightError, OSError) as error:
        print(f"conformance: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
