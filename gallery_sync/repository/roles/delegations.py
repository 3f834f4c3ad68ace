"""Which role may list which targets, and which keys it has.

Rules this module keeps:
1. root lists the keys of the top roles, and targets those of models, rollout and gallery. targets lists no target.
2. models and rollout end a search: no other role can list their targets. gallery comes last, with all sixteen prefixes
   of a hash reserved, so that it can be split later without a new name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, Targets

from edge.errors import SyncError, one_line
from gallery_sync.formats.config import is_config
from gallery_sync.formats.documents import release_target
from gallery_sync.formats.rollouts import rollouts_target
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.private_keys import HeldKey
from gallery_sync.repository.roles.state import DELEGATED_ROLES, TOP_ROLES

_DELEGATIONS: dict[str, dict[str, Any]] = {
    "models": {"terminating": True, "paths": ["models/*/*"]},
    "rollout": {"terminating": True, "paths": ["rollout/*"]},
    "gallery": {"terminating": False, "path_hash_prefixes": list("0123456789abcdef")},
}


def first_metadata(keys: KeyRing) -> tuple[Metadata[Root], dict[str, Metadata[Targets]]]:
    """Return unsigned metadata of a new repository: root, and every role that lists targets or keys.

    Raises:
        SyncError: a role has too few keys.
    """
    for role in (*TOP_ROLES, *DELEGATED_ROLES):
        if role not in keys.roles:
            raise SyncError(f"{keys.folder}: has no keys of the role {role}")
    root, targets = Root(), Targets()
    roles = {name: DelegatedRole(name, [], 1, **_DELEGATIONS[name]) for name in DELEGATED_ROLES}
    targets.delegations = Delegations({}, roles)
    for role, one in keys.roles.items():
        set_keys(root if role in TOP_ROLES else targets, role, one.threshold, one.keys)
    return Metadata(root), {"targets": Metadata(targets), **{role: Metadata(Targets()) for role in DELEGATED_ROLES}}


def set_keys(by: Root | Targets, role: str, threshold: int, keys: Sequence[HeldKey]) -> None:
    """Give a role other keys, in root or in targets.

    Raises:
        SyncError: the role is unknown, or it has fewer keys than its threshold.
    """
    roles = by.roles if isinstance(by, Root) else (by.delegations.roles or {}) if by.delegations else {}
    if role not in roles:
        raise SyncError(
            f"found the role {one_line(role)!r}, expected one of {', '.join((*TOP_ROLES, *DELEGATED_ROLES))}"
        )
    distinct = {key.keyid for key in keys}
    if not 1 <= threshold <= len(distinct):
        raise SyncError(
            f"role {role}: found a threshold of {threshold} and {len(distinct)} keys; expected 1 to as many"
        )
    for keyid in list(roles[role].keyids):
        by.revoke_key(keyid, role)
    for key in keys:
        by.add_key(key.public, role)
    roles[role].threshold = threshold


def check_path(line: str, role: str, path: str) -> None:
    """Check that a role may list a target.

    Raises:
        SyncError: it may not; devices would not look there.
    """
    folder = {"models": f"models/{line}/", "gallery": f"gallery/{line}/"}.get(role)
    if folder is None:
        known = path in (release_target(line), rollouts_target(line)) or is_config(line, path)
        is_right = role == "rollout" and known
    else:
        name = path.removeprefix(folder)
        is_right = path.startswith(folder) and name != "" and "/" not in name and not name.startswith(".")
    if not is_right:
        expected = folder or release_target(line)
        raise SyncError(f"found the target {one_line(path)!r}, expected one of the role {role}, in {expected!r}")


def role_of(path: str) -> str:
    """Return the role that lists a target."""
    return path.partition("/")[0]
