"""The commands of the pages that train nothing run as printed, and print what the pages say."""

from __future__ import annotations

import pytest

from tests.pages import NewUser, chain, name_of, new_user_at, run_page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def user(tmp_path_factory) -> NewUser:
    return new_user_at(tmp_path_factory.mktemp("user"), trains=False)


@pytest.mark.parametrize("page", chain(trains=False), ids=name_of)
def test_page_runs_as_printed_and_prints_what_comes(page, user):
    run_page(page, user)
