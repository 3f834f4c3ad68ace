"""The trial of every engine and form of a bundle, with fake engines of scripted answers, speed and errors."""

from __future__ import annotations

import hashlib
import json
import textwrap

import pytest

from edge.bundle import choose_engines as module
from edge.bundle.bundle import read_bundle
from edge.bundle.choose_engines import TrialOptions, choose_engines
from edge.errors import BundleError, EngineError
from tests.engine_package import install_engine
from tests.sample_models import shapes_model

# sums the pixels of the first two rows of a picture; the file says how long a run takes and what goes wrong
FAKE = textwrap.dedent("""
    import json, os, time
    import numpy as np
    forms = ("fake-form",)
    def is_usable():
        return None
    class Engine:
        inputs, outputs, library = [("image",)], [("output0",)], "fake 1"
        def __init__(self, path):
            self.told = json.loads(path.read_text())
        def run(self, batch):
            time.sleep(self.told.get("ms", 0) / 1000)
            if self.told.get("crash"): os.abort()
            brightest = batch.max(axis=(1, 2, 3)).astype(np.float32)[:, None]
            factors = np.asarray(self.told["factors"], np.float32)
            return [brightest * factors]
    def open(path, threads, max_batch, cache):
        return Engine(path)
""")
FACTORS = [1.0, 1.0, 1.0, 1.0]


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """Return a function that writes a bundle of one embedder, with a form for the fake engine."""
    install_engine(tmp_path / "site", "fake", FAKE, monkeypatch)
    monkeypatch.setattr(module, "unusable", lambda name: None if name == "onnxruntime" else "not here")

    def make(fake: dict | None = None, **changes):
        folder = tmp_path / "bundle"
        files = {"fp32": "model.fp32.onnx"}
        contents = {"model.fp32.onnx": shapes_model([4], factor=1.0)}
        if fake is not None:
            files["fake-form"] = "model.fake-form.bin"
            contents["model.fake-form.bin"] = json.dumps({"factors": FACTORS} | fake).encode()
        folder.mkdir(exist_ok=True)
        for path, data in contents.items():
            (folder / path).write_bytes(data)
        model = {
            "files": files,
            "ship": "fp32",
            "input_name": "image",
            "output_names": ["output0"],
            "preprocess": {"width": 64, "height": 64},
            "categories": ["tyre"],
            "heads": [{"name": "class", "dim": 4}],
            "space_id": "a" * 64,
            "max_batch": 4,
        }
        entries = [
            {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in contents.items()
        ]
        manifest = {
            "schema": 1,
            "bundle_id": "one",
            "sequence": 1,
            "created_at": "2026-01-01T00:00:00Z",
            "runtimes": ["fp32"],
            "files": entries,
            "embedders": [model | changes],
        }
        (folder / "bundle.json").write_text(json.dumps(manifest))
        return read_bundle(folder)

    return make


def chosen(bundle, **options):
    return choose_engines(bundle.folder, bundle.manifest, TrialOptions(**options)).models["embedder tyre"]


def row(model, backend):
    return next(one for one in model.tried if one.backend == backend)


def test_slower_engine_that_passed_is_not_chosen(bundle):
    model = chosen(bundle({"ms": 20}))
    assert (model.backend, model.form) == ("onnxruntime", "fp32")
    assert row(model, "fake").problem is None
    assert row(model, "fake").ms >= 20
    assert "agrees with the reference on synthetic pictures, cosine 1.0000" in row(model, "fake").evidence
    assert model.reason.startswith("fastest of 2 that passed, ")


def test_faster_engine_of_a_plug_in_is_chosen(bundle, monkeypatch):
    slow = chosen(bundle({}))  # the fake takes microseconds, as ONNX Runtime may: only its being proved is certain
    assert row(slow, "fake").problem is None
    times = {"onnxruntime": 5.0, "fake": 1.0}
    monkeypatch.setattr(
        module.TrialEngine, "time_ms", lambda self, *_, **__: [times[self._process.backend]] * 5, raising=True
    )
    model = chosen(bundle({}))
    assert (model.backend, model.form) == ("fake", "fake-form")
    assert "the bundle has no probes for it" in model.reason


def test_engine_with_other_outputs_is_out_with_the_reason(bundle):
    model = chosen(bundle({"factors": [1.0, -1.0, 1.0, 1.0]}))
    assert (model.backend, model.form) == ("onnxruntime", "fp32")
    assert "differs from the reference on synthetic pictures: cosine 0.5000" in row(model, "fake").problem


def test_engine_that_crashes_is_out_and_the_others_go_on(bundle):
    model = chosen(bundle({"crash": True}))
    assert (model.backend, model.form) == ("onnxruntime", "fp32")
    assert "its process ended with signal SIGABRT" in row(model, "fake").problem


def test_engine_that_cannot_run_here_is_left_out_and_logged(tmp_path, bundle, caplog):
    code = FAKE.replace("return None", 'return "no accelerator at /dev/fake0"', 1)
    (tmp_path / "site" / "fake_engine.py").write_text(code)
    model = chosen(bundle({}))
    assert [str(one) for one in model.tried] == ["onnxruntime fp32"]
    assert "no accelerator at /dev/fake0" in caplog.text
    with pytest.raises(EngineError, match="no accelerator at /dev/fake0"):
        chosen(bundle({}), backend="fake")


def test_named_engine_is_tried_alone(bundle):
    model = chosen(bundle({}), backend="fake")
    assert [str(one) for one in model.tried] == ["fake fake-form"]
    assert model.reason.startswith("the only one; ")


def test_nothing_that_passes_is_an_error_with_every_reason(bundle):
    wrong = bundle({"factors": [-1.0, 1.0, 1.0, 1.0]})
    with pytest.raises(BundleError, match=r"embedder tyre: no engine passed on this machine: fake fake-form: differs"):
        chosen(wrong, backend="fake")


def test_engine_that_builds_for_minutes_waits_for_the_background(bundle, monkeypatch):
    monkeypatch.setattr(module, "unusable", lambda name: None if name in ("onnxruntime", "tensorrt") else "not here")
    one = bundle()
    choice = choose_engines(one.folder, one.manifest, TrialOptions())
    assert choice.pending == ["tensorrt"]
    assert [str(row) for row in choice.models["embedder tyre"].tried] == ["onnxruntime fp32"]
