"""Fixtures that the tests of engines share."""

from __future__ import annotations

import pytest

from tests.sample_models import sums_model


@pytest.fixture
def path(tmp_path):
    """The file of a model that sums."""
    path = tmp_path / "model.onnx"
    path.write_bytes(sums_model())
    return path
