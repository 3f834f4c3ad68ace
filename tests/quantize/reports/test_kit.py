"""The kit for compilers of other accelerators."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

from edge.bundle import golden_probes
from edge.errors import BundleError, QuantizeError
from quantize import cli
from quantize.reports import kit_check
from quantize.reports.bundle_models import bundle_models
from quantize.reports.kit import write_kit
from quantize.reports.kit_onnx import dynamic_tensors, write_nchw
from tests.file_damage import flip

ROOT_FILES = {"README.md", "kit.json", "check.py", "hailo", "rknn", "qualcomm", "axis", "models"}


def quiet(models, what):
    return models


@pytest.fixture(scope="module")
def kit(bundle, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("kits") / "kit"
    lines = list(write_kit(bundle, out, data, quiet))
    assert len(lines) == 5
    return out


@pytest.fixture
def outputs(kit, tmp_path):
    """What ONNX Runtime makes of the files that a vendor's compiler takes."""
    assert kit_check.main(["--run", "nchw", str(tmp_path / "out")], kit) == 0
    return tmp_path / "out"


def entries(kit):
    return json.loads((kit / "kit.json").read_text())["models"]


def test_kit_is_complete(kit):
    assert {path.name for path in kit.iterdir()} == ROOT_FILES
    assert [one["name"] for one in entries(kit)] == ["detector", "classifier", "localiser", "embedder"]
    for one in entries(kit):
        folder = kit / "models" / one["name"]
        listed = (folder / "calibration.txt").read_text().split()
        assert len(listed) == one["calibration"] >= 8
        side = (one["input"]["height"], one["input"]["width"], 3)
        for name in listed:
            picture = np.load(folder / name)
            assert (picture.shape, picture.dtype) == (side, np.uint8)
        assert one["probes"] >= 4
        assert len(list((folder / "probes").glob("*.input.npy"))) == one["probes"]
        assert (kit / f"hailo/{one['name']}.alls").is_file()


def test_every_shape_is_static_and_the_file_starts_with_a_convolution(kit):
    for one in entries(kit):
        models = {v: onnx.load(str(kit / "models" / one["name"] / file)) for v, file in one["files"].items()}
        for model in models.values():
            assert dynamic_tensors(model) == []
            assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
            assert [entry.version for entry in model.opset_import] == [17]
        shape = [dim.dim_value for dim in models["nchw"].graph.input[0].type.tensor_type.shape.dim]
        assert shape == [1, 3, one["input"]["height"], one["input"]["width"]]
        first = models["nchw"].graph.node[0]
        assert (first.op_type, first.input[0]) == ("Conv", one["input"]["name"])
        assert not {"Cast", "Transpose", "Sub"} & {node.op_type for node in models["nchw"].graph.node}


def test_dynamic_tensors_are_found(bundle):
    model = onnx.load(str(bundle / "models/classifier.fp32.onnx"))
    assert "image" in dynamic_tensors(onnx.shape_inference.infer_shapes(model))


@pytest.mark.parametrize("variant", ["uint8", "nchw"])
def test_check_passes_on_what_onnxruntime_makes_of_both_files(kit, tmp_path, variant, capsys):
    assert kit_check.main(["--run", variant, str(tmp_path / "out")], kit) == 0
    assert kit_check.main([str(tmp_path / "out")], kit) == 0
    assert "4 of 4 models pass" in capsys.readouterr().out


def shifted_boxes(values):
    changed = values.copy()
    changed[:, :4] *= 3
    return changed


@pytest.mark.parametrize(
    ("file", "change", "why"),
    [
        ("embedder/00.output-0.npy", lambda v: v + np.random.default_rng(0).normal(0, 0.2, v.shape), "cosine 0."),
        ("classifier/01.output-0.npy", lambda v: v[:, ::-1], "expected"),
        ("detector/00.output-0.npy", shifted_boxes, "of"),
        ("detector/01.output-0.npy", lambda v: np.transpose(v, (0, 2, 3, 1)), "found shape"),
        ("localiser/00.output-0.npy", lambda v: np.full_like(v, np.nan), "not finite"),
        ("embedder/02.output-0.npy", None, "is missing"),
    ],
)
def test_check_fails_on_altered_outputs(kit, outputs, capsys, file, change, why):
    path = outputs / file
    if change is None:
        path.unlink()
    else:
        np.save(path, change(np.load(path)))
    assert kit_check.main([str(outputs)], kit) == 1
    told = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert len(told) == 1
    assert why in told[0]
    assert told[0].startswith(file.partition("/")[0])


def test_limits_of_the_check_are_those_of_the_device():
    assert (kit_check.MIN_COSINE, kit_check.MIN_OVERLAP) == (golden_probes.MIN_COSINE, golden_probes.MIN_OVERLAP)


def test_lost_object_fails_a_detector_even_at_a_high_cosine():
    model = {"kind": "detector", "decoder": "ltrb", "score_threshold": 0.5, "clear_score": 0.75}
    expected = np.full((1, 5, 20, 20), 0.5)
    expected[:, 4] = -8.0
    expected[0, :, 3, 3] = [4, 4, 4, 4, 5]
    got = expected.copy()
    got[0, 4, 3, 3] = -3.0
    good, text = kit_check.judge(model, [(expected, got)])
    assert (good, text) == (False, "cosine 0.9988, 0 of 1 cells with an object agree")
    assert kit_check.judge(model, [(expected, expected)])[0]


def test_boxes_of_yolox_are_compared_by_overlap():
    model = {"decoder": "yolox", "score_threshold": 0.3, "clear_score": 0.5}
    cells = np.array([[[0.5, 0.5, 1.0, 1.0, 0.9, 0.9], [0.5, 0.5, 0.0, 0.0, 0.1, 0.1]]])
    wider, smaller = cells.copy(), cells.copy()
    wider[0, 0, 2] += 0.1
    smaller[0, 0, 2:4] -= 1.0
    assert kit_check.boxes_found(model, [(cells, wider)]) == (1, 1)
    assert kit_check.boxes_found(model, [(cells, smaller)]) == (0, 1)


def test_check_runs_by_itself_with_numpy_and_onnxruntime_only(kit, tmp_path):
    block = "import sys; sys.modules.update(dict.fromkeys(('edge', 'quantize', 'cv2', 'onnx', 'torch'))); "
    code = (
        f"{block}sys.argv[0] = 'check.py'; import runpy; runpy.run_path({str(kit / 'check.py')!r}, run_name='__main__')"
    )
    command = [sys.executable, "-I", "-c", code]
    for more in (["--run", "nchw", str(tmp_path / "out")], [str(tmp_path / "out")]):
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    assert "4 of 4 models pass" in done.stdout


def test_check_switches_the_reports_of_onnxruntime_off_before_it_loads(kit, tmp_path):
    (tmp_path / "onnxruntime.py").write_text("import os; print('switch', os.environ['ORT_DISABLE_TELEMETRY'])")
    command = [sys.executable, str(kit / "check.py"), "--run", "nchw", str(tmp_path / "out")]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "switch 1\n"  # then it fails: this onnxruntime runs nothing


def test_check_without_a_folder_of_outputs_is_one_clear_line(kit, tmp_path, capsys):
    assert kit_check.main([str(tmp_path / "none")], kit) == 2
    assert "no such folder" in capsys.readouterr().err


def test_file_that_differs_from_fp32_leaves_no_kit(bundle, data, tmp_path, monkeypatch):
    monkeypatch.setattr("quantize.reports.kit.PARITY", -1.0)  # nothing is this close
    with pytest.raises(QuantizeError, match=r"detector\.uint8\.onnx: differs from the FP32 form by .* of its largest"):
        list(write_kit(bundle, tmp_path / "kit", data, quiet))
    assert list(tmp_path.iterdir()) == []


def newer_opset(model):
    model.opset_import[0].version = 18


def other_transpose(model):
    next(node for node in model.graph.node if node.op_type == "Transpose").attribute[0].ints[:] = [0, 3, 2, 1]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (newer_opset, "has opset 18; the compilers take 17 at most"),
        (other_transpose, "its input is not cast, transposed and normalised by plain operators"),
    ],
)
def test_network_that_compilers_cannot_take_is_one_clear_line(bundle, tmp_path, change, why):
    one = next(one for one in bundle_models(bundle) if one.name == "classifier")
    model = onnx.load(str(one.files["fp32"]))
    change(model)
    onnx.save(model, str(tmp_path / "changed.onnx"))
    with pytest.raises(QuantizeError, match=why):
        write_nchw(replace(one, files={"fp32": tmp_path / "changed.onnx"}), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_range_table_tells_what_one_scale_costs(kit):
    with (kit / "models/classifier/ranges.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["operator"] for row in rows} == {"Conv", "Gemm"}
    assert all(float(row["bits_lost_by_weakest_channel"]) >= float(row["bits_lost_by_median_channel"]) for row in rows)
    assert all(float(row["output_low_99.99"]) <= 0 <= float(row["output_high_99.99"]) for row in rows)


def test_normalisation_is_in_words_in_numbers_and_in_the_model_script(kit):
    one = next(entry for entry in entries(kit) if entry["name"] == "classifier")
    told = json.loads((kit / "models/classifier/preprocessing.json").read_text())
    assert told["mean"] == one["mean"] == [128.0, 128.0, 128.0]
    assert str(one["mean"]) in (kit / "README.md").read_text()
    assert f"normalization({one['mean']}, {one['std']})" in (kit / "hailo/classifier.alls").read_text()


def test_existing_folder_is_one_clear_line(bundle, data, tmp_path):
    with pytest.raises(QuantizeError, match="already exists; choose a new folder with -o"):
        list(write_kit(bundle, tmp_path, data, quiet))


def test_bundle_without_fp32_form_says_how_to_pack_it(bundle, data, tmp_path):
    broken = tmp_path / "bundle"
    shutil.copytree(bundle, broken)
    manifest = json.loads((broken / "bundle.json").read_text())
    del manifest["classifier"]["files"]["fp32"]
    (broken / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(QuantizeError, match="no FP32 form of classifier; pack the bundle with --keep-both"):
        list(write_kit(broken, tmp_path / "kit", data, quiet))
    assert not (tmp_path / "kit").exists()


def test_damaged_bundle_leaves_nothing_behind(bundle, data, tmp_path):
    broken = tmp_path / "bundle"
    shutil.copytree(bundle, broken)
    flip(broken / "models/classifier.fp32.onnx")
    with pytest.raises(BundleError, match=r"classifier\.fp32\.onnx"):
        list(write_kit(broken, tmp_path / "kit", data, quiet))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_split_without_pictures_is_one_clear_line(bundle, data, tmp_path):
    with pytest.raises(QuantizeError, match=r"no pictures of split 'test' to calibrate on; .* --calibration-split"):
        list(write_kit(bundle, tmp_path / "kit", replace(data, calibration_split="test", scenes=[]), quiet))
    assert list(tmp_path.iterdir()) == []


def test_command_without_pictures_is_one_clear_line(bundle, tmp_path, capsys):
    assert cli.main(["kit", str(bundle), "-o", str(tmp_path / "kit")]) == 1
    assert capsys.readouterr().err == (
        "edge-quantize: a kit needs calibration pictures; give --index, --scenes or both, as for pack\n"
    )
