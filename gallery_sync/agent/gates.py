"""Whether a device may download, prove and switch now: pure; the reason is for people.

Urgent deletions pass no gate. Batteries are no gate: the devices have mains power.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gallery_sync.agent.policy import Policy
from gallery_sync.agent.windows import why_closed


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the gates look at."""

    local: datetime  # local time, for the windows
    free_bytes: int  # of the state folder's file system
    left_bytes: int | None  # that may be downloaded today; None: no limit


def why_not_download(policy: Policy, here: Surroundings) -> str | None:
    """Return why no download may start or go on now; None if it may."""
    download = policy.download
    if here.free_bytes < download.free_bytes:
        return f"the disk has {here.free_bytes} bytes free, and {download.free_bytes} stay free; delete something"
    if here.left_bytes is not None and here.left_bytes <= 0:
        return "the bytes that a day allows are spent; the download goes on tomorrow"
    return why_closed(download.parsed, download.windows, here.local)


def why_not_install(policy: Policy, here: Surroundings) -> str | None:
    """Return why nothing may be proved or switched now; None if it may."""
    return why_closed(policy.install.parsed, policy.install.windows, here.local)
