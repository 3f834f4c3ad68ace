"""A console without a server; each test makes a set of its own."""

from __future__ import annotations

import pytest

from console.settings import Settings
from console.web.serve import close_services, open_services


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    services = open_services(Settings(tmp_path_factory.mktemp("console")), None)
    yield services
    close_services(services)
