"""The signed metadata of a repository on a device: refreshed, verified, and not older than before.

Rules this module keeps:
1. Nothing signed is used before a refresh verified all of it: keys and thresholds from the root of trust on, versions
   against the cache and the floors, hashes, and expiry against the clock.
2. What is refused changes nothing: cached files, floors and what serves stay as they are.
3. "Nothing to do" is one request. It is believed only for a day, only while the metadata is not expired, and only if
   the answer is, byte by byte, the timestamp of the last complete refresh.
4. Every failure is one line of a SyncError: kinds of `gallery_sync.trust.errors`, or those of the transport.

What it cannot see: a mirror that holds back a newer root, and everything after it, shows nothing wrong until what it
still serves expires. Then `refresh` says so. See docs/explanation/threats.md.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from edge.durable import make_folder, write_durably
from edge.errors import SyncError, first_line, one_line
from gallery_sync.formats.documents import Release, release_target
from gallery_sync.formats.fields import Document, Name, Sequence, parse
from gallery_sync.fresh_files import make_private_folder, one_at_a_time, remove
from gallery_sync.transport.download import Fetcher, Retry, Transport
from gallery_sync.transport.errors import StorageError
from gallery_sync.trust.clock import BUILT_AT, Clock, system_time, write_time
from gallery_sync.trust.errors import ExpiredError, MetadataError, RolledBackError, SignatureError
from gallery_sync.trust.floors import Floors, Seen, Trusted

if TYPE_CHECKING:  # python-tuf takes 0.2 s to import, and "nothing to do" needs none of it
    from gallery_sync.trust.updater import RepositoryUpdater

log = logging.getLogger(__name__)

METADATA, TARGETS = "metadata/", "targets/"  # folders of a repository
LARGEST_TIMESTAMP_BYTES = 16 << 10
FULL_REFRESH_EVERY = timedelta(days=1)
_ROLLOUT = "rollout"


@dataclass(frozen=True, slots=True)
class Freshness:
    """How fresh the trusted metadata is."""

    issued_at: datetime | None  # as signed; None: the repository does not say
    expires_at: datetime  # nothing is installed from then on, until the repository is refreshed
    warn_at: datetime  # half of its life: from then on, an operator should look
    root_version: int
    expired: bool


@dataclass(frozen=True, slots=True)
class SignedFile:
    """A small signed document, verified."""

    data: bytes
    sha256: str


def usual_retry() -> Retry:
    """Return how often a request is tried: a server may fail now and then."""
    return Retry(attempts=4, sleep=time.sleep, jitter=random.random)


class TrustedClient:
    """Reads the signed documents of one repository.

    Args:
        folder: of the device's trust; it holds `metadata/`, and `targets/` with the verified documents.
        root: the root of trust that the device was enrolled with.
        transport: reaches the repository.
        floors: of this device.
        now: the system clock, UTC.
        retry: of each request; None: four attempts.
        built_at: no time before it is believed.
        metadata_folder: of the cached metadata; None: `metadata/` in `folder`.
    """

    def __init__(
        self,
        folder: Path,
        root: bytes,
        transport: Transport,
        floors: Floors,
        *,
        now: Clock = system_time,
        retry: Retry | None = None,
        built_at: datetime = BUILT_AT,
        metadata_folder: Path | None = None,
    ) -> None:
        self._folder = folder
        self._metadata = metadata_folder or folder / "metadata"
        self._root = root
        self._floors = floors
        self._now = now
        self._built_at = built_at
        self._base = transport.base
        self._fetcher = Fetcher(transport, folder, retry or usual_retry())
        self._updater: RepositoryUpdater | None = None  # of the last complete refresh
        self._used: set[str] = set()  # documents read since then, by hash

    @property
    def downloaded_bytes(self) -> int:
        """The bytes of all answers."""
        return self._fetcher.downloaded_bytes

    def freshness(self) -> Freshness | None:
        """Return how fresh the metadata of the last complete refresh is, without a request; None: there was none."""
        if (trusted := self._floors.trusted) is None:
            return None
        start = trusted.issued_at or trusted.refreshed_at
        return Freshness(
            issued_at=trusted.issued_at,
            expires_at=trusted.expires_at,
            warn_at=min(start, trusted.expires_at) + max(trusted.expires_at - start, timedelta()) / 2,
            root_version=trusted.root_version,
            expired=self._time() >= trusted.expires_at,
        )

    def unchanged(self) -> bool:
        """Return whether the repository is as it was at the last complete refresh, with one request of < 1 KB.

        False also where only a refresh can say: there was none for a day, or what is trusted is expired.

        Raises:
            SyncError: the network failed.
        """
        trusted = self._floors.trusted
        if trusted is None or self._time() >= trusted.expires_at:
            return False
        if not timedelta() <= self._now() - trusted.refreshed_at < FULL_REFRESH_EVERY:
            return False
        data = self._fetcher.get_small(f"{METADATA}timestamp.json", LARGEST_TIMESTAMP_BYTES)
        return hashlib.sha256(data).hexdigest() == trusted.timestamp_sha256

    def refresh(self) -> Freshness:
        """Get and verify the newest metadata, and raise the floors.

        Raises:
            ExpiredError: the newest metadata is expired.
            RolledBackError: it is older than what this device had.
            SignatureError: too few of the right keys signed it.
            MetadataError: it is damaged, too large, or a mix.
            StorageError: the disk failed.
            SyncError: the network failed, or another process refreshes.
        """
        self._updater = None
        with self._errors(), self._alone():
            from gallery_sync.trust.metadata_folder import prepare

            prepare(self._metadata)
            updater = self._open()
            updater.refresh()
            self._floors.check(updater.seen())
            self._remember(updater)
        self._updater, self._used = updater, set()
        freshness = self.freshness()
        if freshness is None:
            raise StorageError(f"{self._folder}: the floors are lost as soon as they are written; check the disk")
        return freshness

    def target(self, path: str, limit_bytes: int) -> SignedFile | None:
        """Return a signed document of the repository as it was at the last refresh; None if nobody signed one.

        A document that was read before comes from the folder. One of the role rollout is also compared with the newest
        one of its name that this device saw: a release by its sequence number, another document by its revision.

        Args:
            path: such as rollout/shop.json.
            limit_bytes: the largest size that is accepted.

        Raises:
            TrustError: as for `refresh`; the document is too large, damaged or an older release.
            SyncError: the network or the disk failed.
        """
        if self._updater is None:
            self.refresh()
        updater = self._updater
        if updater is None or self._time() >= updater.expires_at:
            raise self._expired("it expired since it was read")
        with self._errors():
            found = updater.get_targetinfo(path)
            if found is None:
                return None
            if found.length > limit_bytes:
                raise MetadataError(f"{path}: found {found.length} bytes, expected at most {limit_bytes}")
            data = self._cached(found.hashes.get("sha256"), found.length)
            if data is None:
                data = self._fetcher.get_small(f"{TARGETS}{updater.target_path(found)}", found.length)
            found.verify_length_and_hashes(data)
            signed = SignedFile(data, hashlib.sha256(data).hexdigest())
        if path.startswith(f"{_ROLLOUT}/"):
            self._check_release(updater, path, data)
        self._keep(signed)
        return signed

    def prune_targets(self) -> int:
        """Remove the documents that were not read since the last refresh; return how many."""
        folder = self._folder / "targets"
        old = [path for path in folder.glob("*") if path.name not in self._used] if folder.is_dir() else []
        return sum(remove(path) for path in old)

    def _open(self) -> RepositoryUpdater:
        from gallery_sync.trust.fetch import TransportFetcher
        from gallery_sync.trust.updater import RepositoryUpdater

        return RepositoryUpdater(
            self._metadata,
            METADATA,
            TransportFetcher(self._fetcher),
            self._root,
            self._floors,
            system_time=self._now(),
            built_at=self._built_at,
        )

    def _remember(self, updater: RepositoryUpdater) -> None:
        trusted = Trusted(
            timestamp_sha256=updater.timestamp_sha256(),
            refreshed_at=self._now(),
            issued_at=updater.issued_at,
            expires_at=updater.expires_at,
            root_version=updater.root_version,
        )
        self._floors.raise_to(updater.seen(), trusted, updater.clock_keys)

    def _check_release(self, updater: RepositoryUpdater, path: str, data: bytes) -> None:
        name, number, kind = _numbered(path, data)
        seen = Seen(number, updater.keys_of(_ROLLOUT))
        self._floors.check_release(name, seen, kind)
        self._floors.raise_release(name, seen)

    def _time(self) -> datetime:
        """Return the time, by the floor of the last refresh."""
        trusted = self._floors.trusted
        issued_at = trusted.issued_at if trusted and trusted.issued_at else self._built_at
        return max(self._now(), self._built_at, issued_at)

    def _cached(self, sha256: str | None, size: int) -> bytes | None:
        """Return a document that was read before; its hash is verified by whoever asked."""
        if sha256 is None:
            return None
        try:
            path = self._folder / "targets" / sha256
            data = path.read_bytes() if path.lstat().st_size == size else b""
        except (OSError, ValueError):
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def _keep(self, signed: SignedFile) -> None:
        self._used.add(signed.sha256)
        path = self._folder / "targets" / signed.sha256
        if self._cached(signed.sha256, len(signed.data)) is not None:
            return
        try:
            make_private_folder(path.parent)
            remove(path)
            write_durably(path, signed.data)
        except OSError as error:  # it is only read again next time
            log.warning("%s: cannot keep this document: %s", path, error.strerror)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process at a time refresh."""
        make_folder(self._folder)
        with ExitStack() as stack:
            try:
                stack.enter_context(one_at_a_time(self._folder / "lock"))
            except BlockingIOError as error:
                raise SyncError(f"{self._folder}: another edge-sync reads the metadata; wait until it ends") from error
            yield

    def _expired(self, what: str) -> ExpiredError:
        return ExpiredError(
            f"{self._base}: the signed metadata is expired ({what}; this device takes the time for "
            f"{write_time(self._time())}). What serves goes on. Refresh the repository with edge-sync refresh, check "
            "the clock, or use another mirror: this one may hold back newer metadata"
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Map the errors of python-tuf and of the disk; ours pass."""
        from tuf.api import exceptions

        try:
            yield
        except SyncError:
            raise
        except exceptions.DownloadHTTPError as error:
            raise (error.__cause__ if isinstance(error.__cause__, SyncError) else MetadataError(str(error))) from error
        except exceptions.ExpiredMetadataError as error:
            raise self._expired(one_line(first_line(error))) from error
        except exceptions.BadVersionNumberError as error:
            raise RolledBackError(
                f"{self._base}: the signed metadata goes back: {one_line(first_line(error))}; publish newer metadata, "
                "or use another mirror"
            ) from error
        except exceptions.UnsignedMetadataError as error:
            raise SignatureError(
                f"{self._base}: too few of the right keys signed the metadata: {one_line(first_line(error))}"
            ) from error
        except OSError as error:
            raise StorageError(f"{self._folder}: cannot keep the metadata: {error.strerror or error}") from error
        except (exceptions.RepositoryError, exceptions.DownloadError) as error:
            raise self._damaged(error) from error
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> MetadataError:
        text = one_line(first_line(error))
        return MetadataError(
            f"{self._base}: the signed metadata is damaged or a mix: {text}; run edge-sync check on it"
        )


class _OfLine(Document):
    """What every document of the role rollout has."""

    kind = "document of the role rollout"
    line: Name


class _Revised(_OfLine):
    """What those have that are no release."""

    revision: Sequence


def _numbered(path: str, data: bytes) -> tuple[str, int, str]:
    """Return the name of the floor of a document of the role rollout, its number, and the word for the number."""
    line = parse(_OfLine, data, path).line
    if path == release_target(line):
        return line, parse(Release, data, path).sequence, "release"
    return path, parse(_Revised, data, path).revision, "revision"
