"""A signed repository that a test holds in its hands: any role, any version, any keys, honest or not."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from edge.durable import sha256_of
from gallery_sync.formats.documents import Release
from gallery_sync.formats.fields import canonical_json
from gallery_sync.transport.download import Retry, Transport
from gallery_sync.transport.repository_files import FolderTransport
from gallery_sync.trust.client import TrustedClient
from gallery_sync.trust.clock import BUILT_AT, write_time
from gallery_sync.trust.floors import Floors

START = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)
ONCE = Retry(1, lambda _: None, lambda: 0.0)
TOP = ("root", "timestamp", "snapshot", "targets")
DELEGATED = {"models": ["models/*/*"], "rollout": ["rollout/*"], "gallery": ["gallery/*/*"]}
_COMPACT = JSONSerializer(compact=True)


class SignedFolder:
    """A repository in a folder. `signed` holds what will be published; `publish` signs and writes it."""

    def __init__(self, folder: Path, now: datetime = START, thresholds: dict[str, int] | None = None) -> None:
        self.folder = folder
        self.now = now
        self.keys: dict[str, list[CryptoSigner]] = {}
        later = now + timedelta(days=365)
        self.root = Root(expires=later)
        self.signed = {
            "root": self.root,
            "timestamp": Timestamp(expires=now + timedelta(days=7)),
            "snapshot": Snapshot(expires=now + timedelta(days=30)),
            "targets": Targets(expires=later),
        } | {role: Targets(expires=now + timedelta(days=90)) for role in DELEGATED}
        roles = {role: DelegatedRole(role, [], 1, True, paths=paths) for role, paths in DELEGATED.items()}
        self.targets.delegations = Delegations({}, roles)
        for role in (*TOP, *DELEGATED):
            self.set_keys(role, [CryptoSigner.generate_ed25519() for _ in range((thresholds or {}).get(role, 1))])
        for signed in self.signed.values():
            signed.version = 0
        self.publish()

    @property
    def targets(self) -> Targets:
        return self.signed["targets"]

    @property
    def trusted_root(self) -> bytes:
        """The newest root of trust."""
        return (self.folder / f"metadata/{self.root.version}.root.json").read_bytes()

    def set_keys(self, role: str, signers: list[CryptoSigner]) -> None:
        """Let these keys, all of them, sign a role; root or targets must be published to say so."""
        delegator = self.root if role in TOP else self.targets
        found = delegator.roles[role] if role in TOP else delegator.delegations.roles[role]
        for keyid in list(found.keyids):
            delegator.revoke_key(keyid, role)
        for signer in signers:
            delegator.add_key(signer.public_key, role)
        found.threshold = len(signers)
        self.keys[role] = signers

    def rotate(self, *roles: str) -> None:
        """Give roles new keys."""
        for role in roles:
            self.set_keys(role, [CryptoSigner.generate_ed25519() for _ in self.keys[role]])

    def add(self, path: str, data: bytes) -> None:
        """Put a target; `publish` makes it visible."""
        target = TargetFile.from_data(path, data, ["sha256"])
        self.signed[path.partition("/")[0]].targets[path] = target
        for name in target.get_prefixed_paths():
            place = self.folder / "targets" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)

    def release(self, sequence: int, line: str = "shop") -> None:
        """Publish a release."""
        self.add(f"rollout/{line}.json", release_json(sequence, line))
        self.publish("rollout")

    def publish(self, *roles: str, signers: dict[str, Iterable[CryptoSigner]] | None = None) -> None:
        """Publish the next version of some roles (none: of all), and of snapshot and timestamp."""
        wanted = roles or (*DELEGATED, "targets", "root")
        for role in wanted:
            self.signed[role].version += 1
            self._sign(role, signers)
        snapshot, timestamp = self.signed["snapshot"], self.signed["timestamp"]
        for role in wanted:
            if role not in ("root", "snapshot", "timestamp"):
                snapshot.meta[f"{role}.json"] = MetaFile(self.signed[role].version)
        if "snapshot" not in wanted:
            snapshot.version += 1
        data = self._sign("snapshot", signers)
        timestamp.snapshot_meta = MetaFile.from_data(snapshot.version, data, ["sha256"])
        timestamp.unrecognized_fields["x-issued"] = write_time(self.now)
        if "timestamp" not in wanted:
            timestamp.version += 1
        self._sign("timestamp", signers)

    def _sign(self, role: str, signers: dict[str, Iterable[CryptoSigner]] | None = None) -> bytes:
        signed = deepcopy(self.signed[role])
        metadata = Metadata(signed)
        for signer in (signers or {}).get(role, self.signers_of(role)):
            metadata.sign(signer, append=True)
        data = metadata.to_bytes(_COMPACT)
        name = "timestamp.json" if role == "timestamp" else f"{signed.version}.{role}.json"
        (self.folder / "metadata").mkdir(parents=True, exist_ok=True)
        (self.folder / "metadata" / name).write_bytes(data)
        return data

    def signers_of(self, role: str) -> list[CryptoSigner]:
        """Return who signs a role: a root also those of the version before."""
        if role != "root":
            return self.keys[role]
        signers = {signer.public_key.keyid: signer for signer in [*getattr(self, "old_root", []), *self.keys["root"]]}
        self.old_root = self.keys["root"]
        return list(signers.values())


class Device:
    """A device that trusts such a repository."""

    def __init__(self, folder: Path, repo: SignedFolder, now: datetime = START) -> None:
        self.folder = folder
        self.repo = repo.folder
        self.root = repo.trusted_root
        self.now = now
        self.transport: Transport | None = None

    def client(self, built_at: datetime = BUILT_AT) -> TrustedClient:
        """Return the client of a process that just started."""
        transport = self.transport or FolderTransport(self.repo)
        floors = Floors(self.folder)
        return TrustedClient(
            self.folder, self.root, transport, floors, now=lambda: self.now, retry=ONCE, built_at=built_at
        )

    def cached(self, name: str) -> Path:
        """Return a file of cached metadata."""
        return self.folder / "metadata" / name

    def hashes(self) -> dict[str, str]:
        """Return the hash of every file that the device keeps."""
        return {str(path): sha256_of(path) for path in sorted(self.folder.rglob("*")) if path.is_file()}


def release_json(sequence: int, line: str = "shop") -> bytes:
    """Return a release."""
    return canonical_json(
        Release(
            line=line,
            sequence=sequence,
            created_at="2026-06-01T00:00:00Z",
            bundle_id=f"b{sequence}",
            bundle_head="0" * 64,
            gallery_sequence=0,
        )
    )
