"""Evaluation of chains on the same pictures, with a chain that reads colours."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge.errors import TrainError
from edge.manifest.embedder import OpenSet
from edge.manifest.model import Preprocess
from tests.trainer.catalogue.test_embed_gallery import write_bundle
from tests.trainer.toy import write_crops, write_scenes
from trainer.data.detection_sample import DetectionSample
from trainer.data.pictures import Pictures
from trainer.evaluation import evaluate_models
from trainer.evaluation.evaluate_models import confusions, evaluate_chain, evaluate_detector
from trainer.evaluation.evaluation_set import load_evaluation_set
from trainer.evaluation.model_chain import ModelChain, chain_of_bundle, embed_references, open_peer
from trainer.evaluation.predictions import predict_queries, query_results
from trainer.tasks.detector import scene_canvases


def by_place(images):
    """The place of the white dot as a unit vector, which tells the items of a category apart."""
    rows = []
    for image in images:
        bright = (image.min(axis=2) > 240)[:, 8:16]
        angle = np.argmax(bright.mean(axis=1)) / 40 * np.pi / 2
        rows.append([np.cos(angle), np.sin(angle)])
    return np.asarray(rows, np.float32)


def by_colour(images):
    """Blue or red, with so high a probability that the other category, which shares the vector, is not searched."""
    blue = np.array([image[20, 20, 2] > image[20, 20, 0] for image in images], np.float32)
    return np.stack([blue, 1 - blue], axis=1) * 0.998 + 0.001


@pytest.fixture(scope="module")
def evaluation_set(tmp_path_factory):
    return load_evaluation_set(write_crops(tmp_path_factory.mktemp("toy")), None, "val", "train", share=0.5, seed=1)


@pytest.fixture(scope="module")
def column(evaluation_set):
    rules = {name: OpenSet(threshold=0.999, slope=2000, midpoint=0.9985) for name in ("red", "blue")}
    perfect = ModelChain(
        "perfect", ("blue", "red"), by_colour, {"red": by_place, "blue": by_place}, 0.0, 0.5, rules, calibrated=True
    )
    return evaluate_chain(perfect, embed_references(perfect, evaluation_set), evaluation_set)


def test_the_same_items_are_left_out_for_the_same_seed(evaluation_set, tmp_path):
    again = load_evaluation_set(write_crops(tmp_path), None, "val", "train", share=0.5, seed=1)
    assert again.left_out == evaluation_set.left_out
    assert len(evaluation_set.left_out) == 2


def test_perfect_chain_is_right_about_all_known_items(column):
    table = column.table
    assert table["coarse"]["accuracy"]["mean"] == 1.0
    assert table["coarse"]["confusion"] == {"blue": {"blue": 4}, "red": {"red": 4}}
    assert table["end_to_end"]["top_1"] == {"mean": 1.0, "interval": [1.0, 1.0], "count": 8}
    assert table["retrieval"]["recall_at_1"]["mean"] == table["retrieval"]["map_at_r"]["mean"] == 1.0
    assert set(table["categories"]) == {"red", "blue"}


def test_one_embedder_is_also_searched_among_all_categories(column, evaluation_set):
    """The vector tells places alone: among all, a red item and the blue one of the same place are equally near."""
    assert column.table["retrieval"]["recall_at_1"]["mean"] == 1.0
    among_all = column.table["retrieval_among_all"]
    assert (among_all["recall_at_1"]["mean"], among_all["recall_at_1"]["count"]) == (0.5, 8)
    assert among_all["recall_at_16"]["mean"] == 1.0
    apart = ModelChain("apart", (), None, {"red": by_place, "blue": partial(by_place)})
    table = evaluate_chain(apart, embed_references(apart, evaluation_set), evaluation_set).table
    assert "retrieval_among_all" not in table  # two embedding spaces are not compared


def test_left_out_items_are_rejected_as_unknown(column):
    opened = column.table["open_world"]
    assert (opened["known"], opened["unknown"]) == (4, 4)
    assert opened["at_shipped_thresholds"]["known"]["identified"] == 1.0
    assert opened["at_shipped_thresholds"]["unknown"]["unknown"] == 1.0
    assert opened["false_accept_rate"]["mean"] == 0.0
    assert opened["auroc"]["mean"] == 1.0
    assert opened["identified_at_far_0.05"]["mean"] == 1.0
    assert opened["expected_calibration_error"]["mean"] < 0.1


def test_risk_is_none_until_the_unknown_are_named(column):
    opened = column.table["open_world"]
    assert opened["risk"]["mean"] == 0.0
    assert opened["coverage_at_risk_0.01"] == 0.5  # the four known of eight
    assert opened["risk_coverage"][-1] == {"coverage": 1.0, "risk": 0.5}
    # 0 for the surest four, then 1/5, 2/6, 3/7, 4/8
    assert opened["aurc"]["mean"] == pytest.approx((1 / 5 + 2 / 6 + 3 / 7 + 4 / 8) / 8)
    assert opened["excess_aurc"]["mean"] == pytest.approx(0.0)


def test_item_the_gallery_never_held_is_unknown(column):
    everything = query_results(column.predictions, column.chain, set())
    nothing = query_results(column.predictions, column.chain, {item for v in everything for item in [v.true_item]})
    assert all(v.known for v in everything)
    assert not any(v.known or v.predicted_item or v.nearest for v in nothing)


def test_without_a_classifier_the_true_category_is_searched(evaluation_set):
    given = ModelChain("given", (), None, {"red": by_place, "blue": by_place})
    table = evaluate_chain(given, embed_references(given, evaluation_set), evaluation_set).table
    assert "coarse" not in table
    assert table["end_to_end"]["top_1"]["mean"] == 1.0
    assert "at_shipped_thresholds" not in table["open_world"]


def test_a_picture_of_query_and_gallery_is_embedded_once(tmp_path):
    both = load_evaluation_set(write_crops(tmp_path), None, "train,val", "train", share=0.5, seed=1)
    embedded = []

    def counting(images):
        embedded.extend(images)
        return by_place(images)

    rules = {name: OpenSet() for name in ("red", "blue")}
    chain = ModelChain("counting", ("blue", "red"), by_colour, {"red": counting, "blue": counting}, open_sets=rules)
    predictions = predict_queries(chain, both, embed_references(chain, both), timed=0)
    fresh = ~np.isin(both.query_ids, both.gallery_ids)
    assert len(embedded) == len(both.gallery) + fresh.sum() < len(both.gallery) + len(both.queries)
    plain = ModelChain("plain", ("blue", "red"), by_colour, {"red": by_place, "blue": partial(by_place)})
    again = predict_queries(plain, both, {}, timed=0)
    for category in ("red", "blue"):
        rows, vectors = predictions.of_category(category)
        assert np.array_equal(vectors[np.argsort(rows)], again.of_category(category)[1])


def test_categories_of_one_embedder_share_its_function(tmp_path):
    """As on a device: such a category is searched beside a likely one."""
    write_bundle(tmp_path / "bundle", ["red", "blue"])
    chain = chain_of_bundle("shared", tmp_path / "bundle")
    assert chain.embed["red"] is chain.embed["blue"]


def test_confusion_names_true_item_and_nearest_item(evaluation_set):
    blind = ModelChain(
        "blind", (), None, {"red": lambda images: np.tile(np.eye(1, 2, dtype=np.float32), (len(images), 1))}
    )
    column = evaluate_chain(blind, embed_references(blind, evaluation_set), evaluation_set)
    assert confusions(column.closed_set) == [("red-1", "red-0", 2)]


def test_split_without_pictures_is_rejected(tmp_path):
    with pytest.raises(TrainError, match="no picture belongs to split 'test'"):
        load_evaluation_set(write_crops(tmp_path), None, "test", "train", share=0.2, seed=0)


def test_peer_folder_without_models_is_rejected(tmp_path):
    with pytest.raises(TrainError, match="holds neither a bundle nor the run"):
        open_peer("theirs", str(tmp_path), [])


@pytest.fixture
def detector(monkeypatch):
    """A detector whose evaluation returns the number of scenes."""
    card = SimpleNamespace(kind="detector", labels=["object"], preprocess=Preprocess(width=96, height=64))
    monkeypatch.setattr(evaluate_models, "load_model", lambda folder: (None, card))
    monkeypatch.setattr(
        evaluate_models, "validate_detector", lambda module, scenes, card: {"images": len(scenes.canvases)}
    )


def write_split_scenes(folder, *splits):
    path = write_scenes(folder, len(splits))
    tree = json.loads(path.read_text())
    for image, split in zip(tree["images"], splits, strict=True):
        image.update({"split": split} if split else {})
    path.write_text(json.dumps(tree))
    return path


@pytest.mark.usefixtures("detector")
@pytest.mark.parametrize(
    ("splits", "asked", "images"),
    [
        (("train", "val", "val"), None, 2),
        (("train", "test"), None, 1),
        (("train", "val", "test"), "val,test", 2),
        (("", ""), None, 2),
    ],
)
def test_detector_is_evaluated_on_the_scenes_of_the_splits(tmp_path, splits, asked, images):
    table = evaluate_detector(tmp_path, write_split_scenes(tmp_path, *splits), None, asked)
    assert table == {"images": images, "unreadable": 0}


@pytest.mark.usefixtures("detector")
def test_detector_evaluation_names_absent_splits_and_counts_torn_scenes(tmp_path, caplog):
    path = write_split_scenes(tmp_path, "val", "val", "train")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:-9])
    assert evaluate_detector(tmp_path, path, None, None) == {"images": 1, "unreadable": 1}
    assert "1.png" in caplog.text
    with pytest.raises(TrainError, match=r"'test'; there are train \(1 pictures\), val \(2 pictures\)"):
        evaluate_detector(tmp_path, path, None, "test")


def test_equal_true_boxes_are_one_object():
    boxes = np.array([[8, 8, 20, 20], [0, 0, 8, 8], [8, 8, 20, 20]], np.float32)
    scene = DetectionSample(Path("a.png"), boxes, np.array([0, 1, 2]))
    placed = scene_canvases(Pictures([scene], [np.zeros((32, 48, 3), np.uint8)]), Preprocess(width=96, height=64))
    assert placed.boxes[0].tolist() == [[0, 0, 16, 16], [16, 16, 40, 40]]
