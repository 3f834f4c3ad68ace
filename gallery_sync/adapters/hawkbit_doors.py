"""The doors of the adapter of hawkBit: hawkBit itself, clock, waiting and chance."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gallery_sync.adapters.device_view import Named
from gallery_sync.adapters.hawkbit_messages import Deployment, Execution, Finished, Poll, ReleaseFile


class Client(Protocol):
    """hawkBit, as gallery_sync.adapters.hawkbit_client.HawkbitClient reaches it. Each raises a SyncError."""

    def poll(self) -> Poll:
        """Ask what hawkBit wants."""
        ...

    def deployment(self, action: str, tag: str | None, line: str) -> Deployment:
        """Get an action."""
        ...

    def release_file(self, file: ReleaseFile) -> Named:
        """Get the artifact that names a release."""
        ...

    def cancelled(self, action: str) -> str:
        """Return the id of the action that a cancellation is about."""
        ...

    def tell(self, action: str, execution: Execution, finished: Finished, text: str) -> bool:
        """Send the state of an action."""
        ...

    def answer_cancel(self, action: str, execution: Execution, finished: Finished, text: str) -> bool:
        """Confirm or reject a cancellation."""
        ...

    def put_labels(self, labels: dict[str, str]) -> None:
        """Send the attributes of the device."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """Clock, waiting and chance."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random  # 0..1
