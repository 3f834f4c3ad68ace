"""Whether a device may download, prove and switch now: pure; the reason is for people.

A release that a rollout brings waits for the windows of the rollout, too. Where both have windows, both must be open.
Urgent deletions pass no gate. Batteries are no gate: the devices have mains power.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from gallery_sync.agent.machine import Target
from gallery_sync.agent.policy import Policy
from gallery_sync.device.permit import Permit, why_not_permitted
from gallery_sync.formats.windows import parse_window, why_closed


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the gates look at."""

    local: datetime  # local time, for the windows
    free_bytes: int  # of the state folder's file system
    left_bytes: int | None  # that may be downloaded today; None: no limit
    permit: Permit | None = None  # of another program; None: there is none
    busy: str | None = None  # what must end before anything else is tried; None: nothing
    skipped: timedelta = timedelta()  # how much the clocks were put forward within the last hour


def why_not_download(
    policy: Policy, here: Surroundings, release: Target | None = None, *, has_begun: bool = True
) -> str | None:
    """Return why no download may start or go on now; None if it may.

    Args:
        policy: of the device.
        here: what the gates look at.
        release: to download; None: it is not known yet.
        has_begun: a try of it is under way.
    """
    download = policy.download
    if here.free_bytes < download.free_bytes:
        return f"the disk has {here.free_bytes} bytes free, and {download.free_bytes} stay free; delete something"
    if here.left_bytes is not None and here.left_bytes <= 0:
        return "the bytes that a day allows are spent; the download goes on tomorrow"
    return (
        _why_not_permitted(policy, here, release, download=True)
        or (None if has_begun else _why_too_late(here, release))
        or why_closed(download.parsed, download.windows, here.local, here.skipped)
    )


def why_not_install(policy: Policy, here: Surroundings, release: Target | None = None) -> str | None:
    """Return why nothing may be proved or switched now; None if it may.

    Args:
        policy: of the device.
        here: what the gates look at.
        release: to install; None: it is not known yet.
    """
    return (
        here.busy
        or _why_not_permitted(policy, here, release)
        or why_closed(policy.install.parsed, policy.install.windows, here.local, here.skipped)
        or _why_closed_by_plan(here, release)
    )


def _why_not_permitted(
    policy: Policy, here: Surroundings, release: Target | None, *, download: bool = False
) -> str | None:
    if not policy.install.permit or release is None:
        return None
    return why_not_permitted(here.permit, release.line, release.sequence, download=download)


def _why_too_late(here: Surroundings, release: Target | None) -> str | None:
    if release is None or release.deadline is None or here.local.timestamp() <= release.deadline:
        return None
    return f"the deadline of rollout {release.plan} is over"


def _why_closed_by_plan(here: Surroundings, release: Target | None) -> str | None:
    """Return why the windows of a rollout are closed; one that cannot be read is never open."""
    if release is None:
        return None
    try:
        windows = [parse_window(text) for text in release.windows]
    except ValueError as error:
        return f"rollout {release.plan}: {error}"
    closed = why_closed(windows, release.windows, here.local, here.skipped)
    return f"rollout {release.plan} {closed}" if closed else None
