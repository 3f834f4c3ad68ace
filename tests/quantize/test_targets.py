"""Packing for TensorRT beside the CPU: further forms, their gates, and what happens to one that fails."""

import json
from dataclasses import replace

import onnx
import pytest
from onnx import numpy_helper

from edge.errors import QuantizeError
from edge.manifest.manifest import parse_manifest
from quantize import cli, further_forms
from quantize.build_network import Policy, build_network
from quantize.bundle import pack
from quantize.command import forms_for
from quantize.compare_forms import EMULATION
from quantize.forms.form_of import form_of
from quantize.forms.tensorrt_rules import find_violations
from quantize.network_spec import read_spec, spec_path, write_spec

FOR_TENSORRT = Policy(min_speedup=0.001, saturates=True, **forms_for(["cpu", "tensorrt"]))
NAMED = Policy(min_speedup=0.001, saturates=True, **forms_for(["tensorrt-s8"]))


def quiet(pictures, what):
    return pictures


@pytest.fixture(scope="module")
def data(data):
    return replace(data, calibration_images=8)  # a second each


@pytest.fixture(scope="module")
def networks(exported, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    kinds = ("classifier", "embedder")
    return [build_network(kind, exported[kind], folder, data, FOR_TENSORRT, quiet) for kind in kinds]


@pytest.fixture(scope="module")
def packed(networks, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "one"
    pack.pack(pack.PackOptions("one", 1, out, with_probes=False), networks, data)
    return out


@pytest.fixture
def damaged(monkeypatch):
    """Negate the S8 weights, as a fault in the writer might."""
    real = further_forms.write_tensorrt_s8

    def write(calibration, spec, out, *, rest, kept=None):
        record = real(calibration, spec, out, rest=rest, kept=kept)
        model = onnx.load(str(out))
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4:
                tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
        onnx.save(model, str(out))
        return record

    monkeypatch.setattr(further_forms, "write_tensorrt_s8", write)


def test_targets_name_forms():
    both = frozenset({"fp16", "tensorrt-s8"})
    assert forms_for(["cpu"]) == {"further": frozenset(), "required": frozenset()}
    assert forms_for(["cpu", "tensorrt"]) == {"further": both, "required": frozenset()}
    assert forms_for(["fp16"]) == {"further": frozenset({"fp16"}), "required": frozenset({"fp16"})}


def test_bundle_holds_a_form_for_each_target(packed):
    manifest = parse_manifest((packed / "bundle.json").read_text(), "bundle.json")
    assert set(manifest.embedders[0].files) == {"ort-u8", "fp16", "tensorrt-s8"}
    assert manifest.runtimes == ["ort-u8", "fp16", "tensorrt-s8"]
    for model in (manifest.classifier, manifest.embedders[0]):
        for form in ("fp16", "tensorrt-s8"):
            graph = onnx.load(str(packed / model.files[form]))
            assert form_of(graph) == form
            assert find_violations(graph) == []


def test_manifest_says_how_further_forms_were_measured(packed):
    manifest = json.loads((packed / "bundle.json").read_text())
    forms = manifest["evaluation"]["embedder"]["forms"]
    assert forms["fp16"]["metrics"]["recall_at_1"] == {"fp32": 1.0, "fp16": 1.0}
    assert forms["tensorrt-s8"]["measured_on"]["engine"] == EMULATION
    assert not {"latency", "fusion"} & set(forms["tensorrt-s8"]["gates"])
    assert (forms["fp16"]["packed"], forms["fp16"]["why"]) == (True, "gates hold")
    provenance = manifest["provenance"]["models"]["embedder"]["forms"]
    assert provenance["tensorrt-s8"]["rest"] == "fp16"
    assert any("ReduceL2" in name for name in provenance["fp16"]["in_fp32"])


def test_models_of_a_base_bundle_keep_every_form(packed, exported, data, tmp_path):
    new = build_network("classifier", exported["classifier"], tmp_path, data, Policy(), quiet)
    options = pack.PackOptions("two", 2, tmp_path / "two", base=packed, with_probes=False)
    manifest = pack.pack(options, [new], data)
    assert set(manifest.embedders[0].files) == {"ort-u8", "fp16", "tensorrt-s8"}
    for path in manifest.embedders[0].files.values():
        assert (tmp_path / "two" / path).read_bytes() == (packed / path).read_bytes()


@pytest.mark.usefixtures("damaged")
def test_form_that_fails_its_gate_is_left_out_with_the_reason(exported, data, tmp_path, caplog):
    network = build_network("classifier", exported["classifier"], tmp_path, data, FOR_TENSORRT, quiet)
    manifest = pack.pack(pack.PackOptions("one", 1, tmp_path / "one", with_probes=False), [network], data)
    assert set(manifest.classifier.files) == {"ort-u8", "fp16"}
    assert manifest.runtimes == ["ort-u8", "fp16"]
    row = manifest.evaluation["classifier"]["forms"]["tensorrt-s8"]
    assert not row["packed"]
    assert row["why"].startswith("fails classifier.tensorrt-s8.top1 0.")
    assert "classifier.tensorrt-s8: left out: fails classifier.tensorrt-s8.top1" in caplog.text


@pytest.mark.usefixtures("damaged")
def test_form_asked_for_by_name_must_pass_or_be_waived(exported, data, tmp_path):
    network = build_network("classifier", exported["classifier"], tmp_path, data, NAMED, quiet)
    with pytest.raises(QuantizeError, match=r"failed gates: classifier\.tensorrt-s8\.top1"):
        pack.pack(pack.PackOptions("one", 1, tmp_path / "one"), [network], data)
    gates = {f"classifier.tensorrt-s8.{gate}" for gate in ("top1", "worst_class", "flip_rate")}
    network = build_network(
        "classifier", exported["classifier"], tmp_path, data, replace(NAMED, waived=frozenset(gates)), quiet
    )
    manifest = pack.pack(pack.PackOptions("one", 1, tmp_path / "one", with_probes=False), [network], data)
    assert "tensorrt-s8" in manifest.classifier.files
    assert set(manifest.waived) <= gates


def test_graph_that_tensorrt_lacks_is_packed_for_the_cpu_alone(exported, data, tmp_path, caplog):
    model = onnx.load(str(exported["classifier"]))
    model.opset_import[0].version = 21
    source = tmp_path / "newer.onnx"
    onnx.save(model, str(source))
    write_spec(source, read_spec(spec_path(exported["classifier"])))
    network = build_network("classifier", source, tmp_path, data, FOR_TENSORRT, quiet)
    assert set(network.forms) == {"fp32", "ort-u8"}
    assert network.further == ("fp32",)  # for a device that chooses TensorRT, whatever it makes of it
    line = "classifier.fp16: TensorRT does not take it: graph: opset 21; TensorRT 10 has 9 to 20"
    assert line in caplog.text
    with pytest.raises(QuantizeError, match=r"classifier\.tensorrt-s8: TensorRT does not take it: graph: opset 21"):
        build_network("classifier", source, tmp_path, data, NAMED, quiet)


@pytest.mark.parametrize("form", ["fp16", "tensorrt-s8"])
def test_quantize_and_compare_any_form(form, exported, data_folder, tmp_path, capsys):
    index = ["--index", str(data_folder / "index.csv")]
    out = tmp_path / "form.onnx"
    assert cli.main(["quantize", str(exported["classifier"]), str(out), "--form", form, *index]) == 0
    assert "calibration_digest" in capsys.readouterr().out
    assert cli.main(["compare", str(exported["classifier"]), str(out), *index]) == 0
    shown = capsys.readouterr().out
    assert form.upper() in shown
    assert "latency" not in shown
    assert EMULATION in shown


def test_compare_refuses_a_form_of_another_preprocessing(exported, data_folder, tmp_path, capsys):
    index = ["--index", str(data_folder / "index.csv")]
    out = tmp_path / "form.onnx"
    assert cli.main(["quantize", str(exported["classifier"]), str(out), "--form", "fp16", *index]) == 0
    spec = read_spec(spec_path(out))
    write_spec(out, spec.model_copy(update={"preprocess": spec.preprocess.model_copy(update={"fill": 0})}))
    assert cli.main(["compare", str(exported["classifier"]), str(out), *index]) == 1
    assert "was calibrated with fill 0, but its spec says 114; quantise it again" in capsys.readouterr().err


def test_unknown_target_is_a_usage_error(capsys):
    with pytest.raises(SystemExit):
        cli.main(["pack", "--id", "x", "--sequence", "1", "--out", "x", "--targets", "cpu,jetson"])
    assert "jetson is not a target; choose from cpu, tensorrt, fp16, tensorrt-s8" in capsys.readouterr().err
