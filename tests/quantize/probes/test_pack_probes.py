"""Golden probes of crops and scenes, packed by the command with networks from elsewhere."""

import json

import numpy as np
import pytest

from edge.bundle.golden_probes import verify_bundle
from edge.errors import BundleError
from edge.imaging.image import encode_image
from edge.inference.engine import open_engine
from edge.inference.stages import Detector
from edge.manifest.manifest import SceneProbe, parse_manifest
from quantize import cli
from quantize.dataset import read_scenes
from quantize.network_spec import model_entry
from quantize.probes.choose_probes import choose_scene_probes
from tests import onnx_samples as samples

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Write a COCO folder of red squares, with names that no network has; pictures of both splits."""
    folder = tmp_path_factory.mktemp("scenes")
    images, annotations = [], []
    for number in range(12):
        picture = np.full((128, 128, 3), 90, np.uint8)
        x, y = 32 * (number % 3), 32 * (number % 2)
        picture[y : y + 64, x : x + 64] = samples.RED
        (folder / f"{number}.png").write_bytes(encode_image(picture, ".png"))
        images.append({"id": number, "file_name": f"{number}.png", "split": "val" if number % 2 else "train"})
        annotations.append({"image_id": number, "category_id": 7, "bbox": [x, y, 64, 64]})
    tree = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "Kiste"}]}
    (folder / "boxes.json").write_text(json.dumps(tree))
    return folder


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """Write an index of plain colours, with a catalogue."""
    folder = tmp_path_factory.mktemp("crops")
    rows = ["path,split,category,item"]
    for split, count in ("train", 2), ("val", 6), ("catalogue", 1):
        for item, colour in COLOURS.items():
            for number in range(count):
                name = f"{split}-{item}-{number}.png"
                noise = np.random.default_rng(len(rows)).integers(-20, 20, (40, 40, 3))
                picture = np.clip(np.asarray(colour) + noise, 0, 255).astype(np.uint8)
                (folder / name).write_bytes(encode_image(picture, ".png"))
                rows.append(f"{name},{split},box,{item}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    samples.detector(folder / "detector.onnx")
    samples.embedder(folder / "embedder.onnx")
    samples.embedder(folder / "other.onnx", sign=-1.0)
    return folder


def packed(out, *options):
    """Run the pack command; return its code and the manifest."""
    arguments = ["pack", "--id", out.name, "--sequence", "1", "--out", out, "--precision", "fp32", *options]
    code = cli.main([str(one) for one in arguments])
    return code, parse_manifest((out / "bundle.json").read_text(), "bundle.json") if code == 0 else None


def test_detector_from_elsewhere_is_probed_with_scenes(networks, scenes, tmp_path):
    code, manifest = packed(tmp_path / "b", "--detector-onnx", networks / "detector.onnx", "--scenes", scenes)
    assert code == 0
    assert 1 <= len(manifest.scene_probes) <= 4
    assert {label for probe in manifest.scene_probes for label in probe.labels} == {"thing"}
    assert all(result.passed for result in verify_bundle(tmp_path / "b"))


def test_device_refuses_a_detector_that_finds_other_objects(networks, scenes, tmp_path):
    packed(tmp_path / "b", "--detector-onnx", networks / "detector.onnx", "--scenes", scenes)
    path = tmp_path / "b" / "bundle.json"
    tree = json.loads(path.read_text())
    for probe in tree["scene_probes"]:
        probe["labels"] = ["other"] * len(probe["labels"])
    path.write_text(json.dumps(tree))
    with pytest.raises(BundleError, match=r"probes failed on this machine.*0 of \d+ objects found"):
        verify_bundle(tmp_path / "b")


def test_crops_and_scenes_both_give_probes(networks, scenes, crops, tmp_path):
    code, manifest = packed(
        tmp_path / "b", "--detector-onnx", networks / "detector.onnx", "--scenes", scenes,
        "--embedder", networks / "embedder.onnx", "--index", crops,
    )  # fmt: skip
    assert code == 0
    assert len(manifest.probes) >= 8
    assert manifest.scene_probes
    assert all(result.passed for result in verify_bundle(tmp_path / "b"))


def test_embedder_without_crops_is_packed_with_probes_of_the_detector(networks, scenes, tmp_path, caplog):
    code, manifest = packed(
        tmp_path / "b", "--detector-onnx", networks / "detector.onnx", "--scenes", scenes,
        "--embedder", networks / "embedder.onnx",
    )  # fmt: skip
    assert (code, manifest.probes, bool(manifest.scene_probes)) == (0, [], True)
    assert "no probe checks the embedders of box; for them, give --index" in caplog.text


def test_no_probe_at_all_is_an_error_that_says_which_data_to_give(networks, tmp_path, capsys):
    code, _ = packed(tmp_path / "b", "--detector-onnx", networks / "detector.onnx")
    assert code == 1
    error = capsys.readouterr().err
    assert "give --scenes with pictures of split 'val'" in error
    assert "or pack with --no-probes" in error
    assert packed(tmp_path / "b", "--detector-onnx", networks / "detector.onnx", "--no-probes")[0] == 0


def test_network_of_another_kind_is_refused(networks, crops, tmp_path, capsys):
    assert packed(tmp_path / "b", "--classifier", networks / "embedder.onnx", "--index", crops)[0] == 1
    assert "its kind is embedder; give it with --embedder" in capsys.readouterr().err


@pytest.fixture(scope="module")
def base(networks, scenes, crops, tmp_path_factory):
    out = tmp_path_factory.mktemp("base") / "base"
    packed(
        out, "--detector-onnx", networks / "detector.onnx", "--scenes", scenes,
        "--embedder", networks / "embedder.onnx", "--index", crops,
    )  # fmt: skip
    return out


def test_probes_of_a_replaced_embedder_are_dropped_without_new_ones(base, networks, crops, tmp_path):
    code, manifest = packed(
        tmp_path / "b", "--base", base, "--embedder", networks / "other.onnx", "--index", crops, "--no-probes"
    )
    assert (code, manifest.probes, bool(manifest.scene_probes)) == (0, [], True)
    assert all(result.passed for result in verify_bundle(tmp_path / "b"))


def test_probes_of_a_replaced_detector_are_dropped_without_new_ones(base, networks, scenes, tmp_path):
    code, manifest = packed(
        tmp_path / "b", "--base", base, "--detector-onnx", networks / "detector.onnx", "--scenes", scenes, "--no-probes"
    )
    assert (code, manifest.scene_probes, len(manifest.probes) >= 8) == (0, [], True)


def test_base_model_that_differs_from_its_manifest_is_refused(base, networks, tmp_path, capsys):
    path = base / "bundle.json"
    text = path.read_text()
    path.write_text(text.replace('"vector"', '"vectors"'))
    try:
        code, _ = packed(tmp_path / "b", "--base", base, "--detector-onnx", networks / "detector.onnx", "--no-probes")
    finally:
        path.write_text(text)
    assert code == 1
    assert "has the outputs ['vector'], in this order, but its spec says" in capsys.readouterr().err


def test_external_weights_are_inside_the_bundle(networks, scenes, tmp_path):
    weights = samples.move_weights(samples.detector(tmp_path / "det.onnx"))
    code, _ = packed(tmp_path / "b", "--detector-onnx", tmp_path / "det.onnx", "--scenes", scenes)
    weights.unlink()
    assert code == 0
    assert all(result.passed for result in verify_bundle(tmp_path / "b"))


def test_unreadable_pictures_do_not_stop_the_pack(networks, crops, tmp_path, capsys):
    names = sorted(path.name for path in crops.glob("*.png"))
    (tmp_path / "data").mkdir()
    for name in (*names, "index.csv"):
        (tmp_path / "data" / name).write_bytes((crops / name).read_bytes())
    for name in ("train-red-0.png", "val-red-0.png", "catalogue-blue-0.png"):
        (tmp_path / "data" / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    code, manifest = packed(tmp_path / "b", "--embedder", networks / "embedder.onnx", "--index", tmp_path / "data")
    assert code == 0
    assert manifest.provenance["data"]["pictures"]["left_out"] == 2  # FP32 needs no calibration
    assert "catalogue-blue-0.png" in capsys.readouterr().err


def test_int8_is_calibrated_on_readable_pictures(networks, scenes, tmp_path, capsys):
    arguments = ["quantize", networks / "detector.onnx", tmp_path / "int8.onnx", "--scenes", scenes]
    assert cli.main([str(one) for one in arguments]) == 0
    assert '"calibration_images": 6' in capsys.readouterr().out


def loaded(path, **changes):
    entry = model_entry(samples.detector_spec(**changes), {"fp32": path.name}, "fp32", "")
    return Detector(entry, open_engine(path))


def test_scene_probe_holds_for_every_form_of_the_detector(networks, scenes, tmp_path):
    found, _ = read_scenes(scenes)
    first, blind = loaded(networks / "detector.onnx"), loaded(samples.detector(tmp_path / "b.onnx", gain=0.0))
    assert choose_scene_probes(found, [first, first])
    assert choose_scene_probes(found, [first, blind]) == []


def test_scene_probe_needs_a_label_for_each_box():
    with pytest.raises(ValueError, match="found 0 labels, expected 1"):
        SceneProbe(path="probes/a.png", boxes_px=[(0, 0, 9, 9)], labels=[])
