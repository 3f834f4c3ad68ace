"""The HTTP door: one GET from an offset, by http, https or from a folder."""

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
    """The network failed in a way that another try may get past."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a server sends."""

    offset: int  # of the first byte; 0 where the server ignores ranges
    chunks: Iterator[bytes]  # raises InterruptedTransferError


class FolderTransport:
    """Reads a repository folder that is mounted here."""

    def __init__(self, folder: Path) -> None:
        self.base = str(folder)
        self._folder = folder

    @contextmanager
    def get(self, path: str, offset: int) -> Iterator[Body]:
        """Read a file from an offset.

        Raises:
            SyncError: there is no such file.
        """
        try:
            file = (self._folder / path).open("rb")
        except OSError as error:
            raise SyncError(f"{self._folder / path}: cannot be read: {error.strerror}") from error
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
        """Get a file from an offset, or from its start where the server will not.

        Raises:
            InterruptedTransferError: no connection, no bytes in time, or a server error.
            SyncError: the server has no such file or answers nonsense.
        """
        url = f"{self.base}/{path}"
        headers = {"Accept-Encoding": "identity", "User-Agent": "finesight"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - open_transport checked the scheme
        try:
            response = urllib.request.urlopen(request, timeout=self._timeout_s)  # noqa: S310 - as above
        except urllib.error.HTTPError as error:
            error.close()
            kind = InterruptedTransferError if error.code in _WORTH_RETRYING else SyncError
            raise kind(f"{url}: found HTTP {error.code} {error.reason}, expected 200") from error
        except (OSError, http.client.HTTPException) as error:
            raise InterruptedTransferError(f"{url}: no answer: {getattr(error, 'reason', error)}") from error
        with response:
            yield Body(_offset(response, offset, url), _chunks(response, url))


def _offset(response: http.client.HTTPResponse, asked: int, url: str) -> int:
    if (encoding := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise SyncError(f"{url}: found content encoding {encoding!r}, expected none")
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0
    told = response.headers.get("Content-Range", "")
    if not (match := re.match(r"bytes (\d+)-", told)) or int(match[1]) != asked:
        raise SyncError(f"{url}: found content range {told!r}, expected one from byte {asked}")
    return asked


def _chunks(stream: BinaryIO | http.client.HTTPResponse, where: str) -> Iterator[bytes]:
    try:
        while chunk := stream.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise InterruptedTransferError(f"{where}: the transfer broke: {error}") from error


def open_transport(base_url: str, timeout_s: float = 20.0) -> FolderTransport | HttpTransport:
    """Choose by the scheme of the address.

    Args:
        base_url: http://, https:// or file://.
        timeout_s: without a byte.

    Raises:
        SyncError: another scheme.
    """
    parts = urlsplit(base_url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return FolderTransport(Path(url2pathname(parts.path)))
    if parts.scheme in ("http", "https") and parts.netloc:
        return HttpTransport(base_url, timeout_s)
    raise SyncError(f"{base_url}: found scheme {parts.scheme!r}, expected http, https or file")
