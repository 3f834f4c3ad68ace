"""The projection that is fitted to vectors: it keeps cosines, and the distance of what the vectors lack."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from trainer.models.networks import compress


def vectors(n, channels, rank, seed=0):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(rank, channels, generator=generator)
    return normalize(torch.randn(n, rank, generator=generator) @ basis)


@pytest.mark.parametrize(("n", "dim"), [(20, 60), (200, 60), (200, 200), (200, 240)])
def test_cosines_of_the_vectors_are_kept(n, dim):
    x = vectors(n, 200, 30)
    y = x @ compress(x, dim).T
    assert y.shape == (n, dim)
    assert torch.allclose(y @ y.T, x @ x.T, atol=0.02)


@pytest.mark.parametrize("n", [20, 200])
def test_unknown_vectors_do_not_become_like_known_ones(n):
    x, unknown = vectors(n, 400, 15), normalize(torch.randn(100, 400, generator=torch.Generator().manual_seed(9)))
    weight = compress(x, 180)
    before = (unknown @ x.T).max(dim=1).values
    after = (normalize(unknown @ weight.T) @ normalize(x @ weight.T).T).max(dim=1).values
    assert (after - before).abs().mean() < 0.06
    assert after.max() < before.max() + 0.15
