"""TensorRT's real parser and builder take every form that a device with TensorRT is offered, through its own door.

The builder is set up by scripts/tensorrt_builder.py. It needs no GPU. Running what it builds does: that is not here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto

from edge.bundle.bundle import read_bundle
from edge.inference.engine import RUNS
from edge.inference.engine_choice import models_of
from quantize.forms.tensorrt_rules import find_violations
from scripts.tensorrt_builder import BUILDER, FOLDER, VERSIONS, main, prepare
from tests.integration.network_watch import watch
from tests.integration.tensorrt_builds import Outcome, build_all
from tests.integration.tensorrt_networks import FORMS, SIDES_PX, YOLOX, export, fix_batch, yolox
from tests.tensorrt_cases import BYTES, CONV, WEIGHT, cases, disagreements, graph

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demo/bundle"
ROWS = 8  # of the largest batch where it is open
FIXED_ROWS = 4
LIBRARIES = FOLDER / BUILDER


@pytest.fixture(scope="module")
def builder():
    """The folder that TensorRT is imported from."""
    if why := prepare().get(BUILDER):
        pytest.skip(f"TensorRT's builder: {why}")
    return LIBRARIES


def test_builder_is_missing_only_where_it_cannot_be_downloaded(tmp_path):
    missing = prepare().get(BUILDER)
    if missing is None:
        return
    pins = (ROOT / f"packaging/tensorrt_builder/{BUILDER}.txt").read_text(encoding="utf-8")
    bindings = next(line.split()[0] for line in pins.splitlines() if line.startswith("tensorrt-"))
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path), bindings]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode != 0, f"{bindings} can be downloaded here, but: {missing}"
    pytest.skip(f"TensorRT's builder: {missing}")


def test_script_says_that_no_registry_has_it(tmp_path, monkeypatch, capsys):
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["tensorrt_builder.py", str(tmp_path)])
    assert main() == 3
    printed = capsys.readouterr().out
    assert printed.count("pip found no registry that has it: No matching distribution found for ") == len(VERSIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock"]


def test_script_says_that_there_is_no_compiler(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("scripts.tensorrt_builder._download", lambda *_: None)
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr("sys.argv", ["tensorrt_builder.py", str(tmp_path)])
    assert main() == 1
    assert "no C compiler 'no-such-compiler'; run: apt install gcc" in capsys.readouterr().err


def test_script_names_another_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    why = "NVIDIA has no wheels of it for Linux on aarch64, only for Linux on x86-64"
    assert prepare(tmp_path) == dict.fromkeys(VERSIONS, why)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The files of each network, by name, form and kind of batch."""
    folder = tmp_path_factory.mktemp("networks")
    files = {}
    for name in SIDES_PX:
        for form, path in export(name, folder).items():
            files[name, form, "open"] = path
            files[name, form, "fixed"] = fix_batch(path, path.with_suffix(".fixed.onnx"), FIXED_ROWS)
    if YOLOX.is_file():
        files |= {("yolox_nano", form, "fixed"): path for form, path in yolox(folder).items()}
    return files


def offered_by_the_demo() -> dict[str, Path]:
    """Return the files that the demo bundle offers a device with TensorRT."""
    models = models_of(read_bundle(DEMO, verify=False).manifest)
    return {
        name: DEMO / name for model in models.values() for form, name in model.files.items() if form in RUNS["tensorrt"]
    }


def wrong_graphs() -> dict[str, bytes]:
    """Return files that the door must refuse, beside the graphs of tests/tensorrt_cases.py."""
    cast = [("Cast", "x", "f", {"to": TensorProto.FLOAT}), ("Transpose", "f", "c", {"perm": [0, 3, 1, 2]})]
    good = graph([*cast, CONV], {"w": WEIGHT}, BYTES)
    two = onnx.ModelProto.FromString(good.SerializeToString())
    two.graph.input.add().CopyFrom(onnx.helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1]))
    two.graph.node[-1].output[0] = "z"
    two.graph.node.add().CopyFrom(onnx.helper.make_node("Mul", ["z", "gain"], ["y"]))
    external = onnx.ModelProto.FromString(good.SerializeToString())
    external.graph.initializer[0].ClearField("raw_data")
    external.graph.initializer[0].data_location = TensorProto.EXTERNAL
    external.graph.initializer[0].external_data.add(key="location", value="weights.bin")
    models = {
        "open sides": graph([*cast, CONV], {"w": WEIGHT}, ("x", TensorProto.UINT8, ["n", "h", "w", 3])),
        "two inputs": two,
        "external weights": external,
        "unknown tensor": graph([*cast, ("Relu", "nowhere", "y")], {}, BYTES),
        "channels": graph([*cast, CONV], {"w": np.zeros((8, 4, 3, 3), np.float32)}, BYTES),
        "unknown operator": graph([*cast, ("ShelfScore", "c", "y", {"domain": "shop"})], {}, BYTES),
    }
    picture = next((DEMO / "probes").glob("*.png")).read_bytes()
    others = {"truncated": good.SerializeToString()[:-200], "a picture": picture, "empty": b""}
    return {name: model.SerializeToString() for name, model in models.items()} | others


@pytest.fixture(scope="module")
def outcomes(builder, networks, tmp_path_factory) -> dict[object, Outcome]:
    """What the door makes of every file of this module, built in one process."""
    folder = tmp_path_factory.mktemp("graphs")
    files: dict[object, Path] = dict(networks)
    for name, path in offered_by_the_demo().items():
        files["demo", name, "open"] = path
        files["demo", name, "fixed"] = fix_batch(path, folder / f"{path.stem}.fixed.onnx", FIXED_ROWS)
    graphs = {("case", name): model.SerializeToString() for name, model in cases()}
    graphs |= {("wrong", name): data for name, data in wrong_graphs().items()}
    for number, (key, data) in enumerate(graphs.items()):
        files[key] = folder / f"{number}.onnx"
        files[key].write_bytes(data)
    for path in DEMO.rglob("*.ort-u8.onnx"):
        files["wrong", path.name] = path
    found = build_all(dict.fromkeys(files.values(), ROWS), builder)
    return {key: found[path] for key, path in files.items()}


@pytest.mark.parametrize("batch", ["open", "fixed"])
def test_every_form_of_the_demo_bundle_builds(outcomes, batch):
    found = {key[1]: one for key, one in outcomes.items() if key[0] == "demo" and key[2] == batch}
    assert set(found) == set(offered_by_the_demo())
    assert {name: one.error for name, one in found.items() if one.error} == {}
    assert len(found) >= 7


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SIDES_PX)
def test_network_builds(outcomes, name, form):
    for batch in ("open", "fixed"):
        assert outcomes[name, form, batch].error == ""
        assert outcomes[name, form, batch].size > 10_000


@pytest.mark.data
@pytest.mark.parametrize("form", FORMS)
def test_yolox_builds(outcomes, form):
    if not YOLOX.is_file():
        pytest.skip(f"{YOLOX} is not here")
    assert outcomes["yolox_nano", form, "fixed"].error == ""


def test_forms_differ_in_what_they_hold(networks):
    for name in SIDES_PX:
        sizes = [networks[name, form, "open"].stat().st_size for form in FORMS]
        assert sizes[1] < 0.55 * sizes[0]
        assert sizes[2] < 0.35 * sizes[0]


def test_linter_takes_what_the_builder_takes(networks):
    paths = [*networks.values(), *offered_by_the_demo().values()]
    found = {path.name: [str(one) for one in find_violations(onnx.load(str(path)))] for path in paths}
    assert {name: violations for name, violations in found.items() if violations} == {}


def test_linter_agrees_with_the_builder_on_every_case(outcomes):
    said = {key[1]: one.error for key, one in outcomes.items() if key[0] == "case"}
    assert len(said) >= 200
    assert disagreements(said) == []


REASONS = {
    "open sides": r"x: only the batch may be dynamic, but the shape is \[-1, -1, -1, 3\]$",
    "two inputs": r"the model has 2 inputs \['x', 'gain'\]; only one is supported$",
    "external weights": r"Failed to import initializer",
    "unknown tensor": r"Relu '': Node input was not registered",
    "channels": r"Conv '': Kernel weight dimension failed to broadcast to input",
    "unknown operator": r"ShelfScore '': Plugin not found",
    "truncated": r"Failed to parse the ONNX model; pack it again with edge-quantize",
    "a picture": r"the model has 0 inputs",
    "empty": r"the model has 0 inputs",
}


@pytest.mark.parametrize("name", REASONS)
def test_wrong_file_is_refused_with_one_line(outcomes, name):
    error = outcomes["wrong", name].error
    assert re.search(REASONS[name], error), error
    assert "\n" not in error
    assert ".onnx: " in error


@pytest.mark.parametrize("name", REASONS)
def test_wrong_file_is_found_on_the_server_too(name):
    try:
        model = onnx.load_from_string(wrong_graphs()[name])
        onnx.checker.check_model(model, full_check=True)
    except (DecodeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return
    assert find_violations(model) or len(model.graph.input) != 1


def test_forms_for_onnx_runtime_are_refused_for_their_bias(outcomes):
    errors = [one.error for key, one in outcomes.items() if key[0] == "wrong" and key[1].endswith(".ort-u8.onnx")]
    assert len(errors) >= 7
    for error in errors:
        assert "cannot parse it: DequantizeLinear" in error
        assert "input has type Int32 but must have type" in error


def test_every_rejection_is_one_short_line(outcomes):
    errors = [one.error for one in outcomes.values() if one.error]
    assert len(errors) > 80
    assert [error for error in errors if "\n" in error or len(error) > 600] == []


def test_a_build_talks_to_nobody(builder, networks, tmp_path):
    path = networks["mobilenetv2_100", "fp32", "open"]
    code = "import sys, pathlib; from tests.integration.tensorrt_builds import build_one; "
    code += "print(build_one(pathlib.Path(sys.argv[1]), 2))"
    command = ["env", f"PYTHONPATH={ROOT}:{builder}", sys.executable, "-c", code, path]
    with watch(tmp_path, command) as one:
        printed = one.wait()
    assert "error=''" in printed, printed
    assert one.talk() == []
    assert one.left_at_home() == []
