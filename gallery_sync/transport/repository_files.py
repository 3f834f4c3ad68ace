"""Transports: read a repository file from an offset, over HTTP or from a folder."""

from __future__ import annotations

import http.client
import itertools
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from edge.errors import SyncError
from edge.redact import redact_address
from gallery_sync.transport.addresses import MOST_REDIRECTS, Address, follow_redirect, parse_address
from gallery_sync.transport.errors import InterruptedTransferError, TransferError
from gallery_sync.transport.http_connection import Access, Connections, Response
from gallery_sync.transport.time_limits import MIN_BYTES_PER_S, WINDOW_S, Deadline, TimeLimits

if TYPE_CHECKING:
    from gallery_sync.transport.byte_budget import ByteBudget
    from gallery_sync.transport.rate_limit import RateLimit

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
_LONGEST_RETRY_AFTER_S = 86400.0


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a response."""

    offset: int  # offset of the first byte; 0 if the server ignores ranges
    length: int | None  # bytes that the server announced; None: it did not
    chunks: Iterator[bytes]  # raises InterruptedTransferError
    total: int | None = None  # size of the file, where the server says it with a range


class FolderTransport:
    """Reads a repository from a local folder. It costs no bytes of a budget, and has no rate limit."""

    budget: ByteBudget | None = None

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
        rate: RateLimit | None = None,
        budget: ByteBudget | None = None,
    ) -> None:
        """Use a web server.

        Args:
            base_url: http or https.
            timeout_s: longest time without a byte.
            access: how the operator lets the device reach the repository.
            min_bytes_per_s: lowest average rate of a body.
            window_s: time over which that rate is averaged.
            deadline: the end of the time that all requests together may take; None: no limit.
            rate: cap on the bytes per second of all bodies; None: no cap.
            budget: counts the bytes of all bodies; None: they are not counted.

        Raises:
            SyncError: the URL is invalid.
        """
        self._address = parse_address(base_url)
        self.base = str(self._address).rstrip("/")
        self.deadline = deadline or Deadline()
        self.budget = budget
        self._rate = rate
        self._access = access
        self._connections = Connections()
        self._limits = TimeLimits(timeout_s, min_bytes_per_s, window_s)

    @contextmanager
    def get(self, path: str, offset: int) -> Iterator[Body]:
        """Get a file from an offset, or from its start if the server ignores ranges.

        Raises:
            InterruptedTransferError: no connection, a timeout, a login page, or a server error that may pass.
            TransferError: another HTTP error, or an invalid response.
            SyncError: a redirect that is not allowed.
        """
        headers = {"Accept-Encoding": "identity", "User-Agent": "finesight"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with self._stored(), ExitStack() as stack:
            response, address = self._follow(self._address.child(path), headers, stack)
            _check_status(response, address)
            start, total = _offset(response, offset, str(address))
            chunks = self._limited(_chunks(response, str(address), self._rate.piece_bytes if self._rate else _CHUNK))
            yield Body(start, response.length, chunks if start else _refuse_web_page(chunks, str(address)), total)

    @contextmanager
    def _stored(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self.budget is not None:
                self.budget.flush()

    def _limited(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Count the bytes that arrive, and hold them back to the rate."""
        for chunk in chunks:
            if self.budget is not None:
                self.budget.spend(len(chunk))
            if self._rate is not None:
                self._rate.take(len(chunk))
            yield chunk

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
                response = stack.enter_context(
                    self._connections.request(address, headers, self._access, self._limits, self.deadline)
                )
            except (OSError, http.client.HTTPException) as error:
                raise InterruptedTransferError(f"{address}: no response: {_reason(error)}") from error
            yield response


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).encode("unicode_escape").decode()[:200]  # a broken answer is part of some of them


def _check_status(response: Response, address: Address) -> None:
    status = response.status
    if status in (http.HTTPStatus.OK, http.HTTPStatus.PARTIAL_CONTENT):
        return
    phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else ""
    text = f"{address}: the server answered HTTP {status} {phrase}".rstrip()
    if status == http.HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED:
        raise InterruptedTransferError(f"{text}: {_LOGIN_PAGE}", status)
    advice = f"; {_ADVICE[status]}" if status in _ADVICE else ""
    kind = InterruptedTransferError if status in _WORTH_RETRYING else TransferError
    raise kind(text + advice, status, retry_after(response.headers.get("Retry-After", ""), time.time()))


def retry_after(value: str, now_s: float) -> float | None:
    """Return the seconds of a Retry-After header, at most a day; None: it is absent or invalid.

    Args:
        value: a number of seconds, or a date as in RFC 9110 §5.6.7.
        now_s: Unix time.
    """
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return min(float(value), _LONGEST_RETRY_AFTER_S)
    try:
        wait_s = parsedate_to_datetime(value[:100]).timestamp() - now_s
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(0.0, wait_s), _LONGEST_RETRY_AFTER_S)


def _offset(response: Response, requested: int, where: str) -> tuple[int, int | None]:
    """Return the offset of the first byte of a body, and the size of the file where a range says it."""
    if (encoding := response.headers.get("Content-Encoding", "identity")).lower() != "identity":
        raise TransferError(
            f"{where}: the server sent content encoding {encoding[:40]!r}; turn compression off", response.status
        )
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0, None
    content_range = response.headers.get("Content-Range", "")
    match = re.match(r"bytes ([0-9]{1,19})-[0-9]{0,19}(?:/([0-9]{1,19}))?", content_range)
    if not match or int(match[1]) != requested:
        raise TransferError(
            f"{where}: found content range {content_range[:80]!r}, expected one from byte {requested}", response.status
        )
    return requested, int(match[2]) if match[2] else None


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


def _chunks(response: Response, where: str, piece_bytes: int) -> Iterator[bytes]:
    try:
        while chunk := response.read(piece_bytes):
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
    rate: RateLimit | None = None,
    budget: ByteBudget | None = None,
) -> FolderTransport | HttpTransport:
    """Choose the transport by the scheme of the URL.

    Args:
        base_url: http://, https:// or file://.
        timeout_s: longest time without a byte.
        access: how the operator lets the device reach the repository.
        min_bytes_per_s: lowest average rate of a body.
        deadline: the end of the time that all requests together may take; None: no limit.
        rate: cap on the bytes per second over HTTP; None: no cap.
        budget: counts the bytes over HTTP; None: they are not counted.

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
        return HttpTransport(
            base_url,
            timeout_s,
            access=access,
            min_bytes_per_s=min_bytes_per_s,
            deadline=deadline,
            rate=rate,
            budget=budget,
        )
    raise SyncError(f"{redact_address(base_url)}: found scheme {parts.scheme[:20]!r}, expected http, https or file")
