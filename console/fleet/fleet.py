"""What the console knows of a fleet: its server, the rows of all devices, and the signed repository."""

from __future__ import annotations

import contextlib
import threading
from datetime import datetime, timezone

from console.fleet.known_rows import Known, KnownRows
from console.fleet.progress import Counted, Progress, count_devices, progress
from console.fleet.reader import FleetReader
from console.fleet.signed import SignedRepository
from console.settings import Settings
from edge.errors import ConsoleError
from gallery_sync.fleet_client.client import Rows
from gallery_sync.repository.published import Published


class Fleet:
    """The doors of the fleet pages; from any thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.reader = FleetReader(settings)
        self.known = KnownRows(self.reader, then=self._count_in_advance)
        self.signed = SignedRepository(settings)
        self._lock = threading.Lock()
        self._counted: tuple[int, Rows, Counted] | None = None  # of which revision and rows

    @property
    def has_keys(self) -> bool:
        """Whether changes can be signed on this server."""
        return self.settings.keys is not None

    def progress(self, published: Published, known: Known, now: datetime) -> Progress | None:
        """Return how far the rollout is that is under way; None: there is none."""
        if published.plan is None:
            return None
        counted = self._count(published, known.rows, now) if known.rows is not None else None
        return progress(published.plan, counted, now)

    def _count(self, published: Published, rows: Rows, now: datetime) -> Counted | None:
        """Count devices once for all who look at the same rows."""
        if published.plan is None or published.rollouts is None:
            return None
        revision = published.rollouts.revision
        with self._lock:
            if self._counted is None or self._counted[0] != revision or self._counted[1] is not rows:
                self._counted = (revision, rows, count_devices(published.plan, published.rollouts.pins, rows, now))
            return self._counted[2]

    def _count_in_advance(self, rows: Rows) -> None:
        """Count devices that were just read, in the thread that read them."""
        with contextlib.suppress(ConsoleError):
            self._count(self.signed.published(), rows, datetime.now(timezone.utc))
