"""A small MQTT broker inside this process, for when none is configured. The amqtt door."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import socket
import threading
from collections.abc import Coroutine
from typing import Any

from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig
from amqtt.errors import AMQTTError

from edge.errors import PublishError

_START_TIMEOUT_S = 10.0
_TRIES = 3  # another process may take the free port between finding and using it


class _Broker(Broker):  # type: ignore[misc]  # amqtt is not typed for us
    """Remembers its clients' sockets: amqtt leaves one open when it stops just as its client leaves."""

    def __init__(self, config: BrokerConfig) -> None:
        super().__init__(config)
        self.writers: set[asyncio.StreamWriter] = set()

    def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> Coroutine[Any, Any, None]:
        # not a coroutine itself: a handler that is cancelled before its first step would leave no trace here
        self.writers = {known for known in self.writers if not known.is_closing()} | {writer}
        handler: Coroutine[Any, Any, None] = super().stream_connected(reader, writer, listener_name)
        return handler


class EmbeddedBroker:
    """A broker on the loopback address, open to this machine only, from enter to exit."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.port = 0  # known once entered
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="broker", daemon=True)
        self._broker: _Broker | None = None

    def __enter__(self) -> EmbeddedBroker:  # noqa: PYI034  Self is not in Python 3.10
        # amqtt tells every packet, and prints refused sockets as tracebacks; what matters arrives as an error here
        logging.getLogger("amqtt").setLevel(logging.CRITICAL)
        logging.getLogger("transitions").setLevel(logging.CRITICAL)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_START_TIMEOUT_S)
        except (AMQTTError, OSError, concurrent.futures.TimeoutError) as error:
            self._stop_loop()
            raise PublishError(f"embedded broker {self.host}:{self.port}: cannot start: {error}") from error
        return self

    def __exit__(self, *_exception: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_START_TIMEOUT_S)
        self._stop_loop()

    async def _start(self) -> None:
        for left in reversed(range(_TRIES)):
            self.port = _free_port(self.host)
            listener = ListenerConfig(bind=f"{self.host}:{self.port}")
            plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
            self._broker = _Broker(BrokerConfig(listeners={"default": listener}, plugins=plugins))
            try:
                await self._broker.start()
            except AMQTTError:
                if not left:
                    raise
            else:
                return

    async def _stop(self) -> None:
        if self._broker is not None:
            await self._broker.shutdown()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if self._broker is not None:
            for writer in self._broker.writers:
                writer.transport.abort()
        await asyncio.sleep(0)  # closed transports let go of their sockets in the loop's next turn

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_TIMEOUT_S)
        self._loop.close()


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
