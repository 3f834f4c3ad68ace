"""A running console with cheap passwords, users, and any routes, for tests of the server."""

from __future__ import annotations

import contextlib
import http.client
import json
from dataclasses import replace
from urllib.parse import urlsplit

from console.access.gate import COOKIE, Gate
from console.access.users import add_user
from console.settings import Settings
from console.web.routes import ROUTES
from console.web.serve import ConsoleServer, Listen, close_services, open_services
from tests.console.access.access_samples import HASH, HERE, PASSWORD, PASSWORDS
from tests.console_samples import TOKEN, Client, Reply


@contextlib.contextmanager
def console(folder, routes=ROUTES, settings=None, **listen):
    """Run a console; the client sends the printed token."""
    services = open_services(settings or Settings(folder), TOKEN)
    services = replace(services, gate=Gate(services.database, TOKEN, PASSWORDS, services.clock))
    try:
        with ConsoleServer(services, Listen(port=0, **listen), routes=routes) as server:
            yield Client(server.url, services)
    finally:
        close_services(services)


def add(client, name, role="admin"):
    """Add a user; the first one is an admin."""
    with client.services.database.write() as connection:
        return add_user(connection, client.services.clock(), "test", name, role, HASH)


def browser(client, name):
    """Return a browser that is logged in."""
    return Browser(client, client.services.gate.log_in(name, PASSWORD, HERE))


class Browser:
    """Sends a session's cookie, and what browsers send of themselves."""

    def __init__(self, client, cookie=None):
        self.client, self.cookie = replace(client, token=None), cookie

    def get(self, path, **headers):
        return self.ask("GET", path, None, headers)

    def send(self, method, path, body=None, **headers):
        data = None if body is None else json.dumps(body).encode()
        more = {"Content-Type": "application/json", "Origin": self.client.url, "Sec-Fetch-Site": "same-origin"}
        return self.ask(method, path, data, {**more, **headers})

    def ask(self, method, path, body, headers):
        cookie = {} if self.cookie is None else {"Cookie": f"{COOKIE}={self.cookie}"}
        sent = {name.replace("_", "-"): value for name, value in {**cookie, **headers}.items() if value is not None}
        return self.client.ask(method, path, body, sent)


def raw(client, request: bytes) -> Reply:
    """Send bytes as they are; return the answer."""
    where = urlsplit(client.url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    connection.connect()
    try:
        connection.sock.sendall(request)
        answer = http.client.HTTPResponse(connection.sock)
        answer.begin()
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()
