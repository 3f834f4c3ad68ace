"""What every client of a broker does to connect again: waits, and goes without what the broker does not grant."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from edge.errors import PublishError, RefusedError
from edge.messaging.settings import MqttSettings, ReceivedMessage, Will, backoff_s

if TYPE_CHECKING:
    from edge.messaging.connection import Connection

STABLE_S = 10.0  # after a connection that lasted this long, the back-off starts again at its first step
TAKEN_OVER = 0x8E  # reason codes of MQTT 5
_RETAIN_NOT_SUPPORTED, _QOS_NOT_SUPPORTED = 0x9A, 0x9B
_MOST_LOST = 3  # connections in a row


def open_connection(settings: MqttSettings, will: Will, on_message: Callable[[ReceivedMessage], None]) -> Connection:
    """Connect to a broker.

    Raises:
        PublishError: the broker is unreachable or refuses the connection.
    """
    from edge.messaging.connection import Connection  # in the client's thread: the start does not wait for paho

    return Connection(settings, will, on_message)


def failure_reason(error: PublishError) -> str:
    """Return why a connection failed, as the label of a counter."""
    if error.code == TAKEN_OVER:
        return "taken_over"
    return "refused" if isinstance(error, RefusedError) else "unreachable"


def lowered(will: Will, error: PublishError) -> Will:
    """Return the last will of the next connection: it asks for less where a broker of MQTT 5 refused it for that."""
    if error.code == _QOS_NOT_SUPPORTED:
        return replace(will, qos=0)
    if error.code == _RETAIN_NOT_SUPPORTED:
        return replace(will, retain=False)
    return will


class Backoff:
    """How long one client waits between its connections."""

    def __init__(self, settings: MqttSettings, rng: random.Random, clock: Callable[[], float]) -> None:
        """Have no failure.

        Args:
            settings: the first wait and the longest.
            rng: the jitter.
            clock: monotonic seconds.
        """
        self._settings, self._rng, self._clock = settings, rng, clock
        self._failures = 0  # in a row
        self._started_s = clock()

    def start(self) -> None:
        """Note that the next connection starts now."""
        self._started_s = self._clock()

    def reset(self) -> None:
        """Forget the failures: the client ended the last connection itself."""
        self._failures = 0

    def next_s(self, clashes: int = 0) -> float:
        """Return the wait after a connection that failed or was lost.

        Args:
            clashes: connections in a row that another client with the same id took away.
        """
        has_lasted = self._clock() - self._started_s > STABLE_S
        self._failures = 1 if has_lasted else self._failures + 1
        return backoff_s(self._settings, self._failures, self._rng, clashes)


class Subscriber:
    """Subscribes on every connection, but leaves it out once in a while where the broker disconnects for it.

    Some brokers disconnect a client that may not subscribe; such a client can still publish.
    """

    def __init__(self) -> None:
        self._lost = 0  # connections in a row that were lost while subscribing

    def run(self, subscribe: Callable[[], None]) -> bool:
        """Subscribe; return False if that is left out on this connection.

        Args:
            subscribe: raises RefusedError if the broker refuses and the connection stays.

        Raises:
            RefusedError: the broker refused.
            PublishError: the connection is lost.
        """
        if self._lost >= _MOST_LOST:
            self._lost = 0
            return False
        try:
            subscribe()
        except RefusedError:
            raise
        except PublishError:
            self._lost += 1
            raise
        self._lost = 0
        return True
