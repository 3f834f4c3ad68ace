"""The real engines of this machine: an activation chooses, the device uses it, a vendor's package takes part."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge.bundle import slots
from edge.bundle.bundle import read_bundle
from edge.bundle.install import install_bundle, install_gallery
from edge.bundle.prove import ProofOptions, prove_bundle
from edge.config.schema import EngineConfig
from edge.inference.engine_choice import EngineChoice, ModelChoice, Tried, choice_path, read_choice, write_choice
from tests.demo_bundles import demo_manifest, write_variant
from tests.engine_package import install_engine
from tests.store_samples import trusted

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/engine-plugins.md"


def smaller_bundle(folder: Path) -> Path:
    """The demo bundle's classifier and one embedder: a trial of a few seconds."""
    manifest = demo_manifest()
    manifest["detector"], manifest["finder"], manifest["scene_probes"] = None, None, []
    manifest["embedders"] = [one for one in manifest["embedders"] if one["categories"] == ["can"]]
    manifest["probes"] = [probe for probe in manifest["probes"] if probe["category"] == "can"]
    return write_variant(folder, manifest)


@pytest.fixture
def state_dir(tmp_path) -> Path:
    """A device on which that bundle is installed."""
    state_dir = tmp_path / "device"
    generation = install_gallery(ROOT / "demo/gallery", state_dir)
    slots.stage(state_dir, install_bundle(smaller_bundle(tmp_path / "small"), state_dir), generation)
    return state_dir


def test_activation_chooses_and_the_device_uses_the_choice(state_dir):
    from edge.build import load_state

    slots.activate(state_dir)
    bundle, _ = slots.read_active(state_dir)
    choice = read_choice(choice_path(state_dir, bundle.manifest))
    assert set(choice.models) == {"classifier", "embedder can"}
    for model in choice.models.values():
        chosen = next(one for one in model.tried if (one.backend, one.form) == (model.backend, model.form))
        assert chosen.problem is None
        assert chosen.ms > 0
        assert {one.form for one in model.tried if one.backend == "onnxruntime"} >= {"ort-u8", "fp32"}
    engines = load_state(state_dir, EngineConfig()).stages.engines
    assert {name: (one.backend, one.form) for name, one in engines.items()} == choice.decisions()
    assert all(one.since for one in engines.values())
    named = load_state(state_dir, EngineConfig(backend="onnxruntime", precision="fp32")).stages.engines
    assert {(one.backend, one.form) for one in named.values()} == {("onnxruntime", "fp32")}


def test_chosen_engine_that_is_gone_is_replaced_with_a_reason(state_dir, caplog):
    from edge.build import load_state

    slots.activate(state_dir, prove=trusted)
    bundle, _ = slots.read_active(state_dir)
    gone = Tried(backend="acme-npu", form="fp32", ms=0.1, score_ms=0.1)
    model = ModelChoice(backend="acme-npu", form="fp32", since="2026-01-01T00:00:00Z", reason="", tried=[gone])
    fields = {"bundle_id": "demo-1", "made_at": "2026-01-01T00:00:00Z", "backend": "auto", "machine": {}}
    choice = EngineChoice(schema=1, models={"classifier": model}, **fields)
    write_choice(choice_path(state_dir, bundle.manifest), choice)
    engine = load_state(state_dir, EngineConfig()).stages.engines["classifier"]
    assert (engine.backend, engine.form) == ("onnxruntime", "ort-u8")
    assert engine.reason == "acme-npu fp32 was chosen, but cannot be loaded"
    assert "engine acme-npu: no installed package offers it" in caplog.text


def test_engine_of_the_documentation_takes_part(tmp_path, monkeypatch, capsys):
    from edge.cli import main

    plugin, add_form = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(plugin.splitlines()) <= 55
    install_engine(tmp_path / "site", "acme-npu", plugin, monkeypatch, target="acme_npu_engine")
    (tmp_path / "add_form.py").write_text(add_form)
    bundle = smaller_bundle(tmp_path / "shop")
    for name, form in (("classifier", "classifier"), ("embedder can", "embedder-can")):
        compiled = tmp_path / f"{form}.bin"
        shutil.copyfile(bundle / f"models/{form}.fp32.onnx", compiled)
        command = [sys.executable, str(tmp_path / "add_form.py"), str(bundle), name, "acme-bin", str(compiled)]
        subprocess.run(command, check=True)
    assert read_bundle(bundle).manifest.classifier.every_file["acme-bin"] == "models/classifier.acme-bin.bin"
    assert main(["bundle", "prove", str(bundle), "--state-dir", str(tmp_path), "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    for model in models.values():
        acme = next(one for one in model["tried"] if one["backend"] == "acme-npu")
        assert acme["problem"] is None
        assert acme["ms"] > 0
        assert acme["evidence"].endswith("probes passed")
    assert not (tmp_path / "engines").exists()  # a folder is no installed bundle

    proof = prove_bundle(bundle, None, ProofOptions("acme-npu", choose=True))
    assert set(proof.choice.decisions().values()) == {("acme-npu", "acme-bin")}
    assert all(": ok" in line for line in proof.lines)
