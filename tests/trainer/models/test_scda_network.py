"""SCDA on maps small enough to compute by hand, its component against scipy's, and its whitening."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage

from edge.errors import TrainError
from edge.inference.onnxruntime_engine import open_session_from_bytes
from trainer.models.backbone import create_trunk
from trainer.models.free_methods import AGGREGATIONS
from trainer.models.scda_network import FreeEmbedder, largest_component, most_steps, object_mask


def mask_of(*rows: str) -> torch.Tensor:
    return torch.tensor([[[float(cell == "#") for cell in row] for row in rows]])


class PooledTrunk(torch.nn.Module):
    """A trunk of two maps: the picture, pooled, of three channels; and pooled more, of six."""

    channels, whole = (3, 6), False

    def forward(self, x):
        deep = torch.nn.functional.avg_pool2d(x, 16)
        return [torch.nn.functional.avg_pool2d(x, 8), torch.cat([deep, deep.flip(1)], dim=1)]


class IdentityTrunk(torch.nn.Module):
    """Pictures are the maps, of four channels."""

    channels, whole = (4,), False

    def forward(self, x):
        return [x]


def test_largest_component_is_kept_and_others_are_removed():
    found = largest_component(mask_of("##...", ".....", "#.#..", "#..#.", "####."))
    assert torch.equal(found, mask_of(".....", ".....", "#.#..", "#..#.", "####."))


def test_components_of_a_batch_do_not_mix_and_an_empty_mask_stays_empty():
    masks = torch.cat([mask_of("#..", "..#", "..#"), mask_of("...", "...", "..."), mask_of("##.", "...", "..#")])
    expected = torch.cat([mask_of("...", "..#", "..#"), mask_of("...", "...", "..."), mask_of("##.", "...", "...")])
    assert torch.equal(largest_component(masks), expected)


def components_by_scipy(mask):
    """The largest component of a mask; of equal ones, that with the last cell."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = [(int((labels == n).sum()), int(np.flatnonzero(labels == n).max()), n) for n in range(1, count + 1)]
    return labels == max(sizes)[2] if sizes else np.zeros(mask.shape, bool)


class _Component(torch.nn.Module):
    def forward(self, mask):
        return largest_component(mask)


def exported(masks):
    """What ONNX Runtime makes of masks, from the exported graph, whose number of steps is fixed."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a deprecated exporter, see quantize.export
        names = {"input_names": ["mask"], "output_names": ["kept"], "dynamic_axes": {"mask": {0: "n"}}}
        torch.onnx.export(_Component(), (masks[:1],), file, opset_version=17, dynamo=False, **names)
    session = open_session_from_bytes(file.getvalue(), "component")
    return torch.from_numpy(session.run(masks.numpy())[0])


@pytest.mark.parametrize("shape", [(7, 7), (6, 11), (1, 9)])
def test_component_is_that_of_scipy(shape):
    rng = np.random.default_rng(0)
    masks = np.concatenate([rng.random((60, *shape)) < density for density in (0.2, 0.4, 0.55)])
    expected = np.stack([components_by_scipy(mask) for mask in masks])
    given = torch.from_numpy(masks.astype(np.float32))
    assert np.array_equal(largest_component(given).numpy() > 0, expected)
    assert np.array_equal(exported(given).numpy() > 0, expected)


def snake(height, width):
    """A path that winds through the whole mask, one cell wide."""
    rows = [["#" * width, "." * (width - 1) + "#", "#" * width, "#" + "." * (width - 1)][y % 4] for y in range(height)]
    return mask_of(*rows)


def steps_to_fill(mask):
    """How many steps the last cell of a component is from its farthest one."""
    reached, steps = torch.zeros_like(mask), 0
    reached[0, -1, -1] = 1.0
    while not torch.equal(reached, mask):
        reached = torch.nn.functional.max_pool2d(reached, 3, 1, 1) * mask
        steps += 1
    return steps


def test_the_longest_path_is_walked_to_its_end():
    longest = snake(9, 12)
    assert torch.equal(exported(longest), longest)
    assert 50 < steps_to_fill(longest) <= most_steps(9, 12) == 59


def test_map_of_too_many_cells_is_refused():
    with pytest.raises(TrainError, match="a map of 64x64 cells is too large"):
        largest_component(torch.ones(1, 64, 64))


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


def test_mask_is_never_empty():
    assert torch.equal(object_mask(torch.ones(1, 4, 3, 3)), torch.ones(1, 3, 3))
    feature = torch.ones(1, 1, 2, 3)
    feature[0, 0, 0, 0] = 5.0
    assert torch.equal(object_mask(feature, mask_of("...", "..#")), mask_of("#..", "..."))


def test_descriptors_use_selected_cells_only():
    feature = torch.tensor([[[[3.0, 1.0, 9.0]], [[0.0, 4.0, 9.0]]]])
    found = FreeEmbedder(IdentityTrunk(), "scda")._pooled(feature, torch.tensor([[[1.0, 1.0, 0.0]]]))
    average, largest = torch.tensor([2.0, 2.0]), torch.tensor([3.0, 4.0])
    expected = torch.cat([average / average.norm(), largest / largest.norm()]) / 2**0.5
    torch.testing.assert_close(found[0], expected)


def test_vector_length_per_method_and_unit_norm():
    lengths = {"average": 6, "max": 6, "average_max": 12, "scda_average": 6, "scda_max": 6, "scda": 12}
    lengths |= {"scda+": 2 * (6 + 3), "scda_flip+": 4 * (6 + 3)}
    assert set(lengths) == set(AGGREGATIONS)
    for method, length in lengths.items():
        network = FreeEmbedder(PooledTrunk(), method)
        vectors = network(torch.rand(2, 3, 32, 64))
        assert vectors.shape == (2, network.inputs) == (2, length)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


@torch.no_grad()
def test_whole_trunk_gives_its_last_map_and_the_one_before():
    torch.manual_seed(3)
    whole = create_trunk("mobilenetv4_conv_small_050").eval()
    before, last = FreeEmbedder(whole, "scda+")._maps(x := torch.rand(1, 3, 32, 64))
    torch.testing.assert_close(last, whole(x)[-1])
    assert (before.shape, last.shape) == ((1, 48, 2, 4), (1, 480, 1, 2))  # strides of 16 and 32


def test_flipped_half_is_the_vector_of_the_mirrored_picture():
    x = torch.rand(2, 3, 64, 64)
    both = FreeEmbedder(PooledTrunk(), "scda_flip+")(x)
    halves = [FreeEmbedder(PooledTrunk(), "scda+")(picture) for picture in (x, x.flip(3))]
    torch.testing.assert_close(both, torch.cat(halves, dim=1) / 2**0.5)


def test_background_changes_only_the_vector_of_all_cells():
    generator = torch.Generator().manual_seed(0)
    feature = 0.1 * torch.rand((1, 4, 6, 6), generator=generator)
    feature[:, :, 2:4, 2:4] += 5.0
    other = feature.clone()
    other[:, :, 0] = 0.1 * torch.rand((1, 4, 6), generator=generator)
    for method in ("scda_average", "scda_max", "scda"):
        network = FreeEmbedder(IdentityTrunk(), method)
        torch.testing.assert_close(network(feature), network(other))
    network = FreeEmbedder(IdentityTrunk(), "average")
    assert not torch.allclose(network(feature), network(other), atol=1e-6)


def test_whitened_vectors_are_uncorrelated():
    network = FreeEmbedder(PooledTrunk(), "scda", dim=8)
    given = torch.nn.functional.normalize(torch.randn(200, network.inputs) + 3.0, dim=1)
    network.fit_whitening(given)
    whitened = torch.einsum("nc,dc->nd", given - network.mean, network.axes)
    torch.testing.assert_close(whitened.T.cov(), torch.eye(8), atol=1e-3, rtol=0)
    torch.testing.assert_close(network.project(given).norm(dim=1), torch.ones(200))
    with pytest.raises(TrainError, match="more than 8 pictures, but there are 8"):
        network.fit_whitening(given[:8])


def test_whitening_of_copies_is_finite():
    network = FreeEmbedder(PooledTrunk(), "scda", dim=8)
    network.fit_whitening(torch.rand(3, network.inputs)[torch.arange(30) % 3])
    assert network.axes.isfinite().all()
    assert network.axes.abs().max() < 1e4


def test_what_a_backbone_cannot_give_is_said():
    with pytest.raises(TrainError, match="to two strides, such as"):
        FreeEmbedder(IdentityTrunk(), "scda+")
    with pytest.raises(TrainError, match="dim is 9, but scda gives 8 numbers"):
        FreeEmbedder(IdentityTrunk(), "scda", dim=9)
