"""A subscriber that reconnects, for the demo, the benchmarks and the tests."""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable

from edge.errors import PublishError
from edge.messaging.connection import Connection
from edge.messaging.settings import MqttSettings, ReceivedMessage, backoff_s

log = logging.getLogger(__name__)


class Subscriber:
    """Collects the messages of a topic, and reconnects when the connection is lost."""

    def __init__(
        self,
        settings: MqttSettings,
        topic: str,
        deliver: Callable[[ReceivedMessage], None] | None = None,
        *,
        resume: bool = False,
    ) -> None:
        """Prepare; `start` connects.

        Args:
            settings: the broker.
            topic: may hold the wildcards + and #.
            deliver: called with each message, on the subscriber thread; None: messages collect in `messages`.
            resume: let the broker queue messages while this client is disconnected.
        """
        self.messages: queue.SimpleQueue[ReceivedMessage] = queue.SimpleQueue()
        self._settings, self._topic, self._resume = settings, topic, resume
        self._deliver = deliver or self.messages.put
        self._subscribed = threading.Event()
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._error: str | None = None
        self._thread = threading.Thread(target=self._run, name="subscribe", daemon=True)

    def __enter__(self) -> Subscriber:  # noqa: PYI034  Self is not in Python 3.10
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def start(self, timeout_s: float = 10.0) -> None:
        """Connect and subscribe; return when the broker has granted the subscription.

        Raises:
            PublishError: it was not granted in time.
        """
        self._thread.start()
        if not self._subscribed.wait(timeout_s):
            self.close()
            raise PublishError(self._error or f"broker {self._settings.address}: no subscription in {timeout_s:g} s")

    def close(self) -> None:
        """Disconnect."""
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            connection.wake()
        self._thread.join(self._settings.connect_timeout_s + 1.0)

    def _run(self) -> None:
        failures, rng = 0, random.Random()
        while not self._stopping.is_set():
            try:
                with Connection(self._settings, on_message=self._deliver, resume=self._resume) as connection:
                    self._connection = connection
                    connection.subscribe(self._topic)
                    self._subscribed.set()
                    failures = 0
                    while not self._stopping.is_set():
                        connection.step(1.0)
            except PublishError as error:
                failures += 1
                self._error = str(error)
                log.info("%s; reconnecting", error)
                self._stopping.wait(backoff_s(self._settings, failures, rng))
