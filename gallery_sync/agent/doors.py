"""The doors of the agent: what it does to the device, and what it knows of the world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from edge.errors import SyncError
from edge.telemetry.vital_signs import VitalSigns
from gallery_sync.agent.gates import Surroundings
from gallery_sync.agent.journal import Receipt
from gallery_sync.agent.machine import Serving, Target


class StaleError(SyncError):
    """What was prepared for a step is gone or damaged; it is prepared again."""


class NothingBeforeError(SyncError):
    """There is no pair to go back to; the one on trial serves on."""


class TakenOverError(SyncError):
    """A person made another pair active meanwhile."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How fresh the signed metadata is, in Unix seconds."""

    expires_at: float  # nothing is installed from then on
    warn_at: float  # from then on, an operator should look
    expired: bool


@dataclass(frozen=True, slots=True)
class Read:
    """What a repository says."""

    wanted: Target | None = None  # None: this device must not run the newest release, or stays at the one that it has
    refused: str | None = None  # why it must not
    waits: str | None = None  # why it does not take what other devices take
    refused_release: Target | None = None  # as far as it is known


@dataclass(frozen=True, slots=True)
class Active:
    """The pair that the pointer names."""

    slot: str
    bundle_id: str
    gallery: str  # generation
    line: str | None = None  # None: installed manually
    sequence: int | None = None
    gallery_sequence: int | None = None
    trial: str | None = None  # None: confirmed, or activated by a person


@dataclass(frozen=True, slots=True)
class Erased:
    """What urgent deletions did."""

    receipts: tuple[Receipt, ...] = ()
    changed: bool = False  # a gallery on the device, so what is being prepared is prepared again


class Steps(Protocol):
    """The actions of the agent. Each may be repeated, and raises a FinesightError."""

    def unchanged(self) -> bool:
        """Return whether the repository is as it was when it was last read; one small request."""
        ...

    def read(self, begun: int = 0) -> Read:
        """Read and verify what is signed, choose a release, and judge whether this device may run it.

        Args:
            begun: sequence number of the release of which a try is under way; 0: none.
        """
        ...

    def erase(self) -> Erased:
        """Apply the urgent deletions that were read, to every gallery on this device."""
        ...

    def freshness(self) -> Freshness | None:
        """Return how fresh the signed metadata is, without a request; None: it was never read."""
        ...

    def fetch(self, release: Target) -> bool:
        """Download what is missing; return whether it is complete. False: the time for one go is over."""
        ...

    def verify(self, release: Target) -> None:
        """Check what was downloaded as a whole."""
        ...

    def stage(self, release: Target) -> bool:
        """Install the release beside what serves; return whether its pair is active already."""
        ...

    def prove(self, release: Target) -> str | None:
        """Try the staged pair beside the caller, wait a moment, and return how far it is; None: it is proved."""
        ...

    def rest(self) -> None:
        """Free what only a step that follows at once would need."""
        ...

    def switch(self, release: Target, trial: str) -> bool:
        """Make the staged pair active, on trial; return whether it is: a confirmed pair that is active stays so."""
        ...

    def confirm(self, release: Target, trial: str | None) -> None:
        """End the trial, and raise the security floor."""
        ...

    def roll_back(self) -> None:
        """Return to the pair before the trial; it needs no server. No trial: nothing is done."""
        ...

    def serving(self) -> Serving:
        """Return what the pointer of the device says."""
        ...

    def active(self) -> Active | None:
        """Return the active pair; None: there is none, or the pointer is damaged."""
        ...

    def signs(self) -> VitalSigns | None:
        """Return the vital signs of the device; None: it does not run."""
        ...

    def surroundings(self) -> Surroundings:
        """Return what the gates look at."""
        ...

    def tidy(self) -> None:
        """Remove downloads that no release needs any more."""
        ...


class Mailbox(Protocol):
    """The fleet, as the agent sees it. Each method returns at once, but `wait`."""

    def put(self, content: Mapping[str, Any]) -> None:
        """Report a state: fields of gallery_sync.formats.reports.Reported; what is in front of it is replaced."""
        ...

    def wait(self, wait_s: float) -> None:
        """Wait, or until something arrives: the doorbell, a turn or a command."""
        ...

    def rang(self) -> bool:
        """Return whether the repository has something new since the last call."""
        ...

    def has_turn(self, sequence: int, plan: str | None) -> bool:
        """Return whether this device may switch to a release of a plan now."""
        ...


class Requests(Protocol):
    """The commands of people, as the agent sees them."""

    @property
    def proves(self) -> bool:
        """Whether a command proves a pair now; two proofs at once could need more memory than there is."""
        ...

    def turn(self, *, proving: bool = False) -> None:
        """Carry out what may be carried out now, between two steps; it returns soon, and never raises."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """Clocks, chance and waiting."""

    now: Callable[[], float]  # Unix seconds
    monotonic: Callable[[], float]  # seconds
    sleep: Callable[[float], None]
    jitter: Callable[[], float]  # 0..1
    boot_id: str  # of this boot of the machine
    new_trial: Callable[[], str]


def local_time() -> datetime:
    """Return the local time, with its time zone."""
    return datetime.now().astimezone()


def skipped_before(local: datetime) -> timedelta:
    """Return how much the clocks of this machine's zone were put forward within the hour before a local time."""
    moment = local.timestamp()
    offset, before = (datetime.fromtimestamp(one).astimezone().utcoffset() for one in (moment, moment - 3600))
    return max((offset or timedelta()) - (before or timedelta()), timedelta())
