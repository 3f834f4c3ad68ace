"""The demo's models in a store: loaded on demand within a budget, with the same bits as when all are loaded."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from edge.bundle.bundle import read_bundle
from edge.engine_store.engine_store import EngineStore
from edge.errors import NotLoadedError
from edge.inference.stages import load_stages
from edge.manifest.manifest import Manifest
from edge.telemetry.timing import Timings
from tests.fakes_engine import FakeCounts

DEMO = Path(__file__).parents[3] / "demo/bundle"
MIB = 2**20
CROP = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
BOX = (0.0, 0.0, 96.0, 96.0)
NAMES = ("can", "jar")


@pytest.fixture(scope="module")
def demo() -> Manifest:
    """The demo bundle with two of its embedders."""
    manifest = read_bundle(DEMO).manifest
    embedders = [model for model in manifest.embedders if model.categories[0] in NAMES]
    return manifest.model_copy(update={"embedders": embedders, "detector": None, "finder": None})


def embed(stages, name: str) -> np.ndarray:
    return stages.embedders[name].embed(CROP, [BOX], Timings())[0]


def test_two_models_in_a_budget_for_one_give_the_same_bits(demo):
    counts = FakeCounts()
    everything = load_stages(DEMO, demo, store=EngineStore(None, FakeCounts()))
    expected = {name: embed(everything, name) for name in NAMES}
    one = load_stages(DEMO, demo, store=EngineStore(1, counts))  # one embedder is loaded all the same
    for _ in range(2):
        for name in NAMES:
            np.testing.assert_array_equal(embed(one, name), expected[name])
            assert [e.status for e in one.store.memory()].count("loaded") == 2  # the classifier and this one
    assert counts.total["engine_evictions"] == 4  # the start loads both, to measure them
    for name in NAMES:
        assert one.embedders[name].fingerprint == everything.embedders[name].fingerprint
        assert one.engines[f"embedder {name}"] == everything.engines[f"embedder {name}"]


def test_measured_memory_of_real_models_is_plausible(demo):
    stages = load_stages(DEMO, demo, store=EngineStore(None, FakeCounts()))
    sizes = {entry.path: entry.size for entry in demo.files}
    for model in demo.embedders:
        name = f"embedder {model.categories[0]}"
        (state,) = [one for one in stages.store.memory() if one.names == (name,)]
        file_bytes = sizes[model.files[stages.engines[name].form]]
        assert state.is_measured
        assert 0.8 * file_bytes < state.memory_bytes < 8 * file_bytes


def test_model_file_that_is_damaged_later_fails_alone(demo, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(DEMO, folder)
    stages = load_stages(folder, demo, store=EngineStore(1, FakeCounts()))
    damaged = next(model for model in demo.embedders if model.categories == ["jar"])
    for path in damaged.files.values():
        (folder / path).write_bytes(b"no model")
    assert embed(stages, "can").shape == (demo.embedders[0].dim,)
    with pytest.raises(NotLoadedError, match="embedder jar"):
        embed(stages, "jar")
    assert stages.embedders["jar"].readiness() == "failed"
    embed(stages, "can")


def test_models_of_the_same_content_share_an_engine(demo):
    can = next(model for model in demo.embedders if model.categories == ["can"])
    twins = [can, can.model_copy(update={"categories": ["tin"], "space_id": "1" * 64})]
    stages = load_stages(DEMO, demo.model_copy(update={"embedders": twins}))
    assert [one.names for one in stages.store.memory()] == [("classifier",), ("embedder can", "embedder tin")]
    np.testing.assert_array_equal(embed(stages, "can"), embed(stages, "tin"))
    assert stages.engines["embedder can"] == stages.engines["embedder tin"]


def test_manifest_holds_a_thousand_own_embedders_in_every_form(demo):
    can, forms = demo.embedders[0], ("fp32", "fp16", "ort-u8", "openvino", "tensorrt-s8")
    files, embedders, probes = list(demo.files), [], []
    for i in range(1000):
        name, paths = f"category-{i:04d}", {form: f"models/embedder-{i:04d}.{form}.onnx" for form in forms}
        new = [*paths.values(), f"probes/{i:04d}.png"]
        files += [files[0].model_copy(update={"path": path}) for path in new]
        changes = {"categories": [name], "files": paths, "ship": "fp32", "open_set": {}, "compatible": []}
        embedders.append(can.model_copy(update=changes))
        probe = demo.probes[0].model_copy(update={"path": new[-1], "category": name})
        probes.append(probe.model_copy(update={"embedding_i8": [1] * can.dim}))
    manifest = demo.model_copy(update={"files": files, "embedders": embedders, "probes": probes})
    text = manifest.model_dump_json(by_alias=True)
    assert len(Manifest.model_validate_json(text).embedders) == 1000
    assert len(text) < 8 * MIB
