"""How python-tuf gets its files: through our transport, with its limits, deadlines, rate and rules for redirects.

Rules this module keeps:
1. Nothing is larger than `LARGEST_METADATA_BYTES`, whatever signed or unsigned metadata announces.
2. A missing file is not a network failure: python-tuf takes a missing file as "no newer root".
3. Bytes stay in memory. python-tuf would put them into a temporary file, which is memory on many devices, too.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

from edge.errors import SyncError
from gallery_sync.transport.download import Fetcher
from gallery_sync.transport.errors import TransferError

LARGEST_METADATA_BYTES = 5_000_000
_NOT_FOUND = 404


class TransportFetcher(FetcherInterface):
    """Fetches metadata for python-tuf. A URL is a path in the repository."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def _fetch(self, url: str) -> Iterator[bytes]:
        return iter([self.download_bytes(url, LARGEST_METADATA_BYTES)])

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """Get a file; python-tuf calls it for targets, which this program never asks for."""
        yield io.BytesIO(self.download_bytes(url, max_length))

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Get a small file.

        Raises:
            DownloadHTTPError: the server has no such file, or answered another HTTP error; its cause is our error.
            SyncError: the file is too large, or every attempt failed.
        """
        try:
            return self._fetcher.get_small(url.lstrip("/"), min(max_length, LARGEST_METADATA_BYTES))
        except SyncError as error:
            if (status := _status(error)) is None:
                raise
            raise DownloadHTTPError(str(error), status) from error


def _status(error: SyncError) -> int | None:
    """Return what an HTTP server answered, 404 for a file that a folder does not have; None: there was no answer."""
    if isinstance(error, TransferError) and error.status is not None:
        return error.status
    return _NOT_FOUND if isinstance(error.__cause__, FileNotFoundError) else None
