"""A small MQTT broker inside this process, used when none is configured. The only module that imports amqtt."""

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
    """Remembers client sockets, because amqtt leaves one open when it stops while that client disconnects."""

    def __init__(self, config: BrokerConfig) -> None:
        super().__init__(config)
        self.writers: set[asyncio.StreamWriter] = set()

    def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> Coroutine[Any, Any, None]:
        # not a coroutine: a handler cancelled before its first step would not be recorded
        self.writers = {known for known in self.writers if not known.is_closing()} | {writer}
        handler: Coroutine[Any, Any, None] = super().stream_connected(reader, writer, listener_name)
        return handler


class EmbeddedBroker:
    """A broker on the loopback address, running inside a `with` block."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.port = 0  # set on entering
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="broker", daemon=True)
        self._broker: _Broker | None = None

    def __enter__(self) -> EmbeddedBroker:  # noqa: PYI034  Self is not in Python 3.10
        # amqtt logs every packet and prints refused sockets as tracebacks; real problems raise an error here
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
        await asyncio.sleep(0)  # closed transports release their sockets in the next iteration of the loop

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_TIMEOUT_S)
        self._loop.close()


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
