"""When an object that a server does not give may be requested again, over restarts.

Rules this module keeps:
1. Only what a server answers counts: a missing object, an error, or bytes with a wrong hash. A network that is down,
   a login page and a full disk do not; they pass without a request to the server.
2. The wait doubles from a minute to a day, with jitter, so that a fleet does not come at once. A server that says
   Retry-After is left alone for that time, at most a day.
3. After twelve failures the object is given up: reported so, and requested once a day, so that a server that is mended
   is noticed. A release with another object is not held back. An object that arrived and is of no use is given up at
   once: another download gives the same.
4. A clock that is set back holds nothing back: a wait that is longer than the longest has passed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

from gallery_sync.transport.errors import BackOffError, ReleaseError, TransferError

_NO_ANSWER_OF_THE_SERVER = {401, 407, 511}  # credentials, and those of a network in between
_FIRST_ERROR = 400


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How an object is retried."""

    first_wait_s: float = 60.0
    longest_wait_s: float = 86400.0
    most_failures: int = 12  # then the object is given up


@dataclass(frozen=True, slots=True)
class Failures:
    """What happened to one object."""

    count: int
    again_at_s: float  # Unix time
    reason: str  # of the last one


class FailureStore(Protocol):
    """Stores the failures of each object, so that they survive a restart."""

    def failures(self, sha256: str) -> Failures | None:
        """Return those of an object; None if there are none."""
        ...

    def put_failures(self, sha256: str, failures: Failures | None) -> None:
        """Replace those of an object; None: forget them."""
        ...


class FailuresInMemory:
    """Failures that the process forgets when it ends, for a manual pull."""

    def __init__(self) -> None:
        self.objects: dict[str, Failures] = {}

    def failures(self, sha256: str) -> Failures | None:
        """Return those of an object."""
        return self.objects.get(sha256)

    def put_failures(self, sha256: str, failures: Failures | None) -> None:
        """Replace those of an object."""
        if failures is None:
            self.objects.pop(sha256, None)
        else:
            self.objects[sha256] = failures


def next_failure(
    before: Failures | None, error: ReleaseError | TransferError, now_s: float, jitter: float, policy: RetryPolicy
) -> Failures:
    """Return the failures of an object after one more.

    Args:
        before: those until now.
        error: what happened.
        now_s: Unix time.
        jitter: 0..1.
        policy: how it is retried.
    """
    count = before.count + 1 if before else 1
    wait_s = policy.longest_wait_s
    if count < policy.most_failures:
        wait_s = min(policy.longest_wait_s, policy.first_wait_s * 2.0 ** (count - 1))
    wait_s *= 0.5 + jitter / 2
    asked_s = error.retry_after_s if isinstance(error, TransferError) and error.retry_after_s else 0.0
    return Failures(count, now_s + min(max(wait_s, asked_s), policy.longest_wait_s), str(error))


def is_counted(error: Exception) -> bool:
    """Return whether an error is one of the server or of its object."""
    if isinstance(error, TransferError):
        status = error.status
        return status is not None and status >= _FIRST_ERROR and status not in _NO_ANSWER_OF_THE_SERVER
    return isinstance(error, ReleaseError)


class RetryLedger:
    """Remembers the objects that a server did not give."""

    def __init__(
        self,
        store: FailureStore,
        *,
        now_s: Callable[[], float],
        jitter: Callable[[], float],
        policy: RetryPolicy = RetryPolicy(),
    ) -> None:
        """Use a store.

        Args:
            store: of the failures.
            now_s: returns the Unix time.
            jitter: returns a random number, 0..1.
            policy: how objects are retried.
        """
        self._store = store
        self._now_s = now_s
        self._jitter = jitter
        self._policy = policy

    def require(self, sha256: str, name: str) -> None:
        """Check that an object may be requested now.

        Raises:
            BackOffError: not yet.
        """
        found = self._store.failures(sha256)
        if found is None:
            return
        wait_s = found.again_at_s - self._now_s()
        if not 0 < wait_s <= self._policy.longest_wait_s:
            return
        given_up = found.count >= self._policy.most_failures
        again_at = datetime.fromtimestamp(found.again_at_s, timezone.utc)
        raise BackOffError(
            f"{name}: {'given up' if given_up else 'not requested'} after {found.count} failures, the next attempt is "
            f"at {again_at.isoformat(timespec='seconds')}; the last one: {found.reason}",
            again_at,
            given_up=given_up,
        )

    def failed(self, sha256: str, error: ReleaseError | TransferError) -> None:
        """Count a failure, if it is one of the server."""
        if is_counted(error):
            before = self._store.failures(sha256)
            after = next_failure(before, error, self._now_s(), self._jitter(), self._policy)
            self._store.put_failures(sha256, after)

    def reject(self, sha256: str, reason: str) -> None:
        """Give up an object that arrived whole and is of no use, such as a delivery that does not make its file."""
        again_at_s = self._now_s() + self._policy.longest_wait_s
        self._store.put_failures(sha256, Failures(self._policy.most_failures, again_at_s, reason))

    def succeeded(self, sha256: str) -> None:
        """Forget the failures of an object."""
        if self._store.failures(sha256) is not None:
            self._store.put_failures(sha256, None)
