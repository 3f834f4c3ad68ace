"""Region confusion keeps pixels and neighbourhoods."""

from __future__ import annotations

import pytest
import torch

from trainer.data.augment import region_confusion, shuffled_positions


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("blocks", "neighbourhood"), [(4, 1), (7, 2), (5, 3)])
def test_a_block_moves_less_than_twice_the_neighbourhood(blocks, neighbourhood):
    home = torch.arange(blocks)
    for seed in range(30):
        rows, columns = shuffled_positions(blocks, neighbourhood, seeded(seed))
        assert (rows - home[:, None]).abs().max() < 2 * neighbourhood
        assert (columns - home[None, :]).abs().max() < 2 * neighbourhood


def test_the_shuffle_is_a_permutation():
    rows, columns = shuffled_positions(6, 2, seeded())
    assert sorted((rows * 6 + columns).flatten().tolist()) == list(range(36))


def test_without_cropping_every_pixel_is_kept():
    images = torch.arange(2 * 3 * 16 * 16, dtype=torch.float32).reshape(2, 3, 16, 16)
    confused = region_confusion(images, 4, 1, seeded(), crop=0.0)
    assert not torch.equal(images, confused)
    torch.testing.assert_close(confused.flatten(1).sort(dim=1).values, images.flatten(1).sort(dim=1).values)


def test_blocks_in_place_are_only_flipped():
    images = torch.rand(1, 1, 8, 8, generator=seeded(1))
    confused = region_confusion(images, 2, 0, seeded(2), crop=0.0)
    for y in (0, 4):
        for x in (0, 4):
            block, found = images[0, 0, y : y + 4, x : x + 4], confused[0, 0, y : y + 4, x : x + 4]
            assert any(torch.equal(found, block.flip(dims)) for dims in ((), (0,), (1,), (0, 1)))


def test_cropping_stays_within_the_range_of_the_picture():
    images = torch.rand(2, 3, 32, 32, generator=seeded(3))
    confused = region_confusion(images, 4, 1, seeded(4), crop=0.3)
    assert confused.shape == images.shape
    assert confused.min() >= images.min()
    assert confused.max() <= images.max()


def test_the_same_seed_gives_the_same_picture_and_another_seed_another():
    images = torch.rand(2, 3, 16, 16, generator=seeded(5))
    first = region_confusion(images, 4, 1, seeded(6))
    assert torch.equal(first, region_confusion(images, 4, 1, seeded(6)))
    assert not torch.equal(first, region_confusion(images, 4, 1, seeded(7)))
