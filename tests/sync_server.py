"""A web server on loopback that serves a repository folder, with injected faults."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

Fault = Callable[[BaseHTTPRequestHandler, bytes], bool]  # answers itself and returns True, or returns False


class Server(ThreadingHTTPServer):
    """Serves a folder with ranges; a fault answers in its place for its paths."""

    daemon_threads = True

    def __init__(self, folder: Path, tls: ssl.SSLContext | None = None, *, keep_alive: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _KeepingHandler if keep_alive else _Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.folder = folder
        self.faults: dict[str, list[Fault]] = {}  # by path; each is used once, the last one always
        self.requests: list[tuple[str, str]] = []  # path, range
        self.headers: list[dict[str, str]] = []  # of each request
        self.connections = 0
        self.stopping = threading.Event()
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.server_port}"

    def get_request(self) -> tuple[socket.socket, object]:
        """Count a connection."""
        self.connections += 1
        return super().get_request()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.lstrip("/")
        self.server.requests.append((path, self.headers.get("Range", "")))
        self.server.headers.append(dict(self.headers.items()))
        file = self.server.folder / path
        data = file.read_bytes() if file.is_file() else b""
        faults = self.server.faults.get(path, [])
        if faults and (faults.pop(0) if len(faults) > 1 else faults[0])(self, data):
            return
        if not file.is_file():
            self.send_error(404)
            return
        start = int(re.sub(r"\D", "", self.headers.get("Range", "0")) or 0)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start:])

    def do_CONNECT(self) -> None:
        """Be a proxy: connect to what is asked for, and pass the bytes on."""
        self.server.requests.append((self.path, ""))
        self.server.headers.append(dict(self.headers.items()))
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pass_on, args=(there, self.connection))
            back.start()
            _pass_on(self.connection, there)
            back.join()

    def log_message(self, *args: object) -> None:
        pass


class _KeepingHandler(_Handler):
    """Keeps connections open between requests."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a response in few packets


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def healthy(_handler: BaseHTTPRequestHandler, _data: bytes) -> bool:
    return False


def answer(body: Callable[[bytes], bytes], status: int = 200, claim: int | None = None, **headers: str) -> Fault:
    """Send a complete response, whatever range was requested; `claim` is a false length."""

    def act(handler: BaseHTTPRequestHandler, data: bytes) -> bool:
        sent = body(data)
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(sent) if claim is None else claim))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(sent)
        return True

    return act


def cut_after(count: int) -> Fault:
    """Send the requested range, and close the connection after this many bytes."""

    def act(handler: BaseHTTPRequestHandler, data: bytes) -> bool:
        start = int(re.sub(r"\D", "", handler.headers.get("Range", "0")) or 0)
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start : start + count])
        handler.close_connection = True
        return True

    return act


def silent(handler: BaseHTTPRequestHandler, _data: bytes) -> bool:
    """Send nothing until the client disconnects."""
    handler.rfile.read(1)
    return True


def redirect(location: str, status: int = 302) -> Fault:
    """Redirect to an address; `{path}` stands for the requested path."""

    def act(handler: BaseHTTPRequestHandler, _data: bytes) -> bool:
        handler.send_response(status)
        if location:
            handler.send_header("Location", location.format(path=handler.path))
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return act


def raw(*pieces: bytes, endless: bytes = b"", every_s: float = 0.0) -> Fault:
    """Write these bytes as they are, then, until the client leaves, `endless` again and again."""

    def act(handler: BaseHTTPRequestHandler, _data: bytes) -> bool:
        handler.close_connection = True
        try:
            for piece in pieces:
                handler.wfile.write(piece)
                handler.wfile.flush()
            while endless:
                handler.wfile.write(endless)
                handler.wfile.flush()
                if every_s and handler.server.stopping.wait(every_s):
                    break
        except OSError:  # the client left
            pass
        return True

    return act


@contextmanager
def serving(folder: Path, tls: ssl.SSLContext | None = None, *, keep_alive: bool = False) -> Iterator[Server]:
    """Serve a folder on loopback; `keep_alive` keeps connections open between requests."""
    with Server(folder, tls, keep_alive=keep_alive) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield running
        finally:
            running.stopping.set()
            running.shutdown()
            thread.join()
