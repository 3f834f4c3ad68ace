"""Fixtures that all tests share."""

from __future__ import annotations

import pytest

from edge.messaging.outbox import Outbox
from edge.telemetry.counters import Counters

LONG_FIRST = ("tests/test_docs.py", "tests/integration/")  # so that no core waits for them in the end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; pytest does not keep the order of arguments that overlap."""

    def rank(item: pytest.Item) -> int:
        return next((n for n, start in enumerate(LONG_FIRST) if item.nodeid.startswith(start)), len(LONG_FIRST))

    items.sort(key=rank)


@pytest.fixture
def counters():
    return Counters()


@pytest.fixture
def outbox(tmp_path, counters):
    with Outbox(tmp_path / "outbox.sqlite", counters) as outbox:
        yield outbox
