"""Upload files: PUT each one to a URL, and retry until the server accepts it.

Rules this module keeps:
1. A file whose upload fails stays on the device. The next try comes with the next new file, or after a jittered delay
   that doubles up to ten minutes. Nothing else waits for an upload.
2. A file that the server refuses for what it is, such as one that is too large, does not hold up the others.
3. No message contains the URL, which may hold a secret.
"""

from __future__ import annotations

import http.client
import logging
import random
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from edge.errors import FileRefusedError, FinesightError, UploadError
from edge.supervised_thread import SupervisedThread
from edge.types import Counts

log = logging.getLogger(__name__)

_TIMEOUT_S = 30.0
_MIN_BACKOFF_S, _MAX_BACKOFF_S = 5.0, 600.0
_OF_THE_FILE = frozenset({413, 415, 422})  # too large, not of a wanted type, not processable

Put = Callable[[str, bytes], None]  # file name, content; raises UploadError
Count = Callable[[Literal["taken", "failed", "refused"]], None]


@dataclass(frozen=True, slots=True)
class Upload:
    """One file to upload."""

    name: str
    what: str  # for the log
    read: Callable[[], bytes]  # raises FinesightError
    done: Callable[[], None]  # the server has it; raises FinesightError
    refused: Callable[[], None] = lambda: None  # the server will not take it; raises FinesightError


Pending = Callable[[], Iterable[Upload]]  # what waits now, the oldest first


def http_put(url: str, token: str | None) -> Put:
    """Return a function that uploads a zip file to a folder over HTTP: any server, bucket or WebDAV that accepts PUT.

    Raises:
        UploadError: by the returned function: the server is unreachable or refused the file.
    """

    def put(name: str, body: bytes) -> None:
        headers = {"Content-Type": "application/zip"} | ({"Authorization": f"Bearer {token}"} if token else {})
        base, mark, query = url.partition("?")  # the query may be a bucket's signature
        request = urllib.request.Request(  # noqa: S310  the configuration allows http and https only
            f"{base.rstrip('/')}/{name}{mark}{query}", data=body, headers=headers, method="PUT"
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
                pass
        except urllib.error.HTTPError as error:
            error.close()
            kind = FileRefusedError if error.code in _OF_THE_FILE else UploadError
            raise kind(f"upload of {name}: the server answered with HTTP status {error.code}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:  # no server, no HTTP, no URL
            raise UploadError(f"upload of {name}: {getattr(error, 'reason', type(error).__name__)}") from error

    return put


def upload_pending(pending: Pending, put: Put, count: Count) -> bool:
    """Upload everything that waits; stop at the first failure. Return whether the server took every file."""
    all_taken = True
    for upload in pending():
        try:
            is_taken = _upload(upload, put)
        except FinesightError as error:
            count("failed")
            log.warning("%s; retrying later", error)
            return False
        count("taken" if is_taken else "refused")
        all_taken = all_taken and is_taken
    return all_taken


def _upload(upload: Upload, put: Put) -> bool:
    """Upload one file; return whether the server took it or refused it for what it is."""
    try:
        put(upload.name, upload.read())
    except FileRefusedError as error:
        log.warning("%s; the other files go on", error)
        upload.refused()
        return False
    upload.done()
    log.info("uploaded %s", upload.what)
    return True


def backoff_s(failures: int, random_share: Callable[[], float]) -> float:
    """Return how long to wait after a number of failures in a row; half of it is jitter from a value in 0..1."""
    longest = min(_MIN_BACKOFF_S * 2.0 ** min(failures, 20), _MAX_BACKOFF_S)
    return longest * (0.5 + 0.5 * random_share())


class Uploader:
    """The thread that uploads: `with Uploader(...) as uploader: uploader.wake()`."""

    def __init__(self, name: str, pending: Pending, put: Put, count: Count, counts: Counts) -> None:
        """Prepare; entering the context starts the thread.

        Args:
            name: of the thread.
            pending: returns what waits.
            put: uploads one file.
            count: counts the uploads by result.
            counts: counts the restarts of the thread.
        """
        self._pending, self._put, self._count = pending, put, count
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = SupervisedThread(name, self._run, counts)

    def __enter__(self) -> Uploader:  # noqa: PYI034  Self is not in Python 3.10
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.stop(0)  # does not wait for a transfer that hangs: the thread is a daemon

    def wake(self) -> None:
        """Upload now: there is a new file."""
        self._wake.set()

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            self._wake.clear()
            failures = 0 if upload_pending(self._pending, self._put, self._count) else failures + 1
            self._wake.wait(backoff_s(failures, random.random) if failures else None)
