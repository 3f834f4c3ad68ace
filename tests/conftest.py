"""Fixtures that all tests share."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest

from edge.messaging.outbox import Outbox
from edge.telemetry.counters import Counters
from tests.once import FOLDER_OF_THE_RUN

LONG_FIRST = (  # so that no core waits for them in the end
    "tests/test_docs_training.py",
    "tests/test_docs_devices.py",
    "tests/integration/test_talks_to_nobody.py",
    "tests/integration/console/test_end_to_end.py",
    "tests/integration/test_device.py",
    "tests/integration/test_remote.py",
    "tests/integration/test_wheel.py",
    "tests/integration/",
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of what all workers of this run share; it goes with the run."""
    if not hasattr(config, "workerinput"):
        folder = os.environ[FOLDER_OF_THE_RUN] = tempfile.mkdtemp(prefix="finesight-test-run-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


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
