"""Galleries of a few thousand rows are large ones here, so that tests of lists are quick."""

from __future__ import annotations

import pytest

from edge.gallery import loaded_gallery, search

LISTS_FROM = 4096  # rows


@pytest.fixture(scope="package", autouse=True)
def lists_from_few_rows():
    """Build lists from fewer rows on than a device does."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (search, loaded_gallery):
            patch.setattr(module, "LISTS_FROM", LISTS_FROM)
        yield
