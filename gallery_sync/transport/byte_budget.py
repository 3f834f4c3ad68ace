"""How many bytes a device may download: a number a day, and less on a network where bytes cost money.

Rules this module keeps:
1. Every byte of a body that arrives over HTTP counts, also one that is thrown away. A folder or a stick costs nothing.
2. The documents of a repository and urgent deletions are counted, and never refused: a device always knows what it
   should run. Everything else stops in the middle when the day's bytes are spent, and goes on the next day.
3. A whole file in place of a smaller delivery that failed is fetched only if `Allowance` says so: never on a metered
   network, and never if it does not fit into what is left of the day.
4. A day is one of the device's time zone. A clock that is set to another day starts the count of that day.
5. What is spent reaches the door in steps, at the latest after 1 MiB and at the end of a body: a crash loses one step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal, Protocol

from gallery_sync.transport.errors import BudgetError

_STEP_BYTES = 1 << 20

Metered = Literal["auto", "yes", "no"]


@dataclass(frozen=True, slots=True)
class BytePolicy:
    """What the operator allows."""

    bytes_per_day: int | None = None  # None: no limit
    metered: Metered = "auto"  # auto: ask the network, see gallery_sync.transport.network_manager
    metered_bytes_per_day: int | None = None  # on a metered network; None: the same as on any


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be downloaded now."""

    left_bytes: int | None  # of this day; None: no limit
    metered: bool
    again_at: datetime  # the start of the next day

    def allows(self, count: int) -> bool:
        """Return whether so many bytes fit into what is left of the day."""
        return self.left_bytes is None or count <= self.left_bytes

    def whole_file(self, size: int) -> bool:
        """Return whether a whole file may be fetched in place of a smaller delivery that failed."""
        return not self.metered and self.allows(size)


class SpentBytes(Protocol):
    """Stores the bytes of each day, so that they survive a restart."""

    def spent(self, day: str) -> int:
        """Return the bytes of a day, such as 2026-11-28; 0 if nothing is stored."""
        ...

    def add(self, day: str, count: int) -> None:
        """Add some bytes to a day."""
        ...


class SpentInMemory:
    """Bytes that the process forgets when it ends, for a manual pull."""

    def __init__(self) -> None:
        self.days: dict[str, int] = {}

    def spent(self, day: str) -> int:
        """Return the bytes of a day."""
        return self.days.get(day, 0)

    def add(self, day: str, count: int) -> None:
        """Add some bytes to a day."""
        self.days[day] = self.spent(day) + count


def day_of(now: datetime) -> str:
    """Return the day of a time, in its own time zone, as 2026-11-28."""
    return now.date().isoformat()


def next_day(now: datetime) -> datetime:
    """Return the start of the day after a time, in its time zone."""
    return datetime.combine(now.date() + timedelta(days=1), time.min, now.tzinfo)


def allowance(policy: BytePolicy, spent_today: int, now: datetime, *, metered: bool) -> Allowance:
    """Return what a policy allows.

    Args:
        policy: of the operator.
        spent_today: bytes of this day.
        now: local time, with its time zone.
        metered: whether the network costs money, where the policy leaves that to the network.
    """
    metered = policy.metered == "yes" or (policy.metered == "auto" and metered)
    limit = policy.bytes_per_day
    if metered and policy.metered_bytes_per_day is not None:
        limit = policy.metered_bytes_per_day if limit is None else min(limit, policy.metered_bytes_per_day)
    return Allowance(None if limit is None else max(0, limit - spent_today), metered, next_day(now))


class ByteBudget:
    """Counts the bytes of a device, and says what is left."""

    def __init__(
        self,
        policy: BytePolicy,
        door: SpentBytes,
        *,
        now: Callable[[], datetime],
        is_metered: Callable[[], bool] = lambda: False,
    ) -> None:
        """Count into a door.

        Args:
            policy: of the operator.
            door: stores the bytes of each day.
            now: returns the local time, with its time zone.
            is_metered: returns whether the network costs money; asked only where the policy says `auto`.
        """
        self._policy = policy
        self._door = door
        self._now = now
        self._is_metered = is_metered
        self._day = ""
        self._stored = self._pending = 0  # bytes of the day, in the door and not yet

    def allowance(self) -> Allowance:
        """Return what may be downloaded now."""
        now = self._now()
        self._turn_to(day_of(now))
        metered = self._policy.metered == "auto" and self._is_metered()
        return allowance(self._policy, self._stored + self._pending, now, metered=metered)

    def may_fetch_whole(self, size: int) -> bool:
        """Return whether a whole file may be fetched in place of a smaller delivery that failed."""
        return self.allowance().whole_file(size)

    def spend(self, count: int) -> None:
        """Count some bytes that arrived."""
        self._turn_to(day_of(self._now()))
        self._pending += count
        if self._pending >= _STEP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Store what was counted."""
        if self._pending:
            self._door.add(self._day, self._pending)
            self._stored, self._pending = self._stored + self._pending, 0

    def require(self, name: str) -> None:
        """Check that something is left of the day.

        Raises:
            BudgetError: nothing is.
        """
        found = self.allowance()
        if not found.allows(1):
            on = " on a metered network" if found.metered else ""
            raise BudgetError(
                f"{name}: the bytes that a day allows{on} are spent; the download goes on at "
                f"{found.again_at.isoformat(timespec='minutes')}, or allow more",
                found.again_at,
            )

    def _turn_to(self, day: str) -> None:
        if day != self._day:
            self.flush()
            self._day, self._stored = day, self._door.spent(day)
