"""What tests of trainings share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Sums in one order, so that two trainings can be compared bit by bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
