"""The errors of this room.

SyncError
├── TransferError                  a server or the network; `status` and `retry_after_s`: what HTTP answered
│   └── InterruptedTransferError   it may pass: another attempt may succeed
├── ReleaseError                   a release is wrong in itself: another attempt gives the same
│   └── DeliveryError              one delivery is: the whole file may still be right
│       └── WrongBaseError         the device has another file than the one that a residual was made for
├── StorageError                   the disk failed or is full
├── BudgetError                    the byte budget or the metered policy says no; `again_at` says when to try again
└── BackOffError                   an object failed too often to be requested now; `again_at` says when it is
"""

from __future__ import annotations

from datetime import datetime

from edge.errors import SyncError


class TransferError(SyncError):
    """A file could not be got from a server."""

    def __init__(self, message: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status  # of the HTTP answer; None: there was none
        self.retry_after_s = retry_after_s  # seconds that the server asks to wait; None: it did not say


class InterruptedTransferError(TransferError):
    """The network failed; another attempt may succeed."""


class ReleaseError(SyncError):
    """A release is wrong in itself: another attempt gives the same."""


class DeliveryError(ReleaseError):
    """A delivery is damaged or does not make its file. The whole file may be fetched instead, if the budget allows."""


class WrongBaseError(DeliveryError):
    """A residual was made for another base than the file that the device has."""


class StorageError(SyncError):
    """The disk failed while a download was stored."""


class BudgetError(SyncError):
    """Bytes that a download needs are not allowed now."""

    def __init__(self, message: str, again_at: datetime | None = None) -> None:
        super().__init__(message)
        self.again_at = again_at  # when it may be allowed; None: when the network changes or the operator allows more


class BackOffError(SyncError):
    """An object that a server did not give is not requested yet."""

    def __init__(self, message: str, again_at: datetime, *, given_up: bool) -> None:
        super().__init__(message)
        self.again_at = again_at  # UTC
        self.given_up = given_up  # it failed so often that it is requested once a day
