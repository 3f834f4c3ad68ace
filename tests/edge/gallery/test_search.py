"""Exact and HNSW search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.errors import GalleryError
from edge.gallery import search
from edge.gallery.search import ExactIndex, HnswIndex, build_index, build_space_index
from edge.gallery.search_onnx import COUNT, QUERY, search_graph, search_query
from edge.gallery.store import CategoryItems, quantise
from edge.inference.onnxruntime_engine import open_session_from_bytes

BOTH = pytest.mark.parametrize("kind", [ExactIndex, HnswIndex])


def unit_rows(n: int, dim: int = 32, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def items_of(rows: np.ndarray, row_item: list[int] | None = None) -> CategoryItems:
    owners = np.array(range(len(rows)) if row_item is None else row_item, np.int32)
    ids = tuple(f"i{i}" for i in range(max(owners, default=-1) + 1))
    vectors_i8, scales = quantise(rows) if len(rows) else (np.zeros((0, 32), np.int8), np.zeros(0, np.float32))
    return CategoryItems(ids, tuple(f"Item {i}" for i in ids), ({},) * len(ids), vectors_i8, scales, owners, ())


def stored(items: CategoryItems) -> np.ndarray:
    rows = items.vectors_i8 * items.scales[:, None]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(("kind", "n"), [(ExactIndex, 10), (ExactIndex, 3000), (HnswIndex, 10), (HnswIndex, 300)])
def test_hits_are_sorted_with_exact_cosines(kind, n):
    items = items_of(unit_rows(n))
    queries = unit_rows(20, seed=1)
    for query, hits in zip(queries, kind(items).search(queries, 5), strict=True):
        cosines = stored(items) @ query
        nearest = np.argsort(-cosines)[:5]
        assert [f"i{i}" for i in nearest] == [hit.item_id for hit in hits]
        assert [hit.score for hit in hits] == pytest.approx(cosines[nearest], abs=1e-6)
        assert hits[0].label == f"Item {hits[0].item_id}"


@BOTH
def test_item_with_many_vectors_is_one_hit(kind):
    crowd = np.repeat(unit_rows(1), 200, axis=0)
    items = items_of(np.concatenate([crowd, unit_rows(200, seed=2)]), [0] * 200 + list(range(1, 201)))
    hits = kind(items).search(unit_rows(1), 5)[0]
    assert hits[0].item_id == "i0"
    assert len({hit.item_id for hit in hits}) == 5


@BOTH
def test_best_of_averages_the_best_vectors_of_an_item(kind):
    rows = unit_rows(300)
    items = items_of(rows, [i // 3 for i in range(300)])
    query = unit_rows(1, seed=3)
    cosines = (stored(items) @ query[0]).reshape(100, 3)
    means = np.sort(cosines, axis=1)[:, 1:].mean(axis=1)
    scores = {hit.item_id: hit.score for hit in kind(items, best_of=2).search(query, 100)[0]}
    assert scores == pytest.approx({f"i{i}": mean for i, mean in enumerate(means)}, abs=1e-6)


@BOTH
def test_k_above_the_item_count_returns_all(kind):
    assert len(kind(items_of(unit_rows(3))).search(unit_rows(2), 10)[1]) == 3


@BOTH
def test_empty_category_has_no_hits(kind):
    assert kind(items_of(unit_rows(0))).search(unit_rows(2), 5) == [[], []]


@BOTH
def test_k_of_zero_returns_nothing(kind):
    assert kind(items_of(unit_rows(3))).search(unit_rows(1), 0) == [[]]


@BOTH
@pytest.mark.parametrize("query", [np.zeros((1, 32), np.float32), np.full((1, 32), np.nan, np.float32)])
def test_zero_or_nan_query_is_rejected(kind, query):
    with pytest.raises(GalleryError, match="queries have lengths"):
        kind(items_of(unit_rows(3))).search(query, 1)


@BOTH
def test_query_of_wrong_length_is_rejected(kind):
    with pytest.raises(GalleryError, match=r"found queries of shape \(1, 8\), expected \(n, 32\)"):
        kind(items_of(unit_rows(3))).search(unit_rows(1, dim=8), 1)


def test_hnsw_of_equal_rows_returns_all():
    items = items_of(np.repeat(unit_rows(1), 500, axis=0))
    assert len(HnswIndex(items).search(unit_rows(1), 400)[0]) == 400


def test_hnsw_build_is_deterministic():
    items, queries = items_of(unit_rows(2000)), unit_rows(50, seed=4)
    assert HnswIndex(items).search(queries, 10) == HnswIndex(items).search(queries, 10)


def test_index_is_chosen_by_size():
    items = items_of(unit_rows(100))
    assert isinstance(build_index(items, crossover_rows=101), ExactIndex)
    assert isinstance(build_index(items, crossover_rows=100), HnswIndex)


def test_int8_product_does_not_saturate():
    """All components are at their peak, where 8-bit queries would saturate on AVX2."""
    rows = np.full((70, 512), 127, np.int8)
    rows[1::2] = -127
    weights = np.ones(70, np.float32) / 1000
    weights[6] = 2 / 1000
    session = open_session_from_bytes(search_graph(rows, weights))
    best = session.run_named({QUERY: search_query(np.ones(512, np.float32)), COUNT: np.array([36], np.int64)})[0][0]
    assert best[0] == 6
    assert best[35] % 2 == 1
    assert set(best[:35]) == set(range(0, 70, 2))


def test_int8_product_agrees_with_scoring_every_row():
    """Above _ALL_ROWS, int8 proposes the rows; the winners and their scores match the full product."""
    rows = unit_rows(search._ALL_ROWS + 500, seed=5)
    queries = unit_rows(20, seed=6)
    items = items_of(rows)
    stored = items.vectors_i8.astype(np.float32) * items.scales[:, None]
    exact = queries @ (stored / np.linalg.norm(stored, axis=1, keepdims=True)).T
    found = build_index(items).search(queries, 3)
    for scores, hits in zip(exact, found, strict=True):
        best = np.argsort(-scores)[:3]
        assert [f"i{i}" for i in best] == [hit.item_id for hit in hits]
        assert np.allclose(scores[best], [hit.score for hit in hits], atol=1e-5)


@BOTH
def test_negative_item_gives_a_negative_hit(kind):
    items = replace(items_of(unit_rows(10)), metadata=({},) * 3 + ({"negative": True},) + ({"negative": False},) * 6)
    hits = kind(items).search(unit_rows(10)[3:5], 10)
    assert (
        {hit.item_id for hit in hits[0] if hit.negative} == {"i3"} == {hit.item_id for hit in hits[1] if hit.negative}
    )


@BOTH
def test_proposed_rows_cover_k_items_within_the_row_count(kind):
    owners = [0] * 5 + list(range(1, 296))  # 300 rows, at most 5 of one item
    index = kind(items_of(unit_rows(300), owners), best_of=2)
    assert [index._needed(k) for k in (1, 3, 4, 56, 57, 295)] == [32, 32, 36, 296, 300, 300]
    assert [len(index._propose(unit_rows(1)[0], k)) for k in (1, 4, 295)] == [32, 36, 300]


def test_index_of_a_space_names_the_category_of_each_item():
    rows = unit_rows(7)
    index = build_space_index({"carton": items_of(rows[:4], [0, 0, 1, 2]), "tyre": items_of(rows[4:], [0, 1, 1])})
    found = [index.search(row[None], 1)[0][0] for row in rows]
    assert [hit.label for hit in found] == ["carton"] * 4 + ["tyre"] * 3
    assert [hit.item_id for hit in found] == ["i0", "i0", "i1", "i2", "i0", "i1", "i1"]
