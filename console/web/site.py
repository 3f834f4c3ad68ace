"""How browsers reach the server: by which names, over TLS or not, and through which proxy."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass, field

from starlette.requests import Request

from console.access.sessions import Client
from console.web.bodies import Pace


@dataclass(frozen=True, slots=True)
class Site:
    """How browsers reach the server."""

    host_names: frozenset[str]  # in lower case
    has_tls: bool = False
    proxy_https: bool = False  # a proxy in front ends TLS, and says whom it asks for
    pace: Pace = field(default_factory=Pace)

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes by which browsers name it."""
        return ("https",) if self.has_tls else ("https", "http") if self.proxy_https else ("http",)

    @property
    def is_secure(self) -> bool:
        """Whether browsers may send the cookie over TLS alone."""
        return self.has_tls or self.proxy_https

    def client_of(self, request: Request) -> Client:
        """Return where a request comes from."""
        address = request.client.host if request.client else ""
        if self.proxy_https:
            said = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
            with contextlib.suppress(ValueError):
                address = str(ipaddress.ip_address(said))
        return Client(address, request.headers.get("user-agent", ""))
