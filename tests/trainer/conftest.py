"""Fixtures that the tests of training share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Run torch in one thread, so that two trainings can be compared bit by bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
