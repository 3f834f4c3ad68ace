"""Watches the repository: the version of its timestamp, and the plan of its line.

What is read here is not verified, because nothing depends on it: the version only wakes devices, which verify all they
take, and the plan only says how many of them may switch at a time.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edge.errors import SyncError
from edge.strict_json import parse_json
from gallery_sync.formats.fields import LARGEST_DOCUMENT_BYTES, Document, Name, parse
from gallery_sync.formats.rollouts import Plan, Rollouts, rollouts_target

if TYPE_CHECKING:
    from gallery_sync.transport.repository_files import FolderTransport, HttpTransport

log = logging.getLogger(__name__)

_TIMESTAMP = "metadata/timestamp.json"
_LARGEST_TIMESTAMP_BYTES = 16_384
_TIMEOUT_S = 10.0
FOLDER_S, URL_S = 1.0, 10.0  # between two looks


class _About(Document):
    kind = "description of a repository"

    line: Name


class RepositoryWatch:
    """A repository, by its folder or its URL."""

    def __init__(self, place: str, ca_file: Path | None = None) -> None:
        """Watch a repository.

        Args:
            place: a folder, or a URL with http://, https:// or file://.
            ca_file: the only certificate authorities to trust; None: those of the system.

        Raises:
            SyncError: the URL is invalid.
        """
        self._folder: Path | None = None if urlsplit(place).scheme in ("http", "https", "file") else Path(place)
        self._transport = _transport(self._folder or place, ca_file)
        self.interval_s = FOLDER_S if self._folder is not None else URL_S
        self._stamp: tuple[int, ...] | None = None  # of the timestamp's file when it was read
        self._timestamp: dict[str, Any] = {}  # as it was read last
        self._line: str | None = None
        self._read_version: int | None = None  # of the plan that was read
        self._plan: Plan | None = None

    @property
    def line(self) -> str:
        """The product line of the repository.

        Raises:
            SyncError: it cannot be read.
        """
        if self._line is None:
            self._line = parse(_About, self._read("repository.json", 1 << 16), "repository.json").line
        return self._line

    def version(self) -> int:
        """Return the version of the timestamp; a folder is read only when its file has changed.

        Raises:
            SyncError: it cannot be read, or is none.
        """
        stamp = _stamp(self._folder / _TIMESTAMP) if self._folder is not None else None
        if stamp is None or stamp != self._stamp:
            signed = _signed(self._read(_TIMESTAMP, _LARGEST_TIMESTAMP_BYTES), _TIMESTAMP)
            _positive(signed.get("version"), _TIMESTAMP)
            self._timestamp, self._stamp = signed, stamp
        return int(self._timestamp["version"])

    def plan(self) -> Plan | None:
        """Return the plan that is under way at the last `version`; it is read only when that has changed.

        Raises:
            SyncError: it cannot be read.
        """
        version = int(self._timestamp["version"]) if self._timestamp else self.version()
        if version != self._read_version:
            self._plan = self._read_plan()
            self._read_version = version
        return self._plan

    def _read_plan(self) -> Plan | None:
        snapshot = self._role("snapshot", self._timestamp)
        targets = self._role("rollout", snapshot).get("targets")
        path = rollouts_target(self.line)
        about = targets.get(path) if isinstance(targets, dict) else None
        if about is None:
            return None
        sha256 = about.get("hashes", {}).get("sha256") if isinstance(about, dict) else None
        if not isinstance(sha256, str) or len(sha256) != 64 or not sha256.isalnum():
            raise SyncError(f"{path}: the metadata has no hash of it; run edge-sync check on the repository")
        folder, _, name = path.rpartition("/")
        data = self._read(f"targets/{folder}/{sha256}.{name}", LARGEST_DOCUMENT_BYTES)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise SyncError(f"{path}: is not what the metadata names; run edge-sync check on the repository")
        return parse(Rollouts, data, path).plan

    def _role(self, role: str, above: dict[str, Any]) -> dict[str, Any]:
        meta = above.get("meta")
        about = meta.get(f"{role}.json") if isinstance(meta, dict) else None
        version = _positive(about.get("version") if isinstance(about, dict) else None, role)
        path = f"metadata/{version}.{role}.json"
        return _signed(self._read(path, 5_000_000), path)

    def _read(self, path: str, most: int) -> bytes:
        data = b""
        with self._transport.get(path, 0) as body:
            for chunk in body.chunks:
                data += chunk
                if len(data) > most:
                    raise SyncError(f"{path}: larger than the limit of {most} bytes")
        return data


def _transport(place: str | Path, ca_file: Path | None) -> FolderTransport | HttpTransport:
    from gallery_sync.transport.http_connection import Access
    from gallery_sync.transport.repository_files import FolderTransport, open_transport

    if isinstance(place, Path):
        return FolderTransport(place)
    return open_transport(place, _TIMEOUT_S, access=Access(ca_file=ca_file))


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError as error:
        raise SyncError(f"{path}: cannot read: {error.strerror}; check the repository") from error
    return found.st_mtime_ns, found.st_ino, found.st_size


def _signed(data: bytes, where: str) -> dict[str, Any]:
    """Return the signed part of metadata."""
    try:
        found = parse_json(data, LARGEST_DOCUMENT_BYTES * 2)
    except ValueError as error:
        raise SyncError(f"{where}: not JSON: {error}") from error
    signed = found.get("signed") if isinstance(found, dict) else None
    if not isinstance(signed, dict):
        raise SyncError(f"{where}: not signed metadata; run edge-sync check on the repository")
    return signed


def _positive(version: object, where: str) -> int:
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version < 2**53:
        raise SyncError(f"{where}: has no version number; run edge-sync check on the repository")
    return version
