"""The repository of a device, as a pull and the agent use it: signed metadata, objects, and whose line it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from gallery_sync.device.deliveries import Objects as LargeObjects
from gallery_sync.device.fetch import cache_folder
from gallery_sync.device.identity import NOBODY, Identity, read_identity
from gallery_sync.device.last_release import known_releases
from gallery_sync.device.root_of_trust import trusted_root
from gallery_sync.device.wanted import Objects as SmallObjects
from gallery_sync.device.wanted import SignedFiles
from gallery_sync.formats.fields import Document, Name, parse
from gallery_sync.transport.download import Fetcher, Retry, Transport
from gallery_sync.transport.retry_ledger import RetryLedger

REPOSITORY_NAME = "repository.json"
LARGEST_ABOUT_BYTES = 64 << 10


class Client(SignedFiles, Protocol):
    """The signed metadata of a repository, as gallery_sync.trust.client.TrustedClient gives it."""

    @property
    def downloaded_bytes(self) -> int:
        """The bytes of all answers."""
        ...

    def unchanged(self) -> bool:
        """Return whether the repository is as it was at the last complete refresh."""
        ...

    def refresh(self) -> object:
        """Get and verify the newest metadata."""
        ...

    def prune_targets(self) -> int:
        """Remove the documents that were not read since the last refresh."""
        ...


class Objects(SmallObjects, LargeObjects, Protocol):
    """The objects of a repository, as gallery_sync.transport.download.Fetcher gives them."""

    @property
    def downloaded_bytes(self) -> int:
        """The bytes of all bodies."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """A repository, as one device sees it."""

    client: Client
    objects: Objects  # a Fetcher into `cache_folder`
    line: str
    trusted: Callable[[], str | None]  # the hash of the timestamp of the last complete refresh; None: there was none
    root: bytes  # of trust, with which the device was enrolled
    identity: Identity = NOBODY  # of the device, as rollouts select it

    @property
    def downloaded_bytes(self) -> int:
        """The bytes of all answers."""
        return self.client.downloaded_bytes + self.objects.downloaded_bytes


class _About(Document):
    """The content of repository.json, as far as a device reads it."""

    kind = "description of a repository"
    line: Name


def open_source(
    transport: Transport,
    state_dir: Path,
    root: bytes | None = None,
    *,
    line: str | None = None,
    retry: Retry | None = None,
    now: Callable[[], datetime] | None = None,
    ledger: RetryLedger | None = None,
    labels: Mapping[str, str] | None = None,
) -> Source:
    """Open a repository for one device.

    Args:
        transport: reaches the repository.
        state_dir: of the device.
        root: root of trust of a device that was not enrolled; None: the one in the state folder.
        line: product line; None: that of the releases on the device or, if there is none, the repository's.
        retry: attempts and waits of a request; None: as usual.
        now: the system clock, UTC; None: the real one.
        ledger: when an object may be requested again after it failed; None: always.
        labels: of its agent.yaml; None: there are none.

    Raises:
        SyncError: the enrolment is damaged, the device has no root of trust, or the network or the disk failed.
    """
    from gallery_sync.trust.client import TrustedClient, usual_retry
    from gallery_sync.trust.clock import system_time
    from gallery_sync.trust.floors import Floors

    retry = retry or usual_retry()
    trust, cache = state_dir / "trust", cache_folder(state_dir)
    objects = Fetcher(transport, cache, retry, ledger=ledger)
    root = trusted_root(state_dir, root)
    found = line or next((release.line for release in known_releases(state_dir)), None) or _line_of(objects)
    floors = Floors(trust)
    client = TrustedClient(trust, root, transport, floors, now=now or system_time, retry=retry)
    identity = read_identity(state_dir, found, labels)

    def trusted() -> str | None:
        return floors.trusted.timestamp_sha256 if floors.trusted else None

    return Source(client, objects, found, trusted, root, identity)


def _line_of(objects: Fetcher) -> str:
    """Return the line that a repository says it serves: a hint, since every release that is used is signed."""
    data = objects.get_small(REPOSITORY_NAME, LARGEST_ABOUT_BYTES)
    return parse(_About, data, REPOSITORY_NAME).line
