"""One Chromium for the tests of a module."""

from __future__ import annotations

import pytest

from tests.console_browser import chromium


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser
