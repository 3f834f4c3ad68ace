"""Fixtures that all tests share."""

from __future__ import annotations

import pytest

from edge.messaging.outbox import Outbox
from edge.telemetry.counters import Counters


@pytest.fixture
def counters():
    return Counters()


@pytest.fixture
def outbox(tmp_path, counters):
    with Outbox(tmp_path / "outbox.sqlite", counters) as outbox:
        yield outbox
