"""Bring what was taught to the trainer: PUT each thing to a URL, and again until it is taken.

The only door to urllib. A thing that is refused or cannot be delivered stays on the device and is tried again after a
jittered wait that doubles up to ten minutes; nothing waits for it.
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
from edge.types import Counts

log = logging.getLogger(__name__)

_TIMEOUT_S = 30.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 600.0

Put = Callable[[str, bytes], None]  # file name, zip; raises TaughtItemsError


def put_to(url: str, token: str | None) -> Put:
    """A way to a folder behind HTTP: any server, bucket or WebDAV that takes PUT.

    Raises:
        TaughtItemsError: raised by the way itself: not reachable, or refused. The URL may hold a secret: it is not named.
    """

    def put(name: str, body: bytes) -> None:
        headers = {"Content-Type": "application/zip"} | ({"Authorization": f"Bearer {token}"} if token else {})
        base, mark, query = url.partition("?")  # a bucket's signature
        request = urllib.request.Request(  # noqa: S310  the configuration takes http and https only
            f"{base.rstrip('/')}/{name}{mark}{query}", data=body, headers=headers, method="PUT"
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
                pass
        except urllib.error.HTTPError as error:
            error.close()
            raise TaughtItemsError(f"upload of {name}: found HTTP status {error.code}, expected 2xx") from error
        except (OSError, http.client.HTTPException, ValueError) as error:  # no server, no HTTP, no URL
            raise TaughtItemsError(f"upload of {name}: {getattr(error, 'reason', type(error).__name__)}") from error

    return put


def upload_pending(store: TaughtStore, put: Put, counts: Counts) -> bool:
    """Bring everything that waits; whether all of it arrived. Stops at the first that does not."""
    for item in store.pending():
        try:
            put(f"{item.item_id}.zip", store.package(item))
            store.note_uploaded(item)
        except TaughtItemsError as error:
            counts.add("taught_uploads", result="failed")
            log.warning("%s; it is tried again", error)
            return False
        counts.add("taught_uploads", result="taken")
        log.info("%s %r was uploaded", item.item_id, item.label)
    return True


def wait_s(failures: int, chance: Callable[[], float]) -> float:
    """How long to wait after so many failures in a row: half of it is chance, in 0..1."""
    longest = min(_FIRST_WAIT_S * 2.0 ** min(failures, 20), _LONGEST_WAIT_S)
    return longest * (0.5 + 0.5 * chance())


class Uploader:
    """The thread that uploads: `with Uploader(...) as uploader: uploader.wake()`."""

    def __init__(self, store: TaughtStore, put: Put, counts: Counts) -> None:
        self._store, self._put, self._counts = store, put, counts
        self._alarm, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="taught-upload", daemon=True)

    def __enter__(self) -> Uploader:  # noqa: PYI034  Self is not in Python 3.10
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._alarm.set()  # a transfer that hangs is left behind: the thread is a daemon

    def wake(self) -> None:
        """Something was taught."""
        self._alarm.set()

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            self._alarm.clear()
            failures = 0 if upload_pending(self._store, self._put, self._counts) else failures + 1
            self._alarm.wait(wait_s(failures, random.random) if failures else None)
