"""Packing networks into a bundle."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge.bundle.golden_probes import run_probes
from edge.errors import QuantizeError
from edge.inference.stages import load_stages
from edge.manifest.manifest import parse_manifest
from edge.manifest.space_id import embedding_space_id
from edge.telemetry.timing import Timings
from quantize import build_network as build
from quantize import cli
from quantize.build_network import Policy, build_network
from quantize.bundle import pack
from quantize.compare_forms import evaluate
from quantize.dataset import Data
from quantize.network_spec import read_spec, spec_path

EAGER = Policy(min_speedup=0.001, saturates=True)  # ships INT8 whatever the speed of this machine


def quiet(pictures, what):
    return pictures


@pytest.fixture(scope="module")
def networks(exported, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    return [build_network(kind, exported[kind], folder, data, EAGER, quiet) for kind in ("classifier", "embedder")]


@pytest.fixture(scope="module")
def packed(networks, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "one"
    pack.pack(pack.PackOptions("one", 1, out), networks, data)
    return out


def test_bundle_holds_only_the_shipped_form_and_a_valid_manifest(packed, exported):
    manifest = parse_manifest((packed / "bundle.json").read_text(), "bundle.json")
    assert manifest.classifier is not None
    assert list(manifest.classifier.files) == ["ort-u8"]
    assert sorted(p.name for p in (packed / "models").iterdir()) == ["classifier.ort-u8.onnx", "embedder.ort-u8.onnx"]
    assert manifest.waived == []
    assert manifest.runtimes == ["ort-u8"]
    assert {entry.path for entry in manifest.files} == {
        p.relative_to(packed).as_posix() for p in packed.rglob("*.*") if p.name != "bundle.json"
    }


def test_space_id_is_derived_from_the_fp32_network(packed, networks):
    manifest = parse_manifest((packed / "bundle.json").read_text(), "bundle.json")
    spec = networks[1].spec
    expected = embedding_space_id(networks[1].provenance["fp32_sha256"], spec.preprocess, spec.heads)
    assert manifest.embedders[0].space_id == expected


def test_evaluation_holds_fp32_and_int8_metrics_and_every_gate(packed):
    evaluation = json.loads((packed / "bundle.json").read_text())["evaluation"]
    assert evaluation["classifier"]["metrics"]["top1"] == {"fp32": 1.0, "int8": 1.0}
    assert set(evaluation["classifier"]["metrics"]["latency_ms"]) == {"fp32", "int8"}
    assert evaluation["embedder"]["gates"]["recall_at_1_fp32_gallery"]["samples"] == 72
    assert evaluation["embedder"]["open_set"]["box"]["known"] > 100  # 36 crops, 20 rounds, some left out


def test_provenance_holds_tools_and_calibration(packed):
    provenance = json.loads((packed / "bundle.json").read_text())["provenance"]
    assert {"onnx", "onnxruntime", "numpy"} <= set(provenance["tools"])
    assert len(provenance["models"]["embedder"]["calibration_digest"]) == 64
    assert provenance["models"]["embedder"]["saturation_free"] is True


def test_probes_pass_on_their_bundle_and_cover_every_category(packed):
    manifest = parse_manifest((packed / "bundle.json").read_text(), "bundle.json")
    results = run_probes(packed, manifest.probes, load_stages(packed, manifest, "onnxruntime"))
    assert 8 <= len(results) <= 32
    assert all(result.passed for result in results)
    assert {probe.category for probe in manifest.probes} == {"box", "can"}
    assert {probe.item_id for probe in manifest.probes} >= {"red", "yellow"}


def test_keep_both_packs_fp32_and_int8(networks, data, tmp_path):
    manifest = pack.pack(
        pack.PackOptions("two", 2, tmp_path / "two", keep_both=True, with_probes=False), networks, data
    )
    assert manifest.classifier is not None
    assert set(manifest.classifier.files) == {"fp32", "ort-u8"}
    assert manifest.runtimes == ["fp32", "ort-u8"]


def damage(path):
    """Negate the weights of an INT8 network, as a wrong calibration might."""
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4:
            weight = numpy_helper.to_array(tensor)
            broken = -weight if weight.shape[1] > 1 else weight
            tensor.CopyFrom(numpy_helper.from_array(broken.astype(np.int8), tensor.name))
    onnx.save(model, str(path))


@pytest.fixture
def broken_network(networks, exported, data, tmp_path):
    """Return a function that builds a damaged INT8 network under a policy."""

    def build_broken(policy):
        int8 = tmp_path / "broken.onnx"
        int8.write_bytes(networks[0].forms["ort-u8"].read_bytes())
        damage(int8)
        _, gates, _ = evaluate(networks[0].spec, exported["classifier"], int8, data, policy.min_speedup)
        ship, why, failed, waived = build.choose_form("classifier", gates, policy)
        forms = {"fp32": exported["classifier"], "ort-u8": int8}
        return replace(networks[0], forms=forms, ship=ship, why=why, failed=failed, waived=waived)

    return build_broken


def test_broken_int8_network_is_rejected_with_its_failed_gates(broken_network, data, tmp_path):
    with pytest.raises(QuantizeError, match=r"failed gates.*classifier\.top1"):
        pack.pack(pack.PackOptions("three", 3, tmp_path / "three"), [broken_network(EAGER)], data)
    assert not (tmp_path / "three").exists()


def test_waived_gates_are_packed_and_recorded(broken_network, data, tmp_path):
    waived = frozenset({"classifier.top1", "classifier.flip_rate", "classifier.worst_class"})
    network = broken_network(replace(EAGER, waived=waived))
    manifest = pack.pack(pack.PackOptions("four", 4, tmp_path / "four", with_probes=False), [network], data)
    assert "classifier.top1" in manifest.waived
    assert manifest.classifier is not None
    assert manifest.classifier.ship == "ort-u8"


def test_existing_folder_is_not_overwritten(networks, data, tmp_path):
    with pytest.raises(QuantizeError, match="already exists; choose a new --out folder"):
        pack.pack(pack.PackOptions("five", 5, tmp_path), networks, data)


def mislabelled(data):
    """The same data, with held-out crops of each item named as the next one: no vector can name them rightly."""
    following = {}
    for category in data.categories():
        items = sorted({sample.item for sample in data.samples if sample.category == category})
        following |= {(category, item): items[(n + 1) % len(items)] for n, item in enumerate(items)}
    return replace(
        data,
        samples=[
            replace(one, item=following[one.category, one.item]) if one.split == "val" else one for one in data.samples
        ],
    )


def test_bundle_that_can_name_nothing_is_refused(networks, data, tmp_path):
    with pytest.raises(QuantizeError, match=r"can name nothing.*the best category names \d%.*embedder\.named"):
        pack.pack(pack.PackOptions("six", 6, tmp_path / "six"), networks, mislabelled(data))
    assert list(tmp_path.iterdir()) == []


def test_bundle_that_can_name_nothing_is_packed_if_waived(networks, data, tmp_path):
    options = pack.PackOptions("six", 6, tmp_path / "six", with_probes=False, waived=frozenset({"embedder.named"}))
    manifest = pack.pack(options, networks, mislabelled(data))
    assert manifest.waived == ["embedder.named"]
    assert any("2 of 2 categories name next to none" in text for text in manifest.evaluation["warnings"])


def test_nothing_held_out_gives_a_cautious_rule_without_probability(networks, data, tmp_path):
    nothing = Data([sample for sample in data.samples if sample.split != "val"], [])
    manifest = pack.pack(pack.PackOptions("seven", 7, tmp_path / "seven"), networks, nothing)
    rules = manifest.embedders[0].open_set
    assert rules["box"] == rules["can"]
    assert not rules["box"].calibrated
    assert 0 < rules["box"].threshold < 1
    evaluation = manifest.evaluation["embedder"]
    assert evaluation["named"] is None
    assert "answers have no probability" in manifest.evaluation["warnings"][0]
    assert evaluation["open_set"]["box"]["rule"].startswith("cautious, from the gallery's own pictures")
    assert len(manifest.probes) >= 8  # from the gallery


def test_rules_of_a_calibrated_bundle_say_how_much_is_named(packed):
    manifest = parse_manifest((packed / "bundle.json").read_text(), "bundle.json")
    assert all(rule.calibrated for rule in manifest.embedders[0].open_set.values())
    evaluation = manifest.evaluation["embedder"]
    assert evaluation["named"] > 0.9
    assert manifest.evaluation["warnings"] == []
    assert manifest.embedders[0].open_set["box"] != manifest.embedders[0].open_set["can"]


def test_categories_without_a_classifier_share_one_rule(networks, data, tmp_path):
    manifest = pack.pack(pack.PackOptions("eight", 8, tmp_path / "eight", with_probes=False), networks[1:], data)
    rules = manifest.embedders[0].open_set
    assert rules["box"] == rules["can"]
    assert rules["box"].calibrated


def test_nothing_to_compare_on_falls_back_to_fp32(exported, data, tmp_path):
    nothing = Data([sample for sample in data.samples if sample.split != "val"], [])
    policy = replace(EAGER, fallback_fp32=True)
    network = build_network("embedder", exported["embedder"], tmp_path, nothing, policy, quiet)
    assert (network.ship, network.why) == ("fp32", "no pictures of split 'val' to compare INT8 on")


def test_slow_int8_ships_fp32_with_the_reason(exported, data, tmp_path):
    policy = Policy(min_speedup=1000.0, saturates=True)
    network = build_network("classifier", exported["classifier"], tmp_path, data, policy, quiet)
    assert network.ship == "fp32"
    assert "expected at least 1000.00x" in network.why


def test_detector_without_scenes_ships_fp32_with_the_reason(exported, data, tmp_path):
    blind = Data(data.samples, [])
    network = build_network("detector", exported["detector"], tmp_path, blind, EAGER, quiet)
    assert (network.ship, network.why) == ("fp32", "no pictures of split 'train' to calibrate INT8 on")


def test_pack_command_packs_three_stages(exported, data_folder, tmp_path, capsys):
    arguments = [
        "--log-level", "warning", "pack", "--id", "demo", "--sequence", "1", "--out", str(tmp_path / "demo"),
        "--detector", str(exported["detector"]), "--classifier", str(exported["classifier"]),
        "--embedder", str(exported["embedder"]), "--index", str(data_folder / "index.csv"),
        "--scenes", str(data_folder / "scenes.json"), "--precision", "fp32",
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    manifest = parse_manifest((tmp_path / "demo" / "bundle.json").read_text(), "bundle.json")
    assert manifest.detector is not None
    assert manifest.detector.why == "requested"
    assert "bundle demo" in capsys.readouterr().out


def test_quantize_and_compare_commands(exported, data_folder, tmp_path, capsys):
    common = ["--index", str(data_folder / "index.csv")]
    int8 = tmp_path / "int8.onnx"
    assert cli.main(["--log-level", "warning", "quantize", str(exported["classifier"]), str(int8), *common]) == 0
    assert read_spec(spec_path(int8)).kind == "classifier"
    code = cli.main(["compare", str(exported["classifier"]), str(int8), *common, "--min-speedup", "0.001"])
    out = capsys.readouterr().out
    assert code == 0, out
    assert "latency_ms" in out


def test_command_prints_our_errors_in_one_line(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path / "nothing"), str(tmp_path / "out.onnx")]) == 1
    assert capsys.readouterr().err.startswith("edge-quantize: ")


@pytest.fixture(scope="module")
def joint(exported, networks, data, tmp_path_factory):
    """The same bundle, with the classifier's descriptor in the vectors."""
    folder = tmp_path_factory.mktemp("joint")
    classifier = build_network("classifier", exported["describing"], folder, data, EAGER, quiet)
    pack.pack(pack.PackOptions("joint", 2, folder / "bundle", classifier_share=0.4), [classifier, networks[1]], data)
    return folder / "bundle"


def test_classifier_descriptor_in_vectors_is_packed_gated_and_probed(joint, packed):
    manifest, plain = (parse_manifest((p / "bundle.json").read_text(), "bundle.json") for p in (joint, packed))
    (embedder,) = manifest.embedders
    assert [(head.name, head.dim) for head in embedder.heads] == [("class", 8), ("classifier", 16)]
    assert (embedder.classifier_share, manifest.classifier.descriptor_dim) == (0.4, 16)
    assert embedder.space_id != plain.embedders[0].space_id
    assert {"top1", "cosine_mean", "cosine_p1"} <= set(manifest.evaluation["classifier"]["gates"])
    assert {len(probe.embedding_i8) for probe in manifest.probes} == {24}
    results = run_probes(joint, manifest.probes, load_stages(joint, manifest, "onnxruntime"))
    assert all(result.passed for result in results)


def test_rules_are_fitted_on_galleries_with_the_bundles_gathering(packed, networks, data, tmp_path):
    pack.pack(pack.PackOptions("apart", 2, tmp_path / "apart", gathering=0.0, with_probes=False), networks, data)
    apart, gathered = (
        parse_manifest((folder / "bundle.json").read_text(), "bundle.json").embedders[0]
        for folder in (tmp_path / "apart", packed)
    )
    assert (apart.gathering, gathered.gathering) == (0.0, pack.DEFAULT_GATHERING)
    assert apart.space_id == gathered.space_id
    assert apart.open_set["box"] != gathered.open_set["box"]


def test_kept_embedder_needs_the_classifier_whose_descriptor_it_uses(joint, networks, data, tmp_path):
    with pytest.raises(QuantizeError, match=r"give a new embedder together with the new classifier"):
        pack.pack(pack.PackOptions("next", 3, tmp_path / "next", base=joint, classifier_share=0.0), [networks[0]], data)


def test_new_embedder_on_a_base_keeps_the_classifier_share(joint, networks, data, tmp_path):
    pack.pack(pack.PackOptions("next", 3, tmp_path / "next", base=joint), [networks[1]], data)
    before, after = (
        parse_manifest((folder / "bundle.json").read_text(), "bundle.json").embedders[0]
        for folder in (joint, tmp_path / "next")
    )
    assert (after.classifier_share, after.gathering) == (0.4, before.gathering)
    assert after.space_id == before.space_id


def test_classifier_share_without_an_embedder_is_rejected(joint, networks, data, tmp_path):
    with pytest.raises(QuantizeError, match=r"classifier share 0.4 needs a new embedder"):
        pack.pack(pack.PackOptions("next", 3, tmp_path / "next", base=joint, classifier_share=0.4), networks[:1], data)


@pytest.mark.parametrize(
    ("option", "text"), [("--classifier-share", "1"), ("--gathering", "1.1"), ("--gathering", "-1")]
)
def test_share_out_of_range_is_a_usage_error(option, text, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["pack", "--id", "x", "--sequence", "1", "--out", str(tmp_path / "x"), f"{option}={text}"])
    assert f"{text} is not a number from 0 to" in capsys.readouterr().err


def test_classifier_share_without_a_descriptor_is_rejected(networks, data, tmp_path):
    with pytest.raises(QuantizeError, match=r"the classifier has no descriptor"):
        pack.pack(pack.PackOptions("joint", 2, tmp_path / "joint", classifier_share=0.4), networks, data)


@pytest.fixture(scope="module")
def localised(exported, networks, data, tmp_path_factory):
    """The same bundle with a localiser."""
    folder = tmp_path_factory.mktemp("localised")
    policy = Policy(precision="fp32")
    localiser = build_network("localiser", exported["localiser"], folder, data, policy, quiet)
    pack.pack(pack.PackOptions("localised", 2, folder / "bundle"), [localiser, *networks], data)
    return folder / "bundle"


def test_localiser_is_packed_with_the_gain_of_its_silhouettes(localised):
    manifest = parse_manifest((localised / "bundle.json").read_text(), "bundle.json")
    assert manifest.localiser.files == {"fp32": "models/localiser.fp32.onnx"}
    fits = manifest.evaluation["embedder"]["outline"]
    assert set(fits) == {"box", "can"}
    assert fits["box"]["queries"] == 36
    assert fits["box"]["pays"] is False  # crops without background all have the same silhouette
    assert manifest.embedders[0].outline == {}


def test_packed_localiser_finds_objects(localised):
    manifest = parse_manifest((localised / "bundle.json").read_text(), "bundle.json")
    localiser = load_stages(localised, manifest, "onnxruntime").localiser
    picture = np.full((64, 64, 3), 120, np.uint8)
    picture[16:48, 8:56] = (200, 40, 40)
    (mask,) = localiser.locate(picture, [(0.0, 0.0, 64.0, 64.0)], Timings())
    assert np.array_equal(mask[5:11, 4:12] >= 128, np.ones((6, 8), bool))
    assert (mask >= 128).mean() == pytest.approx(0.375, abs=0.12)


def test_int8_masks_are_compared_with_fp32_masks(exported, data, tmp_path):
    network = build_network("localiser", exported["localiser"], tmp_path, data, EAGER, quiet)
    assert network.evaluation["gates"]["mask_overlap"]["samples"] == 72
    assert network.evaluation["metrics"]["mask_overlap"]["fp32"] == 1.0
