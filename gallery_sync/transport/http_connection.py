"""HTTP requests over a socket that keeps time limits: while it connects, reads headers and reads the body.

`http.client` limits lines and their number, but not the time that they take, nor interim answers and trailers without
end. Here every byte is read through `_TimedReader`, which limits them all.

Rules this module keeps:
1. One connection stays open between requests to the same server: a release of many objects needs one handshake. It is
   used again only if its last response was read to the end, both sides want it, and nothing arrived since; and within
   30 s, because a router may forget it without a word.
2. A connection that the server closed meanwhile is replaced once, unseen. Nothing else is retried here.
3. Certificate authorities are read again only when their file changed: this takes 50 ms of a processor.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import select
import socket
import ssl
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from edge.errors import SyncError
from gallery_sync.transport.addresses import Address, parse_address
from gallery_sync.transport.errors import InterruptedTransferError
from gallery_sync.transport.time_limits import Deadline, RateMeter, TimeLimits

_MOST_OVERHEAD_BYTES = 1 << 20  # headers, chunk sizes and trailers of one response, beside as much as its body
_MOST_ADDRESSES = 8  # of a host that are tried
_LONGEST_IDLE_S = 30.0
_SECURE = "https"


@dataclass(frozen=True, slots=True)
class Access:
    """How the operator lets a device reach its repository."""

    allowed_hosts: frozenset[str] = frozenset()  # that redirects may lead to, beside the repository's own
    ca_file: Path | None = None  # the only certificate authorities to trust; None: those of the system
    proxies: Mapping[str, str] = field(default_factory=dict)  # as `urllib.request.getproxies_environment` returns them


class _TimedReader(io.RawIOBase):
    """Reads a socket. `taken` tells how many bytes of the body the caller has got."""

    def __init__(self, sock: socket.socket, limits: TimeLimits, deadline: Deadline) -> None:
        self._sock = sock
        self._limits = limits
        self._deadline = deadline
        self._meter = RateMeter(limits)
        self._received = 0
        self.head_until_s: float | None = time.monotonic() + limits.timeout_s  # None: the headers are read
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        started_s = time.monotonic()
        wait_s = min(self._limits.timeout_s, self._deadline.remaining_s())
        if self.head_until_s is not None:
            wait_s = min(wait_s, self.head_until_s - started_s)
        if wait_s <= 0:
            raise TimeoutError(f"timed out: the headers took more than {self._limits.timeout_s:g} s")
        self._sock.settimeout(wait_s)
        try:
            count = self._sock.recv_into(buffer)
        except TimeoutError:
            self._deadline.remaining_s()
            raise
        self._received += count
        if self._received > 2 * self.taken + _MOST_OVERHEAD_BYTES:
            raise InterruptedTransferError("the server sends headers, chunk sizes or trailers without end")
        if self.head_until_s is None:
            self._meter.add(count, time.monotonic() - started_s)
        return count


class _TimedSocket:
    """The part of a socket that `http.client` uses; whoever connected it closes it."""

    def __init__(self, sock: socket.socket, reader: _TimedReader) -> None:
        self._sock = sock
        self._reader = reader

    def sendall(self, data: bytes) -> None:
        self._sock.sendall(data)

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(self._reader)

    def close(self) -> None:
        """Keep it open: the response is still read."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response whose headers are read."""

    status: int
    headers: http.client.HTTPMessage
    _message: http.client.HTTPResponse
    _reader: _TimedReader

    @property
    def length(self) -> int | None:
        """The announced number of bytes that are not read yet; None: not announced."""
        return self._message.length

    @property
    def is_complete(self) -> bool:
        """Whether the body was read to its end, and the server keeps the connection open."""
        message = self._message
        is_read = message.isclosed() if message.length is None else message.length == 0  # None: it came in chunks
        return is_read and not message.will_close

    def read(self, most_bytes: int) -> bytes:
        """Return some bytes of the body as soon as there are any; empty: it ended."""
        data = self._message.read1(most_bytes)
        self._reader.taken += len(data)
        return data


@dataclass(frozen=True, slots=True)
class _Route:
    """The way to a server."""

    scheme: str
    host: str
    port: int
    proxy: Address | None
    access: Access


@dataclass(slots=True)
class _Connection:
    """A socket to a server, through a proxy or not."""

    sock: socket.socket
    route: _Route
    idle_since_s: float = 0.0

    def is_quiet(self) -> bool:
        """Return whether it is fresh and nothing arrived: neither its end nor bytes that nobody asked for."""
        if time.monotonic() - self.idle_since_s > _LONGEST_IDLE_S:
            return False
        try:
            return not select.select([self.sock], [], [], 0)[0]
        except (OSError, ValueError):  # it is closed, or its number is too large
            return False


class Connections:
    """Keeps one connection open between requests. It is used by one thread, and closes with its owner."""

    def __init__(self) -> None:
        self._idle: list[_Connection] = []  # one at most
        self.opened = 0
        weakref.finalize(self, _close_all, self._idle)

    def close(self) -> None:
        """Close the connection that is open."""
        _close_all(self._idle)

    @contextmanager
    def request(
        self,
        address: Address,
        headers: Mapping[str, str],
        access: Access,
        limits: TimeLimits,
        deadline: Deadline,
        sent: tuple[str, bytes] = ("GET", b""),
    ) -> Iterator[Response]:
        """Send a request, GET if nothing else is said, and read the headers of its response.

        `sent` is its method and body. A request with another method gets a connection of its own, so that no server
        sees it twice.

        Raises:
            SyncError: the deadline passed, or a certificate, a file of certificates or a proxy address is invalid.
            InterruptedTransferError: the server sends without end, or too slowly.
            OSError: there is no connection, or no answer in time.
            http.client.HTTPException: the answer is not HTTP.
        """
        proxy = _proxy_for(address, access)
        (method, body), target, all_headers = sent, address.target, dict(headers)
        if address.credentials:
            all_headers["Authorization"] = f"Basic {address.credentials}"
        if proxy and address.scheme != _SECURE:
            target = address.url
            all_headers |= _proxy_headers(proxy)
        route = _Route(address.scheme, address.host, address.port, proxy, access)
        open_: _Connection | None = None
        try:
            with ExitStack() as exchange:
                if method != "GET":
                    self.close()
                open_ = self._take(route)
                lines = (target, all_headers | {"Host": address.host_header})
                if open_ is None or (response := _ask_again(exchange, open_, lines, limits, deadline)) is None:
                    open_ = _connect(address, route, limits, deadline)
                    self.opened += 1
                    response = exchange.enter_context(_exchange(open_.sock, method, *lines, limits, deadline, body))
                yield response
                is_complete = response.is_complete
            if is_complete:
                open_.idle_since_s = time.monotonic()
                self._idle.append(open_)
                open_ = None
        finally:
            if open_ is not None:
                open_.sock.close()

    def _take(self, route: _Route) -> _Connection | None:
        """Return the idle connection if it leads there and is open; close any other."""
        if self._idle and self._idle[0].route == route and self._idle[0].is_quiet():
            return self._idle.pop()
        self.close()
        return None


def _ask_again(
    exchange: ExitStack,
    connection: _Connection,
    lines: tuple[str, Mapping[str, str]],
    limits: TimeLimits,
    deadline: Deadline,
) -> Response | None:
    """Send a request over a connection that was used; return None if the server closed it meanwhile."""
    try:
        return exchange.enter_context(_exchange(connection.sock, "GET", *lines, limits, deadline))
    except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
        connection.sock.close()
        return None


def _close_all(connections: list[_Connection]) -> None:
    while connections:
        connections.pop().sock.close()


def _connect(address: Address, route: _Route, limits: TimeLimits, deadline: Deadline) -> _Connection:
    sock = _dial(route.proxy or address, limits, deadline)
    try:
        if address.scheme == _SECURE:
            if route.proxy:
                _open_tunnel(sock, route.proxy, address, limits, deadline)
            sock = _encrypt(sock, address, route.access)
    except BaseException:
        sock.close()
        raise
    return _Connection(sock, route)


@contextmanager
def _exchange(
    sock: socket.socket,
    method: str,
    target: str,
    headers: Mapping[str, str],
    limits: TimeLimits,
    deadline: Deadline,
    body: bytes = b"",
) -> Iterator[Response]:
    reader = _TimedReader(sock, limits, deadline)
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    sock.settimeout(min(limits.timeout_s, deadline.remaining_s()))
    sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + body)
    message = http.client.HTTPResponse(_TimedSocket(sock, reader), method=method)  # type: ignore[arg-type]
    with contextlib.closing(message):
        message.begin()
        reader.head_until_s = None
        yield Response(message.status, message.headers, message, reader)


def _dial(address: Address, limits: TimeLimits, deadline: Deadline) -> socket.socket:
    """Connect to the first address of a host that answers."""
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[:_MOST_ADDRESSES]
    failure: OSError = OSError("the host has no address")
    for family, kind, protocol, _, there in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(min(limits.timeout_s, deadline.remaining_s()))
            sock.connect(there)
        except OSError as error:
            sock.close()
            failure = error
        except SyncError:
            sock.close()
            raise
        else:
            return sock
    raise failure


def _encrypt(sock: socket.socket, address: Address, access: Access) -> ssl.SSLSocket:
    paths = [access.ca_file] if access.ca_file else [Path(path) for path in ssl.get_default_verify_paths()[:2] if path]
    context = _context(access.ca_file, tuple(_changed(path) for path in paths))
    try:
        return context.wrap_socket(sock, server_hostname=address.host)
    except ssl.SSLCertVerificationError as error:
        raise InterruptedTransferError(
            f"{address}: the server's certificate is not valid: {error.verify_message}; check the clock of this "
            "device; if you have your own certificate authority: --ca-file FILE"
        ) from error


@lru_cache(maxsize=4)
def _context(ca_file: Path | None, _changed: tuple[object, ...]) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SyncError(f"{ca_file}: cannot read certificates: {error}; give a PEM file") from error


def _changed(path: Path) -> tuple[int, ...]:
    """Return what differs once a file or folder is replaced or written; empty: it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _proxy_for(address: Address, access: Access) -> Address | None:
    url = access.proxies.get(address.scheme)
    if not url or proxy_bypass_environment(address.host_header, dict(access.proxies)):
        return None
    proxy = parse_address(url if "://" in url else f"http://{url}")
    if proxy.scheme == _SECURE:
        raise SyncError(f"{proxy}: this proxy is reached over https; give one that is reached over http")
    return proxy


def _proxy_headers(proxy: Address) -> dict[str, str]:
    return {"Proxy-Authorization": f"Basic {proxy.credentials}"} if proxy.credentials else {}


def _open_tunnel(sock: socket.socket, proxy: Address, address: Address, limits: TimeLimits, deadline: Deadline) -> None:
    host = f"[{address.host}]" if ":" in address.host else address.host
    where = f"{host}:{address.port}"
    headers = {"Host": where} | _proxy_headers(proxy)
    with _exchange(sock, "CONNECT", where, headers, limits, deadline) as answer:
        if answer.status != http.HTTPStatus.OK:
            raise InterruptedTransferError(f"proxy {proxy}: no connection to {where}: it answered HTTP {answer.status}")
