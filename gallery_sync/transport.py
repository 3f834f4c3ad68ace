"""Transports: read a repository file from an offset, over HTTP or from a folder. The only module that uses HTTP."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from edge.errors import SyncError

_CHUNK = 1 << 16
_WORTH_RETRYING = {408, 425, 429, 500, 502, 503, 504}


class InterruptedTransferError(SyncError):
    """The network failed; another attempt may succeed."""


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a response."""

    offset: int  # offset of the first byte; 0 if the server ignores ranges
    chunks: Iterator[bytes]  # raises InterruptedTransferError


class FolderTransport:
    """Reads a repository from a local folder."""

    def __init__(self, folder: Path) -> None:
        self.base = str(folder)
        self._folder = folder

    @contextmanager
    def get(self, path: str, offset: int) -> Iterator[Body]:
        """Read a file from an offset.

        Raises:
            SyncError: the file cannot be read.
        """
        try:
            file = (self._folder / path).open("rb")
        except OSError as error:
            raise SyncError(f"{self._folder / path}: cannot read: {error.strerror}") from error
        except ValueError as error:  # a NUL byte
            raise SyncError(f"{str(self._folder / path)!r} is not a file name: {error}") from error
        with file:
            file.seek(offset)
            yield Body(offset, _chunks(file, path))


class HttpTransport:
    """Reads a repository from a web server."""

    def __init__(self, base_url: str, timeout_s: float) -> None:
        self.base = base_url.rstrip("/")
        self._timeout_s = timeout_s

    @contextmanager
    def get(self, path: str, offset: int) -> Iterator[Body]:
        """Get a file from an offset, or from its start if the server ignores ranges.

        Raises:
            InterruptedTransferError: no connection, a timeout, or a server error that may pass.
            SyncError: another HTTP error, an invalid response, or an invalid URL.
        """
        url = f"{self.base}/{path}"
        headers = {"Accept-Encoding": "identity", "User-Agent": "finesight"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            request = urllib.request.Request(url, headers=headers)  # noqa: S310 - open_transport checked the scheme
            response = urllib.request.urlopen(request, timeout=self._timeout_s)  # noqa: S310 - as above
        except urllib.error.HTTPError as error:
            error.close()
            kind = InterruptedTransferError if error.code in _WORTH_RETRYING else SyncError
            raise kind(f"{url}: the server answered HTTP {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise InterruptedTransferError(f"{url}: no response: {getattr(error, 'reason', error)}") from error
        except ValueError as error:  # characters that a request cannot hold
            raise SyncError(f"{url!r} is not a valid URL: {error}") from error
        with response:
            yield Body(_offset(response, offset, url), _chunks(response, url))


def _offset(response: http.client.HTTPResponse, requested: int, url: str) -> int:
    if (encoding := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise SyncError(f"{url}: the server sent content encoding {encoding!r}; turn compression off")
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    content_range = response.headers.get("Content-Range", "")
    if not (match := re.match(r"bytes ([0-9]{1,19})-", content_range)) or int(match[1]) != requested:
        raise SyncError(f"{url}: found content range {content_range!r}, expected one from byte {requested}")
    return requested


def _chunks(stream: BinaryIO | http.client.HTTPResponse, where: str) -> Iterator[bytes]:
    try:
        while chunk := stream.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise InterruptedTransferError(f"{where}: the transfer was interrupted: {error}") from error


def open_transport(base_url: str, timeout_s: float = 20.0) -> FolderTransport | HttpTransport:
    """Choose the transport by the scheme of the URL.

    Args:
        base_url: http://, https:// or file://.
        timeout_s: longest time without a byte.

    Raises:
        SyncError: the URL is invalid or has another scheme.
    """
    try:
        parts = urlsplit(base_url)
    except ValueError as error:
        raise SyncError(f"{base_url!r} is not a valid URL: {error}") from error
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return FolderTransport(Path(url2pathname(parts.path)))
    if parts.scheme in ("http", "https") and parts.netloc:
        return HttpTransport(base_url, timeout_s)
    raise SyncError(f"{base_url}: found scheme {parts.scheme!r}, expected http, https or file")
