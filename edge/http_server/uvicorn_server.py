"""An HTTP server in a thread of its own: uvicorn on an HttpListener. The only module that imports uvicorn.

Rules this module keeps:
1. The address and the certificate are checked before the thread starts.
2. While a request is answered, its connection is marked as busy; connections that are held and not used are closed.
3. A server that fails is logged, counted and started again, with the application that it had.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import uvicorn

from edge.config.schema import TlsConfig
from edge.errors import ConfigError
from edge.http_server.access import verify_tls
from edge.http_server.listener import HttpListener
from edge.supervised_thread import SupervisedThread
from edge.types import Counts

Application: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]  # ASGI 3

_ACCEPTED_AT_ONCE = 16  # far fewer than may be open, so that none is closed before its first bytes are read


class UvicornServer:
    """A server: `server.start(app)`, and in the end `server.stop()`."""

    def __init__(
        self, name: str, host: str, port: int, tls: TlsConfig | None, counts: Counts, *, busy_s: float
    ) -> None:
        """Open the listening socket.

        Args:
            name: for the log, the thread and the labels of the counts.
            host: address or name to listen on.
            port: 0: any free one.
            tls: its certificate; None: no TLS.
            counts: counts `connections_closed` and `thread_restarts`.
            busy_s: the longest time to answer a request, whose client may read slowly.

        Raises:
            ConfigError: the address cannot be listened on, or the certificate cannot be loaded.
        """
        if tls is not None:
            verify_tls(tls)
        try:
            self.listener = HttpListener(host, port, name, counts, busy_s=busy_s)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self.port = self.listener.port
        self.url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"
        self.is_stopping = False
        self._name, self._tls, self._counts = name, tls, counts
        self._uvicorn: uvicorn.Server | None = None
        self._thread: SupervisedThread | None = None

    def start(
        self,
        app: Application,
        around: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        """Start to answer.

        Args:
            app: what answers.
            around: is entered in the server's thread before each event loop, and left after it.
        """
        certificate, key = (self._tls.certificate, self._tls.key) if self._tls else (None, None)
        options = uvicorn.Config(
            partial(self._answer, app), interface="asgi3",
            loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None, log_level="error",
            access_log=False, server_header=False, proxy_headers=False, timeout_graceful_shutdown=1,
            backlog=_ACCEPTED_AT_ONCE, callback_notify=self._look_after_connections, timeout_notify=1,
            ssl_certfile=certificate, ssl_keyfile=key,
        )  # fmt: skip
        self._thread = SupervisedThread(f"{self._name}-http", partial(self._serve, options, around), self._counts)
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> None:
        """End the connections and the thread, and close the socket; None: wait however long it takes."""
        self.is_stopping = True
        if self._uvicorn is not None:
            self._uvicorn.should_exit = True
        if self._thread is not None:
            self._thread.stop(timeout_s)
        self.listener.close()

    def _serve(self, options: uvicorn.Config, around: Callable[[], contextlib.AbstractContextManager[object]]) -> None:
        self._uvicorn = server = uvicorn.Server(options)
        with around():
            if not self.is_stopping:
                server.run(sockets=[self.listener])

    async def _answer(self, app: Application, scope: Any, receive: Any, send: Any) -> None:
        with self.listener.answering(tuple(scope["client"] or ())):
            await app(scope, receive, send)

    async def _look_after_connections(self) -> None:
        self.listener.close_overdue()
