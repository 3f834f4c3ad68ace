"""Packing on a base bundle: models that are not replaced are copied byte for byte."""

from dataclasses import replace

import pytest

from edge.bundle.bundle import read_bundle
from edge.bundle.golden_probes import run_probes
from edge.errors import QuantizeError
from edge.inference.stages import load_stages
from quantize import cli
from quantize.build_network import Policy, build_network
from quantize.bundle import pack
from quantize.network_spec import read_spec, spec_path, write_spec
from tests.quantize_samples import network

FP32 = Policy(precision="fp32")


def quiet(pictures, what):
    return pictures


@pytest.fixture(scope="module")
def base(exported, data, tmp_path_factory):
    """A bundle of a classifier and one embedder of both categories."""
    folder = tmp_path_factory.mktemp("base")
    networks = [build_network(kind, exported[kind], folder, data, FP32, quiet) for kind in ("classifier", "embedder")]
    pack.pack(pack.PackOptions("base", 1, folder / "bundle"), networks, data)
    return folder / "bundle"


@pytest.fixture(scope="module")
def only_cans(exported, data, tmp_path_factory):
    """A new embedder of one of the two categories."""
    from quantize.export import export_module

    folder = tmp_path_factory.mktemp("cans")
    net, spec = network("embedder")
    net.linear.weight.data[6:] += 0.01
    export_module(net, spec.model_copy(update={"categories": ["can"]}), folder / "cans.onnx")
    return build_network("embedder-can", folder / "cans.onnx", folder, data, FP32, quiet)


def test_base_models_are_copied_byte_for_byte_with_rules_and_probes(base, only_cans, data, tmp_path):
    pack.pack(pack.PackOptions("mine", 2, tmp_path / "mine", base=base), [only_cans], data)
    old, new = read_bundle(base), read_bundle(tmp_path / "mine")
    for name in ("classifier.fp32.onnx", "embedder.fp32.onnx"):
        assert (base / "models" / name).read_bytes() == (tmp_path / "mine" / "models" / name).read_bytes()
    kept, mine = new.manifest.embedder_for("box"), new.manifest.embedder_for("can")
    before = old.manifest.embedder_for("box")
    assert (kept.space_id, kept.open_set["box"]) == (before.space_id, before.open_set["box"])
    assert (kept.categories, mine.categories) == (["box"], ["can"])
    assert mine.space_id != before.space_id
    assert new.manifest.classifier == old.manifest.classifier
    assert new.manifest.evaluation["embedder"] == old.manifest.evaluation["embedder"]
    assert {"classifier", "embedder", "embedder-can"} == set(new.manifest.provenance["models"])
    assert {probe.category for probe in new.manifest.probes} == {"box", "can"}
    results = run_probes(new.folder, new.manifest.probes, load_stages(new.folder, new.manifest, "onnxruntime"))
    assert all(result.passed for result in results)


@pytest.mark.parametrize("form", ["fp32", "ort-u8"])
def test_model_with_the_name_of_a_kept_one_is_refused(base, only_cans, data, tmp_path, form):
    clash = replace(only_cans, name="embedder", ship=form, forms={form: only_cans.forms["fp32"]})
    with pytest.raises(QuantizeError, match="embedder is also in base bundle base; rename the run folder"):
        pack.pack(pack.PackOptions("x", 2, tmp_path / "x", base=base), [clash], data)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("asked", [{"risk": 0.1}, {"false_accept": 0.1}, {"whiten": "auto"}, {"classifier_share": 0.2}])
def test_an_option_without_effect_is_refused(base, exported, data, tmp_path, asked):
    classifier = build_network("classifier", exported["classifier"], tmp_path, data, FP32, quiet)
    with pytest.raises(QuantizeError, match="needs a new embedder; give --embedder as well"):
        pack.pack(pack.PackOptions("x", 2, tmp_path / "x", base=base, **asked), [classifier], data)


def test_pack_command_replaces_one_category_of_a_base_bundle(base, only_cans, data_folder, tmp_path):
    spec = read_spec(spec_path(only_cans.forms["fp32"]))
    write_spec(only_cans.forms["fp32"], spec)
    arguments = [
        "--log-level", "warning", "pack", "--id", "cmd", "--sequence", "3", "--out", str(tmp_path / "cmd"),
        "--embedder", str(only_cans.forms["fp32"]), "--index", str(data_folder / "index.csv"), "--precision", "fp32",
        "--base", str(base),
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    manifest = read_bundle(tmp_path / "cmd").manifest
    assert sorted(category for model in manifest.embedders for category in model.categories) == ["box", "can"]
    assert manifest.classifier is not None
