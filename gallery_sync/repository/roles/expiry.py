"""How fresh the metadata of each role is, and what an operator should know of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gallery_sync.repository.roles.changes import Changes
from gallery_sync.repository.roles.state import DELEGATED_ROLES, TOP_ROLES, About


@dataclass(frozen=True)
class Expiry:
    """How fresh the metadata of a role is."""

    role: str
    version: int
    expires_at: datetime
    warn_at: datetime  # half of its life is over

    def state(self, now: datetime) -> str:
        """Return `fresh`, `half` (sign it soon) or `expired` (devices take nothing new)."""
        return "expired" if now >= self.expires_at else "half" if now >= self.warn_at else "fresh"

    def warning(self, now: datetime) -> str:
        """Return what an operator should know of a role that is not fresh, and whose keys are not here."""
        state = "has expired" if self.state(now) == "expired" else "is past half of its life"
        until = self.expires_at.strftime("%Y-%m-%d")
        return f"{self.role} {state} ({until}), and its keys are not here: edge-sync rotate --renew"


def expiry_of(changes: Changes, about: About) -> list[Expiry]:
    """Return how fresh each role is."""
    found = []
    for role in (*TOP_ROLES, *DELEGATED_ROLES):
        signed = changes.current(role).signed
        half = about.lifetime(role) / 2
        found.append(Expiry(role, signed.version, signed.expires, signed.expires - half))
    return found
