"""An embedder without training, as its command makes it: a run like any other, exported and quantised."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
import yaml
from safetensors.torch import save_file

from edge.inference.engine import open_engine
from quantize.export import export_fp32
from quantize.forms.write_forms import quantize_network
from quantize.pictures import Sample
from tests.trainer.toy import write_crops
from trainer.cli import main
from trainer.data.crops import predict
from trainer.models.networks import load_model
from trainer.models.scda_network import most_steps
from trainer.models.timm_library import timm

BACKBONE = "mobilenetv4_conv_small_050"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe with the weights of a network, and its pictures."""
    folder = tmp_path_factory.mktemp("free")
    torch.manual_seed(0)
    save_file(timm.create_model(BACKBONE).state_dict(), folder / "w.safetensors")
    index = write_crops(folder / "data")
    backbone = {"name": BACKBONE, "pretrained": str(folder / "w.safetensors"), "strides": [8, 16]}
    tree = {"kind": "embedder", "data": {"index": str(index)}, "input": {"width": 48, "height": 48}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree | {"backbone": backbone}))
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def run(recipe):
    """The run of SCDA_flip+, whitened to eight numbers."""
    out = recipe.parent / "run"
    assert main(["embedder", "-c", str(recipe), "-o", str(out), "--free", "scda_flip+", "--dim", "8"]) == 0
    return out


def test_run_is_an_embedder_of_all_categories(run):
    _, card = load_model(run)
    assert (card.kind, card.free, card.categories) == ("embedder", "scda_flip+", ["blue", "red"])
    assert [head.dim for head in card.heads] == [8]
    assert 0 < card.metrics["recall_1_train"] <= 1


def test_one_run_for_each_category_where_the_recipe_asks(recipe, tmp_path):
    command = [
        "embedder",
        "-c",
        str(recipe),
        "-o",
        str(tmp_path),
        "--free",
        "average",
        "--set",
        "one_per_category=true",
    ]
    assert main(command) == 0
    assert [load_model(tmp_path / name)[1].categories for name in ("blue", "red")] == [["blue"], ["red"]]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("heads=[class,local]", "--free trains nothing: heads of the recipe would have no effect"),
        ("loss=triplet", "--free trains nothing: loss"),
        ("init_from=runs/x", "--free trains nothing: init_from"),
        ("dim=64", "remove dim 64 from the recipe, or give it as --dim"),
    ],
)
def test_what_only_training_gives_is_refused(recipe, tmp_path, capsys, key, message):
    command = ["embedder", "-c", str(recipe), "-o", str(tmp_path), "--free", "scda", "--set", key, "--set", "width=8"]
    assert main(command) == 1
    assert message in capsys.readouterr().err


def test_int8_form_keeps_the_object_mask_in_fp32(run, tmp_path):
    network, card = load_model(run)
    fp32, int8 = tmp_path / "e.fp32.onnx", tmp_path / "e.int8.onnx"
    spec = export_fp32(run, fp32)
    canvases = np.random.default_rng(0).integers(0, 255, (6, 48, 48, 3), np.uint8)
    expected = predict(network, canvases, card.preprocess)
    np.testing.assert_allclose(open_engine(fp32).run(canvases)[0], expected, atol=2e-3)
    paths = sorted(run.parent.glob("data/*.png"))[:8]
    pictures = [Sample(path, path.name, "train", "blue", "blue-0") for path in paths]
    quantize_network(spec, fp32, pictures, int8, saturates=True, progress=lambda given, _: given)
    graph = onnx.load(str(int8)).graph
    writer = {name: node.op_type for node in graph.node for name in node.output}
    pools = [node for node in graph.node if node.op_type == "MaxPool"]
    assert len(pools) == most_steps(3, 3) + most_steps(6, 6)  # the two maps
    assert not {writer.get(node.input[0]) for node in pools} & {"DequantizeLinear", "QuantizeLinear"}
    assert writer["embedding"] not in {"DequantizeLinear", "QuantizeLinear"}
    assert "DequantizeLinear" in writer.values()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dim", "8"], "--dim goes with --free"),
        (["--free", "scda", "--base", "runs/other"], "--base has no use"),
        (["--free", "scda", "--dim", "16"], "more than 16 pictures, but there are 16"),
        (["--free", "scda", "--set", "backbone.pretrained=none"], "needs published weights"),
    ],
)
def test_what_cannot_be_made_is_said(recipe, tmp_path, capsys, arguments, message):
    assert main(["embedder", "-c", str(recipe), "-o", str(tmp_path), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_shorter_vector_is_made_again(run, tmp_path, capsys):
    assert main(["shrink", str(run), "-o", str(tmp_path / "out"), "--dim", "4"]) == 1
    assert "scda_flip+ has no heads; make it again with --dim" in capsys.readouterr().err
