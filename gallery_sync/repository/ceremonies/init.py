"""Makes a new repository: which keys sign which role, and the first metadata.

Rules this module keeps:
1. root and targets belong to people, each with a key of their own: 2 of at least 2 keys, unless you say otherwise.
2. Keys of the other roles are made beside the repository, never in it: a web server serves the repository.
3. `--development` makes one key per role with threshold 1, and says that this is not for production.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from edge.errors import SyncError
from gallery_sync.repository.folder import locked
from gallery_sync.repository.keys import KEYS_NAME, ROLES, KeyRing, RoleKeys
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.private_keys import HeldKey, make_key, public_of
from gallery_sync.repository.public_keys import read_public
from gallery_sync.repository.roles.commit import Committed

PEOPLES_ROLES = ("root", "targets")
DEFAULT_THRESHOLDS = {"root": 2, "targets": 2}
DEVELOPMENT_WARNING = "development keys: one file key per role signs alone; whoever copies the folder owns every device"


def make_repository(
    repo: Path,
    keys: KeyRing,
    now: datetime,
    *,
    line: str,
    policy: str = "online",
    offline_days: int = 365,
) -> Committed:
    """Make a repository; a draft where people have to sign first.

    Raises:
        SyncError: there is one, a value is wrong, or the disk failed.
    """
    if keys.folder.resolve().is_relative_to(repo.resolve()):
        raise SyncError(f"{keys.folder}: keys must not lie in the repository: its web server would publish them")
    repo.mkdir(parents=True, exist_ok=True)
    with locked(repo):
        _, done = SignedMetadata.begin(repo, line, policy, keys, now, offline_days=offline_days)
    return done


def make_key_ring(folder: Path, given: Mapping[str, Sequence[HeldKey]], thresholds: Mapping[str, int]) -> KeyRing:
    """Make the list of keys of a new repository, and keys for the roles that got none; go on where it stopped before.

    Args:
        folder: of the keys.
        given: keys by role; those of targets are those of root if there are none.
        thresholds: by role, where not the default.

    Raises:
        SyncError: a role of people has too few keys, or the disk failed.
    """
    roles = {}
    for role in ROLES:
        threshold = thresholds.get(role, DEFAULT_THRESHOLDS.get(role, 1))
        keys = tuple(given.get(role) or (given.get("root", ()) if role == "targets" else ()))
        if role in PEOPLES_ROLES and len(keys) < threshold:
            raise SyncError(
                f"role {role}: found {len(keys)} keys, expected {threshold} or more; each person runs "
                f"edge-sync key new and sends you NAME.pub for --key {role}=NAME.pub; to try it out: --development"
            )
        roles[role] = RoleKeys(threshold, keys or (_made_before(folder, role) or make_key(folder, role),))
    ring = KeyRing(folder, roles)
    if (folder / KEYS_NAME).exists():
        ring = _same(KeyRing.open(folder), ring)
    ring.write()
    return ring


def given_key(text: str) -> tuple[str, HeldKey]:
    """Read `ROLE=FILE.pub`, `ROLE=FILE.pub,ADDRESS` or `ROLE=ADDRESS` of a key management service.

    Raises:
        SyncError: it is none of these, or the key cannot be read.
    """
    role, _, rest = text.partition("=")
    if role not in ROLES or not rest:
        raise SyncError(f"found --key {text!r}, expected ROLE=FILE.pub with one of the roles {', '.join(ROLES)}")
    return role, read_key(rest)


def read_key(text: str) -> HeldKey:
    """Read `FILE.pub`, `FILE.pub,ADDRESS` or `ADDRESS`; the address says where the private key is, if it is here.

    Raises:
        SyncError: the key cannot be read.
    """
    first, _, uri = text.partition(",")
    if not uri and ":" in first and not Path(first).exists():
        return HeldKey(public_of(first), first)
    if uri.startswith("file2:"):
        uri = f"file2:{Path(uri.removeprefix('file2:')).absolute()}"
    return HeldKey(read_public(Path(first)), uri or None)


def _made_before(folder: Path, role: str) -> HeldKey | None:
    """Return the key that an interrupted `init` made for a role."""
    private, public = folder / f"{role}.pem", folder / f"{role}.pub"
    return HeldKey(read_public(public), f"file2:{role}.pem") if private.exists() and public.exists() else None


def _same(before: KeyRing, new: KeyRing) -> KeyRing:
    def ids(ring: KeyRing) -> dict[str, tuple[int, tuple[str, ...]]]:
        return {role: (one.threshold, tuple(key.keyid for key in one.keys)) for role, one in ring.roles.items()}

    if ids(before) != ids(new):
        raise SyncError(f"{before.folder}: holds the keys of another repository; give another folder with --keys")
    return replace(new, is_development=before.is_development)
