"""Training of the finder on a small world, from its scenes to the bundle that a device runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.torch import load_file

from edge.build import load_active_models
from edge.bundle import slots
from edge.bundle.bundle import read_bundle
from edge.bundle.install import install_bundle, install_gallery
from edge.config.schema import DeviceConfig, RecognitionConfig
from edge.errors import EngineError, TrainError
from edge.finder.finder import open_finder
from edge.imaging.image import encode_image
from edge.telemetry.timing import Timings
from quantize.build_network import Policy, build_network
from quantize.bundle.pack import PackOptions, pack
from quantize.dataset import Data
from tests.demo_bundles import DEMO, demo_manifest, write_variant
from tests.trainer.toy import BACKBONE, optimiser
from trainer.cli import main
from trainer.model_setup import preprocess_of
from trainer.recipe import FinderRecipe
from trainer.synthetic.items import catalogue
from trainer.tasks import finder as finder_module
from trainer.tasks import finder_scenes as finder_world
from trainer.tasks.finder import train_finder
from trainer.tasks.finder_scenes import _mask_with_gaps, render_scenes, render_worlds, sample_search, split_items
from trainer.tasks.finder_torch import load_finder

HELD_OUT = ["carton", "jar", "car", "can", *(f"bottle-{n:02d}" for n in range(4, 14))]


def finder_recipe(epochs=1, **changes) -> FinderRecipe:
    """Four bottles, six scenes."""
    fields = {
        "world": {"scenes": 6, "val_scenes": 2, "looks": 1, "held_out": HELD_OUT},
        "shape": {"query_px": [32, 48], "parts": 3},
        "backbone": BACKBONE | {"strides": [4, 8, 16]},
        "input": {"width": 160, "height": 96},
        "channels": 8,
        "guide": 4,
        "width": 4,
        "optimiser": optimiser(epochs, 3),
    }
    return FinderRecipe(kind="finder", **fields | changes)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    return render_worlds(finder_recipe(), tmp_path_factory.mktemp("worlds"))


@pytest.fixture(scope="module")
def trained(worlds, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "finder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finder_module, "render_worlds", lambda *_: worlds)
        train_finder(finder_recipe(2), out)
    return out


def test_held_out_items_are_in_no_scene_and_no_query(worlds):
    shown = {item for world in worlds for scene in world.scenes for item in scene.items}
    queried = {item for world in worlds for item in world.cutouts}
    assert shown <= queried == {f"bottle-{n:02d}" for n in range(4)}


def test_unknown_held_out_name_is_rejected():
    with pytest.raises(TrainError, match=r"\['botle'\] are neither synthetic items nor categories"):
        split_items(["botle"])


def test_every_scene_shows_enough_of_a_wanted_item():
    wanted = catalogue()[3]
    for scene in render_scenes([wanted], catalogue(), 3, (160, 96), 1):
        assert wanted.item_id in scene.searchable_items


def test_search_covers_the_boxes_of_its_object(worlds):
    recipe = finder_recipe()
    spec = preprocess_of(recipe)
    search = sample_search(worlds[0], 0, recipe, spec, np.random.default_rng(0))
    inside = np.zeros((24, 40), bool)
    for x0, y0, x1, y1 in search.boxes_px.astype(int):
        inside[y0 // 4 : -(-y1 // 4), x0 // 4 : -(-x1 // 4)] = True
    assert search.coverage.shape == (24, 40)
    assert search.coverage.max() == 1.0
    assert search.coverage[~inside].max(initial=0.0) < 0.5
    again = sample_search(worlds[0], 0, recipe, spec, np.random.default_rng(0))
    assert np.array_equal(search.scene_rgb, again.scene_rgb)
    assert np.array_equal(search.query_rgb, again.query_rgb)


def test_scenes_are_cached_for_a_run_and_rendered_for_another(worlds, tmp_path, monkeypatch):
    few = {"scenes": 2, "val_scenes": 1, "looks": 1, "held_out": HELD_OUT}
    rendered = render_worlds(finder_recipe(world=few), tmp_path)
    monkeypatch.setattr(finder_world, "render_scenes", lambda *_: worlds[1].scenes)
    again = render_worlds(finder_recipe(world=few), tmp_path)
    for before, after in zip(rendered, again, strict=True):
        assert [one.items for one in before.scenes] == [one.items for one in after.scenes]
        assert all(np.array_equal(a.image_rgb, b.image_rgb) for a, b in zip(before.scenes, after.scenes, strict=True))
        assert before.occurrences == after.occurrences
    assert render_worlds(finder_recipe(world=few | {"seed": 1}), tmp_path)[0].scenes == worlds[1].scenes
    (tmp_path / "scenes-train.npz").write_bytes(b"PK damaged")
    assert render_worlds(finder_recipe(world=few | {"seed": 1}), tmp_path)[0].scenes == worlds[1].scenes


def test_touching_objects_get_a_gap_in_the_mask():
    owner = np.zeros((40, 40), np.uint8)
    owner[10:30, 5:20], owner[10:30, 20:35] = 1, 2
    mask = _mask_with_gaps(owner)
    assert mask[20, 18:22].max() == 0
    assert mask[20, 10] == mask[20, 30] == 1


def test_interrupted_run_resumes_to_the_same_model(worlds, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(finder_module, "render_worlds", lambda *_: worlds)
    recipe = finder_recipe(2)
    with pytest.raises(KeyboardInterrupt):
        _train_until(recipe, tmp_path, 2, monkeypatch)
    monkeypatch.undo()
    monkeypatch.setattr(finder_module, "render_worlds", lambda *_: worlds)
    train_finder(recipe, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def _train_until(recipe, out, batches, monkeypatch):
    """Interrupt in the second epoch."""
    real, calls = finder_module.FinderTask.loss, []

    def loss(self, tensors, done):
        calls.append(done)
        if len(calls) > batches:
            raise KeyboardInterrupt
        return real(self, tensors, done)

    monkeypatch.setattr(finder_module.FinderTask, "loss", loss)
    train_finder(recipe, out)


def test_training_lowers_the_loss(worlds, tmp_path, monkeypatch):
    monkeypatch.setattr(finder_module, "render_worlds", lambda *_: worlds)
    train_finder(finder_recipe(4, loss="l2"), tmp_path)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("loss")
    losses = [float(row.split(",")[column]) for row in rows[1:]]
    assert losses[-1] < 0.8 * losses[0]


def test_freeze_bn_keeps_all_statistics(worlds, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(finder_module, "render_worlds", lambda *_: worlds)
    train_finder(finder_recipe(backbone=BACKBONE | {"strides": [4, 8, 16], "freeze_bn": True}), tmp_path)
    for folder, updated in ((tmp_path, False), (trained, True)):
        weights = load_file(folder / "model.safetensors")
        means = {key: bool(value.any()) for key, value in weights.items() if key.endswith("running_mean")}
        assert {key.split(".")[0] for key in means} == {"represent", "conversion"}
        assert set(means.values()) == {updated}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": BACKBONE | {"strides": [8, 16]}}, r"strides is \[8, 16\]; shape needs \[4, 8\] among them"),
        ({"shape": {"query_px": [36]}}, r"\[36\] are not multiples of the stride 8"),
        ({"shape": {"query_px": [96, 96]}}, r"\[96, 96\] do not fit on 160x96 together"),
        ({"input": {"width": 160, "height": 80}}, "input is 160x80, expected multiples of 32"),
    ],
)
def test_inconsistent_recipe_is_rejected_before_rendering(changes, message, tmp_path):
    with pytest.raises(TrainError, match=message):
        train_finder(finder_recipe(**changes), tmp_path)


@pytest.fixture(scope="module")
def packed(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    made = build_network("finder", trained, folder, Data([], []), Policy(), lambda pictures, _: pictures)
    pack(PackOptions("find", 1, folder / "bundle", with_probes=False), [made], Data([], []))
    return folder / "bundle"


def test_device_loads_the_finder_only_with_seek_configured(packed, tmp_path, caplog):
    slot = install_bundle(packed, tmp_path)
    slots.activate(tmp_path, slot, install_gallery(DEMO / "gallery", tmp_path))
    config = DeviceConfig(state_dir=tmp_path, cameras={"door": {"source": "rtsp://door"}})
    assert load_active_models(config).finder is None
    seeking = config.model_copy(update={"recognition": RecognitionConfig(seek={})})
    assert load_active_models(seeking).finder is not None
    slot = install_bundle(with_old_finder(packed, tmp_path / "before"), tmp_path)
    slots.activate(tmp_path, slot, install_gallery(DEMO / "gallery", tmp_path))
    assert load_active_models(seeking).finder is None
    assert "has a finder of an older format (ADR 0010): recognition.seek has no effect" in caplog.text
    slot = install_bundle(write_variant(tmp_path / "without", demo_manifest() | {"finder": None}), tmp_path)
    slots.activate(tmp_path, slot, install_gallery(DEMO / "gallery", tmp_path))
    assert load_active_models(seeking).finder is None
    assert "has no finder: recognition.seek has no effect" in caplog.text


def with_old_finder(packed, folder):
    """The bundle as packed before finders verified their boxes."""
    shutil.copytree(packed, folder)
    tree = json.loads((folder / "bundle.json").read_text())
    tree["finder"]["map_threshold"] = 0.5
    (folder / "bundle.json").write_text(json.dumps(tree))
    return folder


def test_finder_with_an_old_map_threshold_is_rejected(packed, tmp_path):
    bundle = read_bundle(with_old_finder(packed, tmp_path / "before"))
    with pytest.raises(EngineError, match="the finder has a map_threshold: it is too old to run"):
        open_finder(bundle.folder, bundle.manifest.finder)


def test_device_computes_the_same_heat_map(packed, trained, worlds):
    manifest = read_bundle(packed).manifest
    assert sorted(e.path for e in manifest.files) == ["models/finder.conversion.onnx", "models/finder.fp32.onnx"]
    device, ours = open_finder(packed, manifest.finder), load_finder(trained)
    scene = worlds[1].scenes[0].image_rgb
    cutout = worlds[1].cutouts["bottle-00"][0]
    picture, mask = np.ascontiguousarray(cutout[..., :3]), (cutout[..., 3] > 127).astype(np.uint8)
    maps = [
        one.heat_map(one.scene_features(scene, Timings()), [one.make_query(picture, mask, Timings())], Timings())
        for one in (device, ours)
    ]
    assert np.abs(maps[0] - maps[1]).max() < 1e-5
    assert maps[0].std() > 1e-3


def test_finder_with_two_trunks_trains_but_does_not_run(worlds, tmp_path, monkeypatch):
    monkeypatch.setattr(finder_module, "render_worlds", lambda *_: worlds)
    train_finder(finder_recipe(shared_trunk=False, guide=0), tmp_path)
    with pytest.raises(TrainError, match="this finder has two trunks"):
        load_finder(tmp_path)


def test_find_command_runs_a_trained_finder(trained, worlds, tmp_path, capsys):
    (tmp_path / "scene.png").write_bytes(encode_image(worlds[1].scenes[0].image_rgb, ".png"))
    query = np.full((150, 150, 3), 255, np.uint8)
    cutout = worlds[1].cutouts["bottle-00"][0]
    query[: cutout.shape[0], 20 : 20 + cutout.shape[1]] = cutout[:150, ..., :3]
    (tmp_path / "query.png").write_bytes(encode_image(query, ".png"))
    line = ["find", str(tmp_path / "query.png"), str(tmp_path / "scene.png"), "--model", str(trained)]
    assert main([*line, "-o", str(tmp_path / "out")]) == 0
    assert '"heat_map"' in capsys.readouterr().out
    assert (tmp_path / "out/found.png").is_file()


def test_thresholds_are_fitted_on_absent_objects_too(worlds):
    recipe = finder_recipe()
    spec = preprocess_of(recipe)
    present = [sample_search(worlds[1], number, recipe, spec, np.random.default_rng(number)) for number in (0, 1)]
    items = [{present[0].item_id}, {present[0].item_id, present[1].item_id}]
    (absent,) = finder_module._absent_searches([present[0], replace(present[1], item_id="bottle-09")], items)
    assert absent.item_id == "bottle-09"
    assert np.array_equal(absent.scene_rgb, present[0].scene_rgb)
    assert np.array_equal(absent.query_rgb, present[1].query_rgb)
    assert len(absent.boxes_px) == 0 == absent.coverage.max()
