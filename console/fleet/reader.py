"""The door to the fleet's server: short waits, answers kept for a moment, and errors that say how to mend them.

Rules this module keeps:
1. A server that does not answer costs one wait of a few seconds, not one for each page and person.
2. One request at a time for each question. Whoever asks the same meanwhile gets that answer.
3. Nothing of an answer is trusted: see console.fleet.devices.
4. No message and no page shows the token.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from console.settings import Settings
from edge.errors import ConsoleError, SyncError
from gallery_sync.command_line import FLEET_TOKEN
from gallery_sync.fleet_client.client import FleetClient, FleetRefusedError, Limits, Rows

KEEP_S = 1.5  # an answer
_DOWN_S = 3.0  # that nobody asks a server that did not answer
_LIMITS = Limits(timeout_s=2.5, request_s=3.0, largest_bytes=32 << 20)
_MOST_KEPT = 100
_NOT_GIVEN = (
    "no fleet server is given; start the console with --fleet URL, such as --fleet http://127.0.0.1:8090, and its "
    f"token in ${FLEET_TOKEN}"
)
_Found = TypeVar("_Found")


class _Kept:
    """An answer, or the error, of one question."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.until = 0.0
        self.found: Any = None
        self.error: ConsoleError | None = None


class FleetReader:
    """Asks the fleet's server; from any thread."""

    def __init__(
        self, settings: Settings, limits: Limits = _LIMITS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._limits, self._clock = settings, limits, clock
        self._lock = threading.Lock()
        self._kept: dict[object, _Kept] = {}
        self._idle: list[FleetClient] = []
        self._down: tuple[float, ConsoleError] | None = None

    @property
    def is_given(self) -> bool:
        """Whether a server was named."""
        return self._settings.fleet is not None

    def summary(self) -> Mapping[str, Any]:
        """Return the counts of all devices, as the server answers.

        Raises:
            ConsoleError: the server is not given, cannot be reached, refuses, or answers nonsense.
        """
        return self._once("summary", lambda client: client.summary())

    def page(self, query: Sequence[tuple[str, str]], after: str, limit: int) -> Rows:
        """Return a page of the devices that a query of the server's API selects.

        Raises:
            ConsoleError: as `summary`.
        """
        key = ("page", tuple(query), after, limit)
        return self._once(key, lambda client: client.page(query, after, limit))

    def device(self, device: str) -> Mapping[str, Any]:
        """Return all of one device, as the server answers.

        Raises:
            ConsoleError: as `summary`, or there is no such device.
        """
        return self._once(("device", device), lambda client: client.device(device))

    def command(self, command: str) -> Mapping[str, Any]:
        """Return a command with its answers, as the server answers.

        Raises:
            ConsoleError: as `summary`, or there is no such command.
        """
        return self._once(("command", command), lambda client: client.command(command), keep_s=0.3)

    def send(self, device: str, verb: str, arguments: Mapping[str, Any], by: str) -> str:
        """Send a command to a device; return its id.

        Raises:
            ConsoleError: as `summary`, or it was not sent.
        """
        sent = self._ask(lambda client: client.send(device, verb, arguments, by))
        with self._lock:
            self._kept.pop(("device", device), None)
        return sent

    def all_rows(self, most: int) -> Rows:
        """Return the rows of all devices, page by page; for a thread that nobody waits for.

        Raises:
            ConsoleError: as `summary`, or there are more than `most`.
        """
        rows, unreadable, after = [], 0, ""
        while True:
            page = self._ask(lambda client, after=after: client.page((), after))  # type: ignore[misc]
            rows += page.rows
            unreadable += page.unreadable
            if len(rows) > most:
                raise ConsoleError(
                    "too_large",
                    f"the fleet has more than {most:,} devices, too many to look at each of them here; use "
                    "edge-sync rollout status --fleet",
                )
            if page.next_device is None:
                return Rows(tuple(rows), unreadable)
            after = page.next_device

    def _once(self, key: object, ask: Callable[[FleetClient], _Found], keep_s: float = KEEP_S) -> _Found:
        """Return the kept answer to a question, or ask it."""
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            while len(self._kept) > _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        with kept.lock:
            if self._clock() >= kept.until:
                try:
                    kept.found, kept.error = self._ask(ask), None
                except ConsoleError as error:
                    kept.found, kept.error = None, error
                kept.until = self._clock() + keep_s
            if kept.error is not None:
                raise ConsoleError(kept.error.reason, str(kept.error))
            found: _Found = kept.found
            return found

    def _ask(self, ask: Callable[[FleetClient], _Found]) -> _Found:
        if self._settings.fleet is None:
            raise ConsoleError("missing", _NOT_GIVEN)
        with self._lock:
            down = self._down
        if down is not None and self._clock() < down[0]:
            raise ConsoleError(down[1].reason, str(down[1]))
        try:
            with self._client() as client:
                found = ask(client)
        except FleetRefusedError as error:
            raise _refused(error) from error
        except SyncError as error:
            found_error = ConsoleError("busy", f"{error}; is it running? edge-sync fleet serve starts one")
            with self._lock:
                self._down = (self._clock() + _DOWN_S, found_error)
            raise found_error from error
        with self._lock:
            self._down = None
        return found

    @contextmanager
    def _client(self) -> Iterator[FleetClient]:
        """Give a client that nobody else uses; its connection stays open for the next one."""
        with self._lock:
            client = self._idle.pop() if self._idle else None
        if client is None:
            settings = self._settings
            client = FleetClient(
                settings.fleet or "", settings.fleet_token, ca_file=settings.fleet_ca, limits=self._limits
            )
        try:
            yield client
        except BaseException:
            client.__exit__()
            raise
        with self._lock:
            self._idle.append(client)


def _refused(error: FleetRefusedError) -> ConsoleError:
    """Return what to say where the server answers that it cannot."""
    if error.status in (401, 403):
        return ConsoleError(
            "missing",
            f"{error}; the console sends the token of ${FLEET_TOKEN}: set it to what the server's --token-file holds, "
            "and start the console again",
        )
    if error.status == 404:
        return ConsoleError("not_found", str(error))
    return ConsoleError("invalid" if error.status < 500 else "busy", str(error))
