"""The search that leaves out a query's own picture, and the measures of it, on embeddings made up here."""

from __future__ import annotations

import numpy as np
import pytest

from edge.gallery.item_vectors import shrink_to_centroid
from edge.inference.postprocess import unit_rows
from trainer.evaluation import reference_gallery
from trainer.evaluation.reference_gallery import ReferenceGallery
from trainer.evaluation.retrieval import RECALL_AT, retrieve


def no_picture(item):
    return None


def random_set(seed: int = 0, items: int = 12, per_item: int = 5, dim: int = 8):
    """Vectors in loose clusters, and their items; the last item has a single picture."""
    rng = np.random.default_rng(seed)
    of = [f"item-{number}" for number in range(items) for _ in range(per_item)] + ["alone"]
    centres = {item: rng.normal(size=dim) for item in of}
    vectors = unit_rows(np.array([centres[item] + rng.normal(size=dim) for item in of], np.float32))
    order = rng.permutation(len(of))
    return vectors[order], tuple(of[i] for i in order)


def gallery_of(vectors, items, ids=None, gathering=0.0):
    return ReferenceGallery(
        shrink_to_centroid(vectors, items, gathering),
        items,
        no_picture,
        ids,
        vectors if gathering else None,
        gathering,
    )


def test_own_picture_is_no_answer():
    vectors, items = random_set()
    ids = np.arange(len(items))
    similar = gallery_of(vectors, items, ids).similar(vectors, ids)
    assert np.isneginf(similar.diagonal()).all()
    np.fill_diagonal(similar, 1.0)
    assert similar == pytest.approx(vectors @ vectors.T, abs=1e-6)


def test_own_picture_is_found_by_its_number_wherever_it_stands():
    vectors, items = random_set()
    order = np.random.default_rng(3).permutation(len(items))
    shuffled = gallery_of(vectors[order], tuple(items[i] for i in order), order)
    similar = shuffled.similar(vectors[:7], np.arange(7))
    assert [int(np.flatnonzero(np.isneginf(row))[0]) for row in similar] == [
        int(np.argmax(order == i)) for i in range(7)
    ]


def test_copies_of_a_query_are_no_answer_either():
    gallery = gallery_of(np.eye(2, dtype=np.float32)[[0, 0, 1]], ("a", "b", "a"), np.array([7, 7, 8]))
    similar = gallery.similar(np.eye(2, dtype=np.float32), np.array([7, 9]))
    assert np.isneginf(similar).tolist() == [[True, True, False], [False] * 3]
    assert (gallery.shows("a", 7), gallery.shows("b", 7), gallery.shows("b", 9)) == (True, False, True)


def test_gallery_of_unknown_pictures_is_searched_as_it_is():
    vectors, items = random_set()
    gallery = gallery_of(vectors, items)
    assert np.isfinite(gallery.similar(vectors, np.arange(len(items)))).all()
    assert gallery.shows("alone", 0)


def test_own_picture_is_left_out_of_the_centroid_of_its_item():
    vectors, items = random_set(per_item=3)
    ids = np.arange(len(items))
    similar = gallery_of(vectors, items, ids, gathering=0.5).similar(vectors, ids)
    for query in (0, 5, 20):
        rest = np.delete(ids, query)
        without = gallery_of(vectors[rest], tuple(items[i] for i in rest), gathering=0.5)
        expected = without.similar(vectors[query : query + 1], np.array([-1]))[0]
        assert similar[query, rest] == pytest.approx(expected, abs=1e-6)


def test_best_cosine_of_each_item():
    gallery = gallery_of(np.eye(3, dtype=np.float32), ("b", "a", "b"))
    assert gallery.names == ("a", "b")
    assert gallery.best_by_item(np.array([[0.1, 0.5, 0.7]], np.float32)).tolist() == [[0.5, pytest.approx(0.7)]]


def test_query_without_another_picture_of_its_item_is_left_out():
    vectors, items = random_set()
    found = retrieve(gallery_of(vectors, items, np.arange(len(items))), vectors, items, np.arange(len(items)))
    assert len(found.kept) == len(items) - 1
    assert items.index("alone") not in found.kept
    assert found.fewest == len(items) - 1


def test_nothing_to_retrieve_is_no_measure():
    found = retrieve(
        gallery_of(np.eye(2, dtype=np.float32), ("a", "b")), np.eye(2, dtype=np.float32), ["c", "d"], np.arange(2)
    )
    assert (len(found.kept), found.measures) == (0, {})


def test_measures_do_not_depend_on_the_chunks(monkeypatch):
    vectors, items = random_set()
    ids = np.arange(len(items))
    gallery = gallery_of(vectors, items, ids)
    whole = retrieve(gallery, vectors, items, ids).measures
    monkeypatch.setattr(reference_gallery, "_CELLS", 5 * len(items))
    assert len(list(gallery.chunks(len(items)))) == 13
    parts = retrieve(gallery, vectors, items, ids).measures
    assert {name: values.tolist() for name, values in parts.items()} == {k: v.tolist() for k, v in whole.items()}


def recall_by_hand(vectors, items, k):
    """Recall@K of a set searched in itself, one query at a time."""
    right = []
    for query, item in enumerate(items):
        others = [i for i in range(len(items)) if i != query]
        if any(items[i] == item for i in others):
            nearest = sorted(others, key=lambda i: -float(vectors[query] @ vectors[i]))[:k]
            right.append(any(items[i] == item for i in nearest))
    return float(np.mean(right))


def test_recall_is_that_of_a_count_by_hand():
    vectors, items = random_set(4)
    found = retrieve(gallery_of(vectors, items, np.arange(len(items))), vectors, items, np.arange(len(items)))
    recalls = [float(found.measures[f"recall_at_{k}"].mean()) for k in RECALL_AT]
    assert recalls == pytest.approx([recall_by_hand(vectors, items, k) for k in RECALL_AT])
    assert 0.2 < recalls[0] < recalls[-1]


def test_measures_are_those_of_pytorch_metric_learning():
    calculators = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    inference = pytest.importorskip("pytorch_metric_learning.utils.inference")
    distances = pytest.importorskip("pytorch_metric_learning.distances")
    torch = pytest.importorskip("torch")
    vectors, items = random_set(5, items=20, per_item=7)
    found = retrieve(gallery_of(vectors, items, np.arange(len(items))), vectors, items, np.arange(len(items)))
    calculator = calculators.AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        knn_func=inference.CustomKNN(distances.CosineSimilarity()),
    )
    labels = torch.tensor([sorted(set(items)).index(item) for item in items])
    peer = calculator.get_accuracy(torch.tensor(vectors), labels, ref_includes_query=True)
    ours = {name: float(values.mean()) for name, values in found.measures.items()}
    assert ours["recall_at_1"] == pytest.approx(peer["precision_at_1"])
    assert ours["r_precision"] == pytest.approx(peer["r_precision"])
    assert ours["map_at_r"] == pytest.approx(peer["mean_average_precision_at_r"])
