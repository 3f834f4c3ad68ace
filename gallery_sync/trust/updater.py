"""The client of The Update Framework (python-tuf), with our clock, our floors and durable files.

python-tuf offers no argument for the time, and writes its cache without flushing it. This class overrides three private
methods of `Updater` and reads its private `_trusted_set`. The risk is that another version of python-tuf renames them:
the dependency is therefore bound below 8, and `check_library` refuses to run where one is missing, instead of judging
by another clock in silence.

Rules this module keeps:
1. Expiry is judged by the later one of the system clock and the clock floor, which depends on the keys of the newest
   root: so it is set after the root is read, and before anything that can expire.
2. No file of metadata is written before it was compared with the floors.
3. A written file survives a power cut. Cached files that are damaged are fetched again, starting from the given root.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import Root, TargetFile, Targets
from tuf.ngclient import Updater, UpdaterConfig

from edge.durable import fsync_folder, write_durably
from edge.errors import SyncError
from gallery_sync.formats.fields import LARGEST_SEQUENCE
from gallery_sync.trust.clock import read_time
from gallery_sync.trust.errors import MetadataError
from gallery_sync.trust.fetch import TransportFetcher
from gallery_sync.trust.floors import Floors, Keys, Seen

ISSUED = "x-issued"  # the field of the timestamp that raises the clock floor
_KEY_CHARACTERS = 16  # of the hash of a key: they tell keys apart, and prove nothing
_OVERRIDDEN = ("_load_timestamp", "_persist_metadata", "_persist_file", "_update_root_symlink")


def check_library() -> None:
    """Check that python-tuf has what this module overrides.

    Raises:
        SyncError: it has not.
    """
    if missing := [name for name in _OVERRIDDEN if not hasattr(Updater, name)]:
        raise SyncError(f"this version of python-tuf has no {', '.join(missing)}; install tuf 7")


class RepositoryUpdater(Updater):
    """Refreshes the metadata of one repository, once."""

    def __init__(
        self,
        folder: Path,
        metadata_path: str,
        fetcher: TransportFetcher,
        root: bytes,
        floors: Floors,
        *,
        system_time: datetime,
        built_at: datetime,
    ) -> None:
        check_library()
        self._floors = floors
        self._earliest = max(system_time, built_at)
        super().__init__(str(folder), metadata_path, fetcher=fetcher, config=UpdaterConfig(), bootstrap=root)
        if not hasattr(self._trusted_set, "reference_time"):
            raise SyncError("this version of python-tuf takes no time to judge expiry by; install tuf 7")

    @property
    def time(self) -> datetime:
        """The time by which expiry is judged."""
        return max(self._earliest, self._floors.clock(self.clock_keys) or self._earliest)

    @property
    def clock_keys(self) -> Keys:
        """The keys that sign the time."""
        return _keys_of(self._trusted_set.root, "timestamp")

    @property
    def issued_at(self) -> datetime | None:
        """When the timestamp was signed, as it says; None: it does not, or it says a time after its own end."""
        issued_at = read_time(self._trusted_set.timestamp.unrecognized_fields.get(ISSUED))
        return issued_at if issued_at and issued_at <= self._trusted_set.timestamp.expires else None

    @property
    def expires_at(self) -> datetime:
        """When the first of root, timestamp, snapshot and targets expires."""
        trusted = self._trusted_set
        return min(one.expires for one in (trusted.root, trusted.timestamp, trusted.snapshot, trusted.targets))

    @property
    def root_version(self) -> int:
        """The version of the newest root."""
        return int(self._trusted_set.root.version)

    def timestamp_sha256(self) -> str:
        """Return the hash of the trusted timestamp.

        Raises:
            OSError: its file cannot be read.
        """
        return hashlib.sha256(self._load_local_metadata("timestamp")).hexdigest()

    def seen(self) -> dict[str, Seen]:
        """Return the version of every role that is known so far, and the keys that vouch for it."""
        trusted = self._trusted_set
        root = trusted.root
        seen = {"root": Seen(root.version, frozenset())}
        if "timestamp" not in trusted:
            return seen
        below = _keys_of(root, "snapshot")
        seen["timestamp"] = Seen(trusted.timestamp.version, _keys_of(root, "timestamp"))
        seen["snapshot"] = Seen(trusted.timestamp.snapshot_meta.version, below)
        if "snapshot" not in trusted:
            return seen
        versions = {name.removesuffix(".json"): meta.version for name, meta in trusted.snapshot.meta.items()}
        seen["snapshot"] = Seen(trusted.snapshot.version, below)
        seen["targets"] = Seen(versions["targets"], _keys_of(root, "targets") | below)
        if "targets" in trusted:
            for role in _delegated_roles(trusted.targets):
                if role in versions:
                    seen[role] = Seen(versions[role], self.keys_of(role) | below)
        return seen

    def keys_of(self, role: str) -> Keys:
        """Return the keys of a role that `targets` delegates to; none if there is no such role."""
        return _keys_of(self._trusted_set.targets, role)

    def target_path(self, target: TargetFile) -> str:
        """Return the path of a target below the folder of targets."""
        if not self._trusted_set.root.consistent_snapshot:
            return str(target.path)
        folder, slash, name = target.path.rpartition("/")
        return f"{folder}{slash}{next(iter(target.hashes.values()))}.{name}"

    def _load_timestamp(self) -> None:
        self._floors.check(self.seen())
        self._trusted_set.reference_time = self.time
        super()._load_timestamp()  # type: ignore[no-untyped-call, unused-ignore]
        self._floors.check(self.seen())

    def _persist_metadata(self, rolename: str, data: bytes) -> None:
        self._floors.check(self.seen())
        listed = self._trusted_set.snapshot.meta.values() if "snapshot" in self._trusted_set else ()
        if any(meta.version > LARGEST_SEQUENCE for meta in listed):
            raise MetadataError("snapshot: lists a version above 2^53, which no repository reaches")
        super()._persist_metadata(rolename, data)

    def _persist_file(self, filename: str, data: bytes) -> None:
        path = Path(filename)
        if not path.is_file() or path.read_bytes() != data:
            write_durably(path, data)

    def _update_root_symlink(self) -> None:
        """Point root.json to the newest root in one step; python-tuf removes it first."""
        link = Path(self._dir, "root.json")
        to = Path("root_history", f"{self._trusted_set.root.version}.root.json")
        if link.is_symlink() and link.readlink() == to:
            return
        new = link.with_name("root.partial")
        new.unlink(missing_ok=True)
        new.symlink_to(to)
        new.replace(link)
        fsync_folder(link.parent)


def _delegated_roles(targets: Targets) -> Mapping[str, Any]:
    return (targets.delegations and targets.delegations.roles) or {}


def _keys_of(delegator: Root | Targets, role: str) -> Keys:
    """Return hashes of the public keys of a role."""
    if isinstance(delegator, Root):
        keys, keyids = delegator.keys, delegator.roles[role].keyids
    else:
        found = _delegated_roles(delegator).get(role)
        keys = delegator.delegations.keys if delegator.delegations else {}
        keyids = found.keyids if found else []
    return frozenset(_hash_of(keys[keyid]) for keyid in keyids if keyid in keys)


def _hash_of(key: Key) -> str:
    told = json.dumps([key.keytype, key.scheme, key.keyval], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:_KEY_CHARACTERS]
