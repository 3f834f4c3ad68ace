"""Export and folding: the ONNX file gives the results of torch for camera bytes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edge.errors import QuantizeError
from edge.inference.engine import open_engine
from edge.manifest.model import Preprocess
from quantize.export import CameraInput, export_fp32, export_module
from quantize.network_spec import read_spec, spec_path
from tests.quantize_samples import network, preprocess
from trainer.models.networks import ModelCard, build_model, save_model
from trainer.models.timm_library import timm


def noise(width: int = 32, height: int = 32, count: int = 3) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["detector", "classifier", "embedder", "localiser"])
def test_exported_file_matches_torch_for_any_batch_size(kind, exported):
    net, spec = network(kind)
    batch = noise(spec.preprocess.width, spec.preprocess.height)
    with torch.no_grad():
        expected = CameraInput(net, spec.preprocess).eval()(torch.from_numpy(batch))
    expected = expected if isinstance(expected, list) else [expected]
    for want, got in zip(expected, open_engine(exported[kind]).run(batch), strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=1e-4)


def test_folding_is_exact_for_a_mean_of_one_whole_grey_level(exported):
    graph = onnx.load(str(exported["classifier"])).graph
    assert {"Mul", "Add"} & {node.op_type for node in graph.node} == set()
    assert [node.op_type for node in graph.node][:4] == ["Cast", "Transpose", "Sub", "Conv"]


def test_folding_a_colour_mean_changes_only_the_padded_border(tmp_path):
    net, spec = network("detector")
    spec = spec.model_copy(
        update={"preprocess": preprocess(width=64, height=48).model_copy(update={"mean": (0.485, 0.456, 0.406)})}
    )
    assert export_module(net, spec, tmp_path / "colour.onnx")
    batch = noise(64, 48, 1)
    with torch.no_grad():
        expected = CameraInput(net, spec.preprocess).eval()(torch.from_numpy(batch))[0].numpy()
    got = open_engine(tmp_path / "colour.onnx").run(batch)[0]
    np.testing.assert_allclose(got[..., 3:-3, 3:-3], expected[..., 3:-3, 3:-3], atol=1e-4)


def test_normalisation_stays_if_no_convolution_follows(tmp_path):
    net, spec = network("classifier")
    net = torch.nn.Sequential(torch.nn.AvgPool2d(1), net).eval()
    assert not export_module(net, spec, tmp_path / "pooled.onnx")
    assert "Mul" in {node.op_type for node in onnx.load(str(tmp_path / "pooled.onnx")).graph.node}


@pytest.mark.parametrize(("width", "height"), [(32, 32), (33, 47), (50, 20)])
def test_padding_that_depends_on_the_size_becomes_constant(tmp_path, width, height):
    _, spec = network("classifier")
    spec = spec.model_copy(update={"preprocess": preprocess(width=width, height=height)})
    torch.manual_seed(3)
    net = torch.nn.Sequential(
        timm.layers.create_conv2d(3, 8, 3, stride=2, padding="same"),
        torch.nn.ReLU(),
        timm.layers.create_conv2d(8, 8, 5, stride=2, padding="same", depthwise=True),
        timm.layers.create_conv2d(8, 4, 3, stride=3, padding="same"),
        torch.nn.Flatten(),
    ).eval()
    batch = noise(width, height)
    with torch.no_grad():
        expected = CameraInput(net, spec.preprocess).eval()(torch.from_numpy(batch)).numpy()
    export_module(net, spec, tmp_path / "same.onnx", fold=False)
    assert {"Pad", "Shape", "Ceil"} & {
        node.op_type for node in onnx.load(str(tmp_path / "same.onnx")).graph.node
    } == set()
    got = open_engine(tmp_path / "same.onnx").run(batch)[0]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_spec_is_written_beside_the_onnx_file(exported):
    assert read_spec(spec_path(exported["embedder"])) == network("embedder")[1]


def test_invalid_spec_error_names_the_key(tmp_path: Path):
    (tmp_path / "m.json").write_text('{"kind": "classifier", "output_names": [], "colour": 1, "preprocess": {}}')
    with pytest.raises(QuantizeError, match=r"preprocess\.width"):
        read_spec(tmp_path / "m.json")


def test_exported_localiser_run_matches_the_trainer(tmp_path):
    torch.manual_seed(0)
    half = (0.5, 0.5, 0.5)
    canvas = Preprocess(width=64, height=32, crop_margin=0.1, mean=half, std=half)
    card = ModelCard(kind="localiser", backbone="", preprocess=canvas, strides=[2], width=4)
    network = build_model(card).eval()
    save_model(tmp_path / "run", network, card)
    spec = export_fp32(tmp_path / "run", tmp_path / "localiser.onnx")
    assert (spec.kind, spec.strides, spec.output_names) == ("localiser", [2], ["mask"])
    batch = noise(64, 32)
    with torch.no_grad():
        want = network(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 127.5 - 1.0).numpy()
    got = open_engine(tmp_path / "localiser.onnx").run(batch)[0]
    assert got.shape == (3, 1, 16, 32)
    # the border differs: zero padding was a mean colour and is now a nearly equal grey
    np.testing.assert_allclose(got, want, atol=0.02 * np.abs(want).max())
    operators = {node.op_type for node in onnx.load(str(tmp_path / "localiser.onnx")).graph.node}
    plain = {"Transpose", "Cast", "Sub", "Conv", "Relu", "AveragePool", "Resize", "Concat", "Add"}
    assert operators <= plain | {"Constant", "Identity"}
