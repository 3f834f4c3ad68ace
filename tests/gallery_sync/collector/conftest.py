"""A fleet's server without threads."""

from __future__ import annotations

import pytest

from tests.gallery_sync.collector.collector_samples import Desk


@pytest.fixture
def desk(tmp_path):
    with Desk(tmp_path) as desk:
        yield desk
