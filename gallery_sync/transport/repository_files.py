"""Transports: read a repository file from an offset, over HTTP or from a folder."""

from __future__ import annotations

import http.client
import itertools
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from edge.errors import SyncError
from edge.redact import redact_address
from gallery_sync.transport.addresses import MOST_REDIRECTS, Address, follow_redirect, parse_address
from gallery_sync.transport.http_connection import Access, Response, request
from gallery_sync.transport.time_limits import MIN_BYTES_PER_S, WINDOW_S, Deadline, InterruptedTransferError, TimeLimits

_CHUNK = 1 << 16
_WORTH_RETRYING = {204, 408, 425, 429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}
_ADVICE = {
    401: "check user and password in the URL",
    403: "check user and password in the URL, and the rights on the server",
    404: "check the URL; `edge-sync check` on the server finds missing files",
    407: "check user and password of the proxy",
    410: "check the URL",
}
_LOGIN_PAGE = "a login page of this network (captive portal)? Log in; the next pull goes on"
_HTML = re.compile(rb"\s*<(?:!doctype\s+html|!--|html|head|body|script|meta|title|\?xml)", re.IGNORECASE)
_SNIFFED_BYTES = 512


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a response."""

    offset: int  # offset of the first byte; 0 if the server ignores ranges
    length: int | None  # bytes that the server announced; None: it did not
    chunks: Iterator[bytes]  # raises InterruptedTransferError


class FolderTransport:
    """Reads a repository from a local folder."""

    def __init__(self, folder: Path, deadline: Deadline | None = None) -> None:
        self.base = str(folder)
        self.deadline = deadline or Deadline()
        self._folder = folder

    @contextmanager
    def get(self, path: str, offset: int) -> Iterator[Body]:
        """Read a file from an offset.

        Raises:
            SyncError: the file cannot be read.
        """
        where = self._folder / path
        try:
            file = os.fdopen(os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        except OSError as error:
            raise SyncError(f"{where}: cannot read: {error.strerror}") from error
        except ValueError as error:  # a NUL byte
            raise SyncError(f"{str(where)!r} is not a file name: {error}") from error
        with file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SyncError(f"{where}: is not a file; check the repository folder")
            file.seek(offset)
            yield Body(offset, None, _file_chunks(file, where))


class HttpTransport:
    """Reads a repository from a web server. The rules for redirects are in `gallery_sync.transport.addresses`."""

    def __init__(
        self,
        base_url: str,
        timeout_s: float = 20.0,
        *,
        access: Access = Access(),  # noqa: B008 - frozen
        min_bytes_per_s: float = MIN_BYTES_PER_S,
        window_s: float = WINDOW_S,
        deadline: Deadline | None = None,
    ) -> None:
        self._address = parse_address(base_url)
        self.base = str(self._address).rstrip("/")
        self.deadline = deadline or Deadline()
        self._access = access
        self._limits = TimeLimits(timeout_s, min_bytes_per_s, window_s)

    @contextmanager
    def get(self, path: str, offset: int) -> Iterator[Body]:
        """Get a file from an offset, or from its start if the server ignores ranges.

        Raises:
            InterruptedTransferError: no connection, a timeout, a login page, or a server error that may pass.
            SyncError: another HTTP error, an invalid response or a redirect that is not allowed.
        """
        headers = {"Accept-Encoding": "identity", "User-Agent": "finesight"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with ExitStack() as stack:
            response, address = self._follow(self._address.child(path), headers, stack)
            _check_status(response.status, address)
            start = _offset(response, offset, str(address))
            chunks = _chunks(response, str(address))
            yield Body(start, response.length, chunks if start else _refuse_web_page(chunks, str(address)))

    def _follow(self, address: Address, headers: dict[str, str], stack: ExitStack) -> tuple[Response, Address]:
        first = address
        for _ in range(MOST_REDIRECTS + 1):
            response = stack.enter_context(self._ask(address, headers))
            if response.status not in _REDIRECTS:
                return response, address
            address = follow_redirect(address, response.headers.get("Location", ""), self._access.allowed_hosts)
            stack.pop_all().close()
        raise SyncError(f"{first}: the server redirects more than {MOST_REDIRECTS} times; correct the server")

    @contextmanager
    def _ask(self, address: Address, headers: dict[str, str]) -> Iterator[Response]:
        """Map the errors of a request; those of its body are mapped by `_chunks`."""
        with ExitStack() as stack:
            try:
                response = stack.enter_context(request(address, headers, self._access, self._limits, self.deadline))
            except (OSError, http.client.HTTPException) as error:
                raise InterruptedTransferError(f"{address}: no response: {_reason(error)}") from error
            yield response


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).encode("unicode_escape").decode()[:200]  # a broken answer is part of some of them


def _check_status(status: int, address: Address) -> None:
    if status in (http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT):
        return
    phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else ""
    text = f"{address}: the server answered HTTP {status} {phrase}".rstrip()
    if status == http.HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED:
        raise InterruptedTransferError(f"{text}: {_LOGIN_PAGE}")
    advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
    raise (InterruptedTransferError if status in _WORTH_RETRYING else SyncError)(text + advice)


def _offset(response: Response, requested: int, where: str) -> int:
    if (encoding := response.headers.get("Content-Encoding", "identity")).lower() != "identity":
        raise SyncError(f"{where}: the server sent content encoding {encoding[:40]!r}; turn compression off")
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    content_range = response.headers.get("Content-Range", "")
    if not (match := re.match(r"bytes ([0-9]{1,19})-", content_range)) or int(match[1]) != requested:
        raise SyncError(f"{where}: found content range {content_range[:80]!r}, expected one from byte {requested}")
    return requested


def _refuse_web_page(chunks: Iterator[bytes], where: str) -> Iterator[bytes]:
    """Return the same chunks. Nothing that a repository holds starts as a web page does.

    Raises:
        InterruptedTransferError: a web page arrives.
    """
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= _SNIFFED_BYTES:
            break
    if _HTML.match(head.removeprefix(b"\xef\xbb\xbf")):
        raise InterruptedTransferError(f"{where}: found a web page, expected a file of the repository; {_LOGIN_PAGE}")
    return itertools.chain([head] if head else [], chunks)


def _chunks(response: Response, where: str) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except InterruptedTransferError as error:
        raise InterruptedTransferError(f"{where}: the transfer was interrupted: {error}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: a chunk size that is no number
        raise InterruptedTransferError(f"{where}: the transfer was interrupted: {_reason(error)}") from error


def _file_chunks(file: BinaryIO, where: Path) -> Iterator[bytes]:
    try:
        while chunk := file.read(_CHUNK):
            yield chunk
    except OSError as error:
        raise InterruptedTransferError(f"{where}: cannot read: {error.strerror}") from error


def open_transport(
    base_url: str,
    timeout_s: float = 20.0,
    *,
    access: Access = Access(),  # noqa: B008 - frozen
    min_bytes_per_s: float = MIN_BYTES_PER_S,
    deadline: Deadline | None = None,
) -> FolderTransport | HttpTransport:
    """Choose the transport by the scheme of the URL.

    Args:
        base_url: http://, https:// or file://.
        timeout_s: longest time without a byte.
        access: how the operator lets the device reach the repository.
        min_bytes_per_s: lowest average rate of a body.
        deadline: the end of the time that all requests together may take; None: no limit.

    Raises:
        SyncError: the URL is invalid or has another scheme.
    """
    try:
        parts = urlsplit(base_url)
    except ValueError as error:
        raise SyncError(f"{redact_address(base_url)!r} is not a valid URL: check host and port") from error
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return FolderTransport(Path(url2pathname(parts.path)), deadline)
    if parts.scheme in ("http", "https") and parts.netloc:
        return HttpTransport(base_url, timeout_s, access=access, min_bytes_per_s=min_bytes_per_s, deadline=deadline)
    raise SyncError(f"{redact_address(base_url)}: found scheme {parts.scheme[:20]!r}, expected http, https or file")
