"""The back-off of objects that a server does not give."""

from __future__ import annotations

import pytest

from edge.errors import SyncError
from gallery_sync.transport.errors import (
    BackOffError,
    BudgetError,
    DeliveryError,
    InterruptedTransferError,
    ReleaseError,
    StorageError,
    TransferError,
)
from gallery_sync.transport.retry_ledger import (
    Failures,
    FailuresInMemory,
    RetryLedger,
    RetryPolicy,
    is_counted,
    next_failure,
)

KEY = "a" * 64
GONE = TransferError("gone", 404)


def test_n9_wait_doubles_to_a_day_and_then_the_object_is_given_up():
    failures, waits = None, []
    for _ in range(14):
        failures = next_failure(failures, GONE, 0.0, 1.0, RetryPolicy())
        waits.append(failures.again_at_s)
    assert waits == [60.0 * 2**n for n in range(11)] + [86400.0] * 3
    assert failures.count == 14


def test_n11_jitter_halves_the_wait_at_most():
    waits = [next_failure(None, GONE, 0.0, jitter, RetryPolicy()).again_at_s for jitter in (0.0, 0.5, 1.0)]
    assert waits == [30.0, 45.0, 60.0]


@pytest.mark.parametrize(("asked_s", "wait_s"), [(None, 60.0), (0.0, 60.0), (300.0, 300.0), (1e9, 86400.0)])
def test_n9_retry_after_lengthens_the_wait(asked_s, wait_s):
    error = TransferError("busy", 429, asked_s)
    assert next_failure(None, error, 1000.0, 1.0, RetryPolicy()) == Failures(1, 1000.0 + wait_s, "busy")


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (TransferError("x", 404), True),
        (TransferError("x", 403), True),
        (TransferError("x", 500), True),
        (InterruptedTransferError("x", 503), True),
        (ReleaseError("x"), True),
        (DeliveryError("x"), True),
        (TransferError("x", 401), False),
        (TransferError("x", 407), False),
        (TransferError("x", 511), False),
        (TransferError("x", 204), False),
        (TransferError("x"), False),
        (InterruptedTransferError("x"), False),
        (StorageError("x"), False),
        (BudgetError("x"), False),
        (SyncError("x"), False),
    ],
)
def test_only_the_servers_faults_count(error, counted):
    assert is_counted(error) is counted


def ledger(store: FailuresInMemory, clock: list[float]) -> RetryLedger:
    return RetryLedger(store, now_s=lambda: clock[0], jitter=lambda: 1.0)


def test_object_waits_over_a_restart_and_is_forgotten_when_it_comes():
    store, clock = FailuresInMemory(), [1e9]
    ledger(store, clock).failed(KEY, GONE)
    with pytest.raises(
        BackOffError, match="not requested after 1 failures, the next attempt is at 2001-09-09T01:47:40"
    ):
        ledger(store, clock).require(KEY, "model")
    ledger(store, clock).require("b" * 64, "another")
    clock[0] += 60
    ledger(store, clock).require(KEY, "model")
    ledger(store, clock).succeeded(KEY)
    assert store.objects == {}


def test_given_up_object_says_so():
    store, clock = FailuresInMemory(), [1e9]
    for _ in range(12):
        ledger(store, clock).failed(KEY, GONE)
    with pytest.raises(BackOffError, match=r"model: given up after 12 failures, .*; the last one: gone") as caught:
        ledger(store, clock).require(KEY, "model")
    assert caught.value.given_up


def test_clock_that_is_set_back_holds_nothing_back():
    store, clock = FailuresInMemory(), [1e9]
    ledger(store, clock).failed(KEY, GONE)
    clock[0] = 0.0
    ledger(store, clock).require(KEY, "model")


def test_failure_that_is_not_the_servers_leaves_the_ledger_alone():
    store, clock = FailuresInMemory(), [1e9]
    ledger(store, clock).failed(KEY, InterruptedTransferError("no network"))
    assert store.objects == {}
