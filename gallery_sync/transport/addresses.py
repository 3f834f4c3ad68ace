"""Addresses of a repository, and the rules for redirects.

Rules this module keeps:
1. A redirect keeps the scheme or goes from http to https. Nothing but http and https is followed.
2. A redirect stays on its host, or goes to a host that the operator allowed.
3. User and password of an address are sent to its own host, scheme and port only; `http` to `https` on the same host
   keeps them.
4. No user, password or query of an address is ever part of a message: `str()` is redacted.
"""

from __future__ import annotations

import base64
from collections.abc import Container
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

from edge.errors import SyncError, one_line
from edge.redact import redact_address
from gallery_sync.transport.errors import InterruptedTransferError

MOST_REDIRECTS = 5
_SHOWN = 500  # characters of an address in a message
_PORTS = {"http": 80, "https": 443}
_KEPT = "/%:@!$&'()*+,;=~-._"  # characters of a path that are not escaped again


@dataclass(frozen=True, slots=True)
class Address:
    """One http or https address."""

    scheme: str  # http or https
    host: str  # lower case, an IPv6 address without brackets
    port: int
    path: str  # escaped, starts with /
    query: str  # escaped, without ?
    credentials: str | None  # user:password in base64; None: none

    def __str__(self) -> str:
        """Return the address without its secrets."""
        return one_line(redact_address(self.url[:_SHOWN]))

    @property
    def url(self) -> str:
        """The address without user and password."""
        return f"{self.scheme}://{self.host_header}{self.target}"

    @property
    def host_header(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def target(self) -> str:
        """Path and query, as in the first line of a request."""
        return self.path + (f"?{self.query}" if self.query else "")

    def child(self, path: str) -> Address:
        """Return the address of a file below this one; a query, such as a signature, stays."""
        return replace(self, path=f"{self.path.rstrip('/')}/{quote(path, safe=_KEPT)}")


def parse_address(text: str) -> Address:
    """Parse an http or https address.

    Raises:
        SyncError: it is not one.
    """
    shown = one_line(redact_address(text[:_SHOWN]))
    try:
        parts = urlsplit(text)
        port = parts.port
        host = (parts.hostname or "").rstrip(".").encode("idna").decode() if parts.hostname else ""
    except ValueError as error:  # an invalid port or a host that is no name; the message may hold a password
        raise SyncError(f"{shown!r} is not a valid URL; check host and port") from error
    if parts.scheme not in _PORTS or not host or any(not "!" <= character <= "~" for character in host):
        raise SyncError(f"{shown!r} is not a valid URL; expected http://HOST/PATH or https://HOST/PATH")
    credentials = None
    if parts.username is not None:
        pair = unquote_to_bytes(f"{parts.username}:{parts.password or ''}")
        credentials = base64.b64encode(pair).decode()
    try:
        path, query = quote(parts.path, safe=_KEPT), quote(parts.query, safe=_KEPT + "?")
    except UnicodeEncodeError as error:
        raise SyncError(f"{shown!r} is not a valid URL: a character is no Unicode text") from error
    return Address(parts.scheme, host, port or _PORTS[parts.scheme], path or "/", query, credentials)


def follow_redirect(address: Address, location: str, allowed_hosts: Container[str]) -> Address:
    """Return the address that a redirect leads to.

    Args:
        address: that was asked.
        location: the Location header of the answer.
        allowed_hosts: other hosts that redirects may lead to.

    Raises:
        InterruptedTransferError: it leads to another host, as a network's login page does.
        SyncError: it is invalid, or leads to a worse scheme.
    """
    try:
        joined = urljoin(address.url, location)
    except ValueError as error:
        raise SyncError(f"{address}: the server redirects to an invalid address") from error
    scheme = joined.partition(":")[0].lower()
    if scheme not in _PORTS or (address.scheme, scheme) == ("https", "http"):
        raise SyncError(
            f"{address}: the server redirects from {address.scheme} to {scheme[:20]!r}; expected {address.scheme} "
            "or better; correct the server or the URL"
        )
    there = replace(parse_address(joined), credentials=None)
    if there.host != address.host and there.host not in allowed_hosts:
        raise InterruptedTransferError(
            f"{address}: the server redirects to host {there.host[:80]!r}; if a login page of this network answers, "
            f"log in; if the host is yours, allow it: --allow-host {there.host[:80]}"
        )
    upgraded = (address.scheme, address.port, there.scheme, there.port) == ("http", 80, "https", 443)
    if there.host == address.host and (upgraded or (address.scheme, address.port) == (there.scheme, there.port)):
        return replace(there, credentials=address.credentials)
    return there
