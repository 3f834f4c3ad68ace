"""SCDA on maps small enough to compute by hand."""

from __future__ import annotations

import pytest
import torch

from benchmarks.scda import Scda, largest_component, object_mask, selected_descriptors
from trainer.models.backbone import create_trunk


def mask_of(*rows: str) -> torch.Tensor:
    return torch.tensor([[[cell == "#" for cell in row] for row in rows]])


def trunk(strides=(8, 16)):
    torch.manual_seed(3)
    return create_trunk("mobilenetv4_conv_small_050", list(strides)).eval()


def test_largest_component_is_kept_and_others_are_removed():
    found = largest_component(mask_of("##...", ".....", "#.#..", "#..#.", "####."))
    assert torch.equal(found, mask_of(".....", ".....", "#.#..", "#..#.", "####."))


def test_components_of_a_batch_do_not_mix_and_an_empty_mask_stays_empty():
    masks = torch.cat([mask_of("#..", "..#", "..#"), mask_of("...", "...", "..."), mask_of("##.", "...", "..#")])
    expected = torch.cat([mask_of("...", "..#", "..#"), mask_of("...", "...", "..."), mask_of("##.", "...", "...")])
    assert torch.equal(largest_component(masks), expected)


def test_object_mask_is_where_summed_activation_exceeds_the_mean():
    feature = torch.zeros(1, 2, 3, 4)
    feature[0, 0, 1, 1:3] = 3.0
    feature[0, 1, 1, 1] = 1.0
    feature[0, 0, 0, 0] = 0.5  # the mean is 7.5 / 12
    assert torch.equal(object_mask(feature), mask_of("....", ".##.", "...."))


def test_negative_activations_do_not_hide_an_object():
    feature = torch.zeros(1, 2, 3, 4)
    feature[0, 0, 1, 1] = 3.0
    feature[0, 1, 1, 1] = -9.0
    assert torch.equal(object_mask(feature), mask_of("....", ".#..", "...."))


def test_constant_map_still_selects_one_cell():
    assert int(object_mask(torch.ones(1, 4, 3, 3)).sum()) == 1


def test_descriptors_use_selected_cells_only():
    feature = torch.tensor([[[[3.0, 1.0, 9.0]], [[0.0, 4.0, 9.0]]]])
    found = selected_descriptors(feature, torch.tensor([[[True, True, False]]]))
    average, largest = torch.tensor([2.0, 2.0]), torch.tensor([3.0, 4.0])
    expected = torch.cat([average / average.norm(), largest / largest.norm()]) / 2**0.5
    torch.testing.assert_close(found[0], expected)


def test_vector_length_per_variant_and_unit_norm():
    maps, x = trunk(), torch.rand(2, 3, 64, 96)
    shallow, deep = maps.channels
    lengths = {"scda": 2 * deep, "scda+": 2 * (deep + shallow), "scda_flip+": 4 * (deep + shallow)}
    for variant, length in lengths.items():
        vectors = Scda(maps, variant)(x)
        assert vectors.shape == (2, length)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_flipped_half_is_the_vector_of_the_mirrored_picture():
    maps, x = trunk(), torch.rand(2, 3, 64, 64)
    both = Scda(maps, "scda_flip+")(x)
    halves = [Scda(maps, "scda+")(picture) for picture in (x, x.flip(3))]
    torch.testing.assert_close(both, torch.cat(halves, dim=1) / 2**0.5)


def test_background_does_not_change_the_vector():
    class IdentityTrunk(torch.nn.Module):
        channels = (4,)

        def forward(self, x):
            return [x]

    generator = torch.Generator().manual_seed(0)
    feature = 0.1 * torch.rand((1, 4, 6, 6), generator=generator)
    feature[:, :, 2:4, 2:4] += 5.0
    other = feature.clone()
    other[:, :, 0] = 0.1 * torch.rand((1, 4, 6), generator=generator)
    torch.testing.assert_close(Scda(IdentityTrunk())(feature), Scda(IdentityTrunk())(other))


def test_scda_plus_requires_a_trunk_of_two_maps():
    with pytest.raises(ValueError, match="trunk of 1 map, expected two"):
        Scda(trunk([16]), "scda+")
