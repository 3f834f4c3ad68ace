"""Declaration of older galleries that a new bundle can search, and a device that uses it."""

import json
import shutil

import numpy as np
import pytest
import torch

from edge.build import load_models
from edge.bundle.bundle import read_bundle
from edge.config.schema import EngineConfig
from edge.errors import BundleError
from edge.manifest.embedder import Head
from quantize import cli
from quantize.build_network import Policy, build_network
from quantize.bundle import pack
from quantize.bundle.backward_compatible import CrossSpaceRecall, measure, reason_against
from quantize.export import export_module
from tests.quantize_samples import CATEGORIES, ITEMS_OF, crop_of, network
from trainer.catalogue.embed_gallery import embed_gallery
from trainer.data.dataset import read_samples

FP32 = Policy(precision="fp32")


def row(text: str) -> np.ndarray:
    return np.array([mark == "x" for mark in text])


def quiet(pictures, what):
    return pictures


def noisy_embedder(strength: float) -> torch.nn.Module:
    """The sample embedder, with two outputs that follow the noise of a picture instead of its item."""
    net, _ = network("embedder")
    items = [item for category in CATEGORIES for item in ITEMS_OF[category]]
    pixels = torch.stack([torch.from_numpy(crop_of(item, seed)) for item in items for seed in range(500, 520)])
    with torch.no_grad():
        features = net.trunk((pixels.permute(0, 3, 1, 2) / 255 - 128 / 255) / 0.25).mean(dim=(2, 3))
        means = features.view(len(items), -1, 16).mean(dim=1)
        same = torch.linalg.svd(means - means.mean(dim=0))[2][
            len(items) - 1 :
        ]  # directions in which all items are equal
        noise = (features - features.mean(dim=0)) @ same.T
        axes = torch.linalg.svd(noise, full_matrices=False)[2][:2] @ same
        axes *= strength / ((features - features.mean(dim=0)) @ axes.T).std(dim=0)[:, None]
        net.linear.weight[6:], net.linear.bias[6:] = axes, -(axes @ features.mean(dim=0))
    return net


@pytest.fixture(scope="module")
def bundles(exported, data, data_folder, tmp_path_factory):
    """An old bundle with a noisy embedder and its gallery, a compatible bundle and an incompatible one."""
    folder = tmp_path_factory.mktemp("compatible")
    good, spec = network("embedder")
    turned, _ = network("embedder")
    with torch.no_grad():  # as accurate, in another space
        turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2)))[0]
        turned.linear.weight.copy_(turn @ turned.linear.weight)
        turned.linear.bias.copy_(turn @ turned.linear.bias)
    for name, net in ("old", noisy_embedder(20.0)), ("new", good), ("turned", turned):
        export_module(net, spec, folder / f"{name}.onnx")
    work = folder / "work"
    work.mkdir()
    classifier = build_network("classifier", exported["classifier"], work, data, FP32, quiet)
    for number, name in enumerate(("old", "new", "turned")):
        embedder = build_network("embedder", folder / f"{name}.onnx", work, data, FP32, quiet)
        older = () if name == "old" else (folder / "bundle-old",)
        options = pack.PackOptions(name, number, folder / f"bundle-{name}", with_probes=False, compatible_with=older)
        pack.pack(options, [classifier, embedder], data)
    catalogue = [s for s in read_samples(data_folder / "index.csv") if s.split == "catalogue"]
    embed_gallery(folder / "bundle-old", catalogue, folder / "gallery", created_at="2026-01-01T00:00:00Z")
    return folder


def test_recall_and_gain_use_the_same_queries():
    measured = measure(row("xxxx......"), row("xxxxxx...."), row("xxxxxxxx.."))
    assert (measured.old_old, measured.new_old, measured.new_new, measured.queries) == (0.4, 0.6, 0.8, 10)
    assert measured.update_gain == pytest.approx(0.5)
    assert measured.change_95[0] < 0.2 < measured.change_95[1]
    assert measure(row("x"), row("x"), row("x")).update_gain is None


@pytest.mark.parametrize(
    ("measured", "why"),
    [
        (CrossSpaceRecall(0.80, 0.85, 0.9, 200, (0.01, 0.09)), ""),
        (CrossSpaceRecall(0.80, 0.80, 0.9, 200, (-0.01, 0.01)), "is not above that of the old embedder, 0.8000"),
        (CrossSpaceRecall(0.80, 0.79, 0.9, 200, (-0.02, 0.01)), "is not above that of the old embedder, 0.8000"),
        (
            CrossSpaceRecall(0.80, 0.81, 0.9, 200, (-0.03, 0.05)),
            "may change by -0.0300 .* the limit is -0.0200",
        ),
        (CrossSpaceRecall(0.80, 0.95, 0.9, 12, (0.01, 0.2)), "only 12 held-out crops .* 30 or more are needed"),
    ],
)
def test_only_a_certain_improvement_is_declared(measured, why):
    import re

    found = reason_against(measured, 0.02)
    assert re.search(why, found) if why else not found


def test_bundle_declares_the_old_space_with_recall_and_thresholds(bundles):
    new, old = (read_bundle(bundles / f"bundle-{name}").manifest for name in ("new", "old"))
    declared = new.embedders[0].compatible
    assert declared, new.evaluation["embedder"]["compatible"]
    for one in declared:
        assert one.space_id == old.embedders[0].space_id != new.embedders[0].space_id
        assert one.new_old > one.old_old
        assert one.queries == 36
        assert one.open_set != new.embedders[0].open_set[one.category]
        assert new.evaluation["embedder"]["compatible"]["old"][one.category]["declared"] is True


def test_incompatible_space_is_not_declared_and_evaluation_says_why(bundles):
    turned = read_bundle(bundles / "bundle-turned").manifest
    assert turned.embedders[0].compatible == []
    for result in turned.evaluation["embedder"]["compatible"]["old"].values():
        assert result["declared"] is False
        assert "is not above that of the old embedder" in result["why"]
        assert result["new_new"] > result["old_old"]


def test_device_searches_the_old_gallery_with_declared_thresholds(bundles):
    models = load_models(bundles / "bundle-new", bundles / "gallery", EngineConfig(backend="onnxruntime"))
    declared = {one.category: one for one in read_bundle(bundles / "bundle-new").manifest.embedders[0].compatible}
    assert models.compatible_categories == frozenset(declared)
    assert all(models.open_sets[category] == one.open_set for category, one in declared.items())


def test_device_rejects_an_undeclared_old_gallery(bundles):
    with pytest.raises(BundleError, match=r"in embedding space .*; embed the gallery with this bundle"):
        load_models(bundles / "bundle-turned", bundles / "gallery", EngineConfig(backend="onnxruntime"))


def test_embedder_with_other_heads_is_not_compatible(bundles, data, exported, tmp_path):
    shutil.copytree(bundles / "bundle-old", tmp_path / "wide")
    manifest = json.loads((tmp_path / "wide" / "bundle.json").read_text())
    manifest["embedders"][0]["heads"] = [Head(name="class", dim=4).model_dump(), Head(name="local", dim=4).model_dump()]
    (tmp_path / "wide" / "bundle.json").write_text(json.dumps(manifest))
    embedder = build_network("embedder", bundles / "new.onnx", tmp_path, data, FP32, quiet)
    options = pack.PackOptions("n", 9, tmp_path / "n", with_probes=False, compatible_with=(tmp_path / "wide",))
    row_of_box = pack.pack(options, [embedder], data).evaluation["embedder"]["compatible"]["old"]["box"]
    assert (row_of_box["declared"], row_of_box["queries"]) == (False, 0)
    assert "the old embedder has other heads" in row_of_box["why"]


def test_pack_command_prints_which_galleries_may_be_searched(bundles, data_folder, tmp_path, capsys):
    arguments = [
        "--log-level", "warning", "pack", "--id", "cmd", "--sequence", "5", "--out", str(tmp_path / "cmd"),
        "--embedder", str(bundles / "turned.onnx"), "--index", str(data_folder / "index.csv"), "--precision", "fp32",
        "--no-probes", "--compatible-with", str(bundles / "bundle-old"),
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    assert "box: galleries of bundle old may NOT be searched" in capsys.readouterr().out
    with pytest.raises(BundleError):
        read_bundle(tmp_path / "nothing")
