"""Upload taught items for training: PUT each one to a URL, and retry until the server accepts it.

An item whose upload fails stays on the device. The next try comes after a jittered delay that doubles up to ten
minutes. Nothing else waits for an upload.
"""

from __future__ import annotations

import http.client
import logging
import random
import threading
import urllib.error
import urllib.request
from collections.abc import Callable

from edge.errors import TaughtItemsError
from edge.kiosk.taught_store import TaughtStore
from edge.supervised_thread import SupervisedThread
from edge.types import Counts

log = logging.getLogger(__name__)

_TIMEOUT_S = 30.0
_MIN_BACKOFF_S, _MAX_BACKOFF_S = 5.0, 600.0

Put = Callable[[str, bytes], None]  # file name, zip; raises TaughtItemsError


def http_put(url: str, token: str | None) -> Put:
    """Return a function that uploads a file to a folder over HTTP: any server, bucket or WebDAV that accepts PUT.

    Raises:
        TaughtItemsError: by the returned function: the server is unreachable or refused the file. The message does not
            contain the URL, which may hold a secret.
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
            raise TaughtItemsError(f"upload of {name}: the server answered with HTTP status {error.code}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:  # no server, no HTTP, no URL
            raise TaughtItemsError(f"upload of {name}: {getattr(error, 'reason', type(error).__name__)}") from error

    return put


def upload_pending(store: TaughtStore, put: Put, counts: Counts) -> bool:
    """Upload all pending items; stop at the first failure and return whether all uploads succeeded."""
    for item in store.pending_upload():
        try:
            put(f"{item.item_id}.zip", store.zip_item(item))
            store.mark_uploaded(item)
        except TaughtItemsError as error:
            counts.add("taught_uploads", result="failed")
            log.warning("%s; retrying later", error)
            return False
        counts.add("taught_uploads", result="taken")
        log.info("uploaded %s %r", item.item_id, item.label)
    return True


def backoff_s(failures: int, random_share: Callable[[], float]) -> float:
    """Return how long to wait after a number of failures in a row; half of it is jitter from a value in 0..1."""
    longest = min(_MIN_BACKOFF_S * 2.0 ** min(failures, 20), _MAX_BACKOFF_S)
    return longest * (0.5 + 0.5 * random_share())


class Uploader:
    """The thread that uploads: `with Uploader(...) as uploader: uploader.wake()`."""

    def __init__(self, store: TaughtStore, put: Put, counts: Counts) -> None:
        self._store, self._put, self._counts = store, put, counts
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = SupervisedThread("taught-upload", self._run, counts)

    def __enter__(self) -> Uploader:  # noqa: PYI034  Self is not in Python 3.10
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.stop(0)  # does not wait for a transfer that hangs: the thread is a daemon

    def wake(self) -> None:
        """Upload now: an item was taught."""
        self._wake.set()

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            self._wake.clear()
            failures = 0 if upload_pending(self._store, self._put, self._counts) else failures + 1
            self._wake.wait(backoff_s(failures, random.random) if failures else None)
