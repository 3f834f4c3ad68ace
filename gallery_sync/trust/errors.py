"""The errors of this room. Each blocks installing and never touches what serves.

SyncError
└── TrustError               signed metadata that this device does not use
    ├── ExpiredError         it is too old: the server was not refreshed, a mirror holds it back, or the clock is wrong
    ├── RolledBackError      it is older than what this device had
    ├── SignatureError       too few of the right keys signed it
    └── MetadataError        it is damaged, too large, or its parts do not belong together
"""

from __future__ import annotations

from edge.errors import SyncError


class TrustError(SyncError):
    """Signed metadata that this device does not use."""


class ExpiredError(TrustError):
    """The metadata is expired."""


class RolledBackError(TrustError):
    """The metadata or the release is older than what this device had."""


class SignatureError(TrustError):
    """Too few of the right keys signed the metadata."""


class MetadataError(TrustError):
    """The metadata is damaged, too large, or its parts do not belong together."""
