"""The INT8 form of a finder: which searches judge it, what is written, and what ships."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge.bundle.bundle import read_bundle
from edge.finder.finder import open_finder
from edge.finder.query import object_mask
from edge.imaging.image import encode_image
from edge.telemetry.timing import Timings
from quantize import finder_forms
from quantize.build_network import Policy, build_network
from quantize.bundle.pack import PackOptions, pack
from quantize.dataset import Data, read_data
from quantize.export import export_fp32
from quantize.finder_forms import located, searches_in
from quantize.finder_forms import located_gate as gate_of
from trainer.model_setup import card_of
from trainer.models.networks import build_model, save_model
from trainer.recipe import FinderRecipe

COLOURS = {1: (200, 30, 30), 2: (30, 30, 200)}
SIZE = (96, 64)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Twelve scenes with a red and a blue square each; a third is held out. One more scene shows a lone green one."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for number in range(13):
        image = rng.integers(90, 130, (*SIZE[::-1], 3)).astype(np.uint8)
        kinds = COLOURS if number < 12 else {3: (30, 200, 30)}
        for place, (kind, colour) in enumerate(kinds.items()):
            x, y = int(rng.integers(4, 16)) + 44 * place, int(rng.integers(4, 24))
            image[y : y + 30, x : x + 30] = colour
            boxes.append({"image_id": number, "category_id": kind, "bbox": [x, y, 30, 30]})
        (folder / f"{number}.png").write_bytes(encode_image(image, ".png"))
        split = "val" if number % 3 == 2 or number == 12 else "train"
        images.append({"id": number, "file_name": f"{number}.png", "split": split})
    kinds = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}, {"id": 3, "name": "green"}]
    (folder / "scenes.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": kinds}))
    return folder / "scenes.json"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An untrained finder, exported."""
    recipe = FinderRecipe(
        kind="finder",
        shape={"query_px": [24, 32], "parts": 3},
        backbone={"name": "mobilenetv4_conv_small_050", "pretrained": "none", "strides": [4, 8, 16]},
        input={"width": SIZE[0], "height": SIZE[1]},
        channels=8,
        guide=4,
        width=8,
    )
    fields = {"finder": recipe.shape, "channels": 8, "guide": 4, "shared_trunk": True}
    card = card_of(recipe, {"source": "none"}, grey=False, **fields)
    folder = tmp_path_factory.mktemp("run")
    save_model(folder, build_model(card, "none"), card)
    export_fp32(folder, folder / "finder.fp32.onnx")
    return folder / "finder.fp32.onnx"


def build(run, folder, data, policy=None):
    return build_network("finder", run, folder, data, policy or Policy(), lambda pictures, _: pictures)


def test_searches_use_pictures_of_other_scenes(scenes):
    data = read_data(None, scenes)
    searches = searches_in(data, "val", 100)
    assert len(searches) == 4 * 2 + 1
    for search in searches:
        (box,) = search.true_px.tolist()
        assert (box[2] - box[0], box[3] - box[1]) == (30, 30)
        lone = search.scene.name == "12.png"
        assert all((query.path == search.scene) == lone for query in search.queries)
        assert len(search.queries) == (1 if lone else 3)
    assert len(searches_in(data, "val", 3)) == 3


def test_gate_needs_nearly_every_search_that_fp32_gets_right():
    wanted = np.arange(100) < 80
    assert gate_of(wanted, wanted).holds
    assert gate_of(wanted, wanted).verdict == "pass"
    assert not gate_of(wanted, np.arange(100) < 70).holds
    assert not gate_of(wanted[:20], wanted[:20]).holds  # too few to decide
    assert not gate_of(np.zeros(100, bool), np.zeros(100, bool)).holds  # a finder that finds nothing


@pytest.fixture
def right(monkeypatch):
    """Every search is right in both forms, on enough searches."""
    monkeypatch.setattr(finder_forms, "located", lambda *_: np.ones(60, bool))
    monkeypatch.setattr(finder_forms, "RUNS", 2)


def test_int8_finder_is_packed_with_both_conversions(run, scenes, tmp_path, right):
    made = build(run, tmp_path, read_data(None, scenes), Policy(min_speedup=0.01))
    assert (made.ship, made.int8_accurate) == ("ort-u8", True)
    assert made.evaluation["conversion"] == "int8"
    pack(PackOptions("find", 1, tmp_path / "bundle", with_probes=False), [made], Data([], []))
    bundle = read_bundle(tmp_path / "bundle")
    model = bundle.manifest.finder
    assert sorted(entry.path for entry in bundle.manifest.files) == [
        "models/finder.conversion.onnx",
        "models/finder.conversion.ort-u8.onnx",
        "models/finder.fp32.onnx",
        "models/finder.ort-u8.onnx",
    ]
    assert (model.conversion_for("fp32"), model.conversion_for("ort-u8")) == (model.conversion, model.conversion_int8)
    maps = [heat_of(open_finder(bundle.folder, model, precision=precision)) for precision in ("fp32", "int8")]
    assert 0 < np.abs(maps[0] - maps[1]).max() < 0.5 * np.ptp(maps[0])
    pack(PackOptions("on", 2, tmp_path / "on", with_probes=False, base=tmp_path / "bundle"), [], Data([], []))
    assert read_bundle(tmp_path / "on").manifest.finder == model


def heat_of(finder):
    scene = np.random.default_rng(1).integers(0, 255, (*SIZE[::-1], 3)).astype(np.uint8)
    query = finder.make_query(scene, object_mask(scene, (10, 10, 40, 40)), Timings())
    return finder.heat_map(finder.scene_features(scene, Timings()), [query], Timings())


def test_slow_int8_is_packed_beside_fp32_only_if_both_are_kept(run, scenes, tmp_path, right):
    made = build(run, tmp_path, read_data(None, scenes), Policy(min_speedup=100.0))
    assert made.ship == "fp32"
    assert "latency" in made.why
    for keep_both in (False, True):
        out = tmp_path / f"bundle-{keep_both}"
        pack(PackOptions("find", 1, out, keep_both=keep_both, with_probes=False), [made], Data([], []))
        model = read_bundle(out).manifest.finder
        assert set(model.files) == ({"fp32", "ort-u8"} if keep_both else {"fp32"})
        assert (model.conversion_int8 is not None) == keep_both


def test_finder_that_locates_nothing_ships_fp32(run, scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(finder_forms, "RUNS", 2)
    made = build(run, tmp_path, read_data(None, scenes))
    assert (made.ship, set(made.forms)) == ("fp32", {"fp32"})
    assert "located" in made.why
    assert not finder_forms.conversion_int8_path(made.forms["fp32"]).exists()


def test_finder_without_scenes_ships_fp32(run, tmp_path):
    assert build(run, tmp_path, Data([], [])).why == "no pictures of split 'train' to calibrate INT8 on"


def test_located_compares_the_best_box_with_the_truth(scenes, monkeypatch):
    searches = searches_in(read_data(None, scenes), "val", 100)

    class Sure:
        """Returns the true box, or one beside it."""

        def __init__(self, shift):
            self.shift, self.answers = shift, iter(searches)

        def make_query(self, *_):
            return None

        scene_features = heat_map = make_query

        def find_boxes(self, *_, min_score):
            box = next(self.answers).true_px[0] + self.shift
            return [type("Found", (), {"box_px": tuple(box.tolist())})()]

    assert located(Sure(0), searches).all()
    assert not located(Sure(20), searches).any()
