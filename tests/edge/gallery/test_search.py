"""Search of small and of large categories."""

from __future__ import annotations

import itertools
import resource
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.durable import sha256_of
from edge.errors import GalleryError
from edge.gallery import hnsw_graph, index_cache, index_part, inverted_lists, search
from edge.gallery.index_cache import IndexCache
from edge.gallery.index_part import Part
from edge.gallery.inverted_lists import cluster_rows
from edge.gallery.row_blocks import SIZE, RowBlocks
from edge.gallery.search import Index, build_index, build_space_index
from edge.gallery.store import CategoryItems, quantise

LARGE = 6000  # rows


def unit_rows(n: int, dim: int = 32, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def items_of(rows: np.ndarray, row_item: list[int] | None = None, prefix: str = "i") -> CategoryItems:
    owners = np.array(range(len(rows)) if row_item is None else row_item, np.int32)
    ids = tuple(f"{prefix}{i}" for i in range(max(owners, default=-1) + 1))
    vectors_i8, scales = quantise(rows) if len(rows) else (np.zeros((0, 32), np.int8), np.zeros(0, np.float32))
    return CategoryItems(
        ids, tuple(f"Item {i}" for i in ids), np.zeros(len(ids), np.bool_), vectors_i8, scales, owners, ()
    )


def stored(items: CategoryItems) -> np.ndarray:
    rows = items.vectors_i8 * items.scales[:, None]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def near(rows: np.ndarray, n: int, noise: float = 0.6, seed: int = 9) -> np.ndarray:
    chosen = np.random.default_rng(seed).choice(len(rows), n, replace=False)
    mixed = rows[chosen] + noise * unit_rows(n, rows.shape[1], seed=seed)
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def catalogue(n: int = LARGE, seed: int = 0) -> np.ndarray:
    """Rows around n / 50 centres."""
    return unit_rows(n // 50, seed=seed)[np.arange(n) % (n // 50)] + 0.6 * unit_rows(n, seed=seed + 1)


def with_lists(items: CategoryItems) -> Index:
    index = build_index(items)
    index.build_lists()
    assert index.method == "lists"
    return index


def recall(index: Index, items: CategoryItems, queries: np.ndarray) -> float:
    """Return how many queries find a row as near as the nearest one."""
    best = (queries @ stored(items).T).max(axis=1)
    return float(
        np.mean([hits[0].score >= one - 1e-5 for hits, one in zip(index.search(queries, 1), best, strict=True)])
    )


@pytest.fixture(scope="module")
def large() -> CategoryItems:
    return items_of(catalogue())


@pytest.fixture(scope="module")
def lists(large: CategoryItems) -> Index:
    return with_lists(large)


@pytest.mark.parametrize("n", [10, 3000])
def test_hits_are_sorted_with_exact_cosines(n):
    items = items_of(unit_rows(n))
    queries = unit_rows(20, seed=1)
    for query, hits in zip(queries, build_index(items).search(queries, 5), strict=True):
        cosines = stored(items) @ query
        nearest = np.argsort(-cosines)[:5]
        assert [f"i{i}" for i in nearest] == [hit.item_id for hit in hits]
        assert [hit.score for hit in hits] == pytest.approx(cosines[nearest], abs=1e-6)
        assert hits[0].label == f"Item {hits[0].item_id}"


@pytest.mark.parametrize("n", [400, 3000])
def test_item_with_many_vectors_is_one_hit(n):
    crowd = np.repeat(unit_rows(1), n, axis=0)
    items = items_of(np.concatenate([crowd, unit_rows(200, seed=2)]), [0] * n + list(range(1, 201)))
    hits = build_index(items).search(unit_rows(1), 5)[0]
    assert hits[0].item_id == "i0"
    assert len({hit.item_id for hit in hits}) == 5


def test_nearest_by_cosine_are_the_nearest_by_euclidean_distance():
    """Of unit vectors, |a - b|^2 = 2 - 2 cos(a, b): both distances give one order (CMC 2023 uses Euclid's)."""
    items = items_of(unit_rows(60))
    queries = unit_rows(5, seed=1)
    euclidean = np.linalg.norm(queries[:, None] - stored(items)[None], axis=2)
    for hits, distances in zip(build_index(items).search(queries, 10), euclidean, strict=True):
        assert [hit.item_id for hit in hits] == [items.item_ids[i] for i in distances.argsort()[:10]]
        assert [2 - 2 * hit.score for hit in hits] == pytest.approx(np.sort(distances)[:10] ** 2, abs=1e-4)


def test_k_above_the_item_count_returns_all(lists):
    assert len(build_index(items_of(unit_rows(3))).search(unit_rows(2), 10)[1]) == 3
    assert len(lists.search(unit_rows(1), LARGE + 1)[0]) == LARGE


def test_k_above_the_items_of_the_lists_read_returns_all(large):
    few = replace(clustering_of(large), enough=(-2.0,) * inverted_lists.LEVELS)
    assert len(Index([Part.of(large, few)], 32).search(unit_rows(1), LARGE)[0]) == LARGE


def test_item_in_two_lists_has_its_better_cosine():
    assert index_part._best_of([(1, 0.9), (2, 0.5)], [(2, 0.7), (1, 0.3)]) == [(1, 0.9), (2, 0.7)]


def test_deleted_rows_are_proposed_last():
    blocks = RowBlocks.of(quantise(unit_rows(3000))[0])
    (query,) = unit_rows(1)
    gone, _ = blocks.nearest(query, 5)
    assert set(gone.tolist()).isdisjoint(blocks.without(gone).nearest(query, 100)[0].tolist())


def test_empty_category_has_no_hits():
    index = build_index(items_of(unit_rows(0)))
    assert index.search(unit_rows(2), 5) == [[], []]
    assert not index.needs_lists


def test_k_of_zero_returns_nothing():
    assert build_index(items_of(unit_rows(3))).search(unit_rows(1), 0) == [[]]


@pytest.mark.parametrize("query", [np.zeros((1, 32), np.float32), np.full((1, 32), np.nan, np.float32)])
def test_zero_or_nan_query_is_rejected(query):
    with pytest.raises(GalleryError, match="found a query of length"):
        build_index(items_of(unit_rows(3))).search(query, 1)


def test_query_of_wrong_length_is_rejected():
    with pytest.raises(GalleryError, match=r"found queries of shape \(1, 8\), expected \(n, 32\)"):
        build_index(items_of(unit_rows(3))).search(unit_rows(1, dim=8), 1)


def test_int8_product_does_not_saturate():
    """All components are at their peak, where 8-bit queries would saturate on AVX2."""
    rows = np.full((2048, 512), 127, np.int8)
    rows[1::2] = -127
    rows[6, 0] = 120
    found, scores = RowBlocks.of(rows).nearest(np.full(512, 512**-0.5, np.float32), 1024)
    assert set(range(0, 2048, 2)) == set(found.tolist())
    assert found[-1] == 6
    assert scores[0] == pytest.approx(1.0, abs=1e-6)


def test_int8_product_agrees_with_scoring_every_row():
    items = items_of(unit_rows(search.LISTS_FROM + 500, seed=5))
    queries = unit_rows(20, seed=6)
    for scores, hits in zip(queries @ stored(items).T, build_index(items).search(queries, 3), strict=True):
        best = np.argsort(-scores)[:3]
        assert [f"i{i}" for i in best] == [hit.item_id for hit in hits]
        assert [hit.score for hit in hits] == pytest.approx(scores[best], abs=1e-5)


def test_negative_item_gives_a_negative_hit():
    items = replace(items_of(unit_rows(10)), negative=np.arange(10) == 3)
    hits = build_index(items).search(unit_rows(10)[3:4], 10)
    assert {hit.item_id for hit in hits[0] if hit.negative} == {"i3"}


@pytest.mark.parametrize("noise", [0.3, 0.8, 2.0])
def test_lists_find_the_nearest_row(lists, large, noise):
    assert recall(lists, large, near(stored(large), 200, noise)) >= 0.99


def test_lists_of_rows_without_structure_find_the_nearest():
    items = items_of(unit_rows(5000, seed=3))
    assert recall(with_lists(items), items, unit_rows(200, seed=4)) >= 0.99


def test_lists_of_one_giant_cluster_find_the_nearest():
    rows = np.concatenate([unit_rows(1) + 0.05 * unit_rows(5000, seed=1), unit_rows(300, seed=2)])
    items = items_of(rows)
    queries = np.concatenate([near(stored(items), 100, 0.05), near(unit_rows(300, seed=2), 100, 0.3)])
    assert recall(with_lists(items), items, queries) >= 0.99


def test_rows_are_measured_without_their_own_items(large):
    rows = RowBlocks.of(large.vectors_i8)
    row_item = Part.of(large).row_item
    probes = inverted_lists._Probes(rows, row_item, np.random.default_rng(1))
    probes.compare(0, stored(large))
    assert probes._best[: inverted_lists._QUERIES].max() < 0.99


def test_equal_rows_in_lists_are_all_found():
    index = with_lists(items_of(np.repeat(unit_rows(1), 5000, axis=0)))
    assert len({hit.item_id for hit in index.search(unit_rows(1), 400)[0]}) == 400


def test_building_lists_is_deterministic(lists, large):
    queries = unit_rows(20, seed=4)
    assert with_lists(large).search(queries, 10) == lists.search(queries, 10)


def test_small_or_exact_category_needs_no_lists(large):
    for index in (build_index(items_of(unit_rows(100))), build_index(large, "exact")):
        assert not index.needs_lists
        index.build_lists()
        assert index.method == "exact"


def test_searches_go_on_while_lists_are_built(large, monkeypatch):
    index = build_index(large)
    in_build, go_on = threading.Event(), threading.Event()

    def waits(*args):
        in_build.set()
        assert go_on.wait(60)
        return cluster_rows(*args)

    monkeypatch.setattr(search, "cluster_rows", waits)
    thread = threading.Thread(target=index.build_lists)
    thread.start()
    assert in_build.wait(60)
    query = stored(large)[:1]
    before = index.search(query, 3)
    assert index.method == "exact"
    go_on.set()
    thread.join()
    assert index.method == "lists"
    assert index.search(query, 3)[0][0] == before[0][0]


def test_changed_index_finds_added_and_not_removed(lists, large):
    extra = unit_rows(30, seed=77)
    changed = lists.changed({"i5", "unheard of"}, items_of(extra, prefix="new"))
    assert [hits[0].item_id for hits in changed.search(extra, 1)] == [f"new{i}" for i in range(30)]
    hits = changed.search(stored(large)[5:6], LARGE)[0]
    assert "i5" not in {hit.item_id for hit in hits}
    assert len(hits) == LARGE
    assert lists.search(stored(large)[5:6], 1)[0][0].item_id == "i5"


def test_changed_item_replaces_the_one_of_its_id(lists, large):
    moved = unit_rows(1, seed=78)
    changed = lists.changed((), items_of(moved)).changed((), items_of(unit_rows(1, seed=79)))
    assert changed.search(unit_rows(1, seed=79), 1)[0][0].item_id == "i0"
    assert changed.search(moved, 1)[0][0].score < 0.99
    assert changed.search(stored(large)[:1], 1)[0][0].item_id != "i0"


def test_change_shares_the_vectors(lists):
    changed = lists.changed({"i1"}, items_of(unit_rows(3), prefix="new"))
    assert np.shares_memory(changed._parts[0].rows.blocks, lists._parts[0].rows.blocks)


def test_many_changes_are_built_into_new_lists(lists, large):
    added = items_of(catalogue(3000, seed=50), prefix="new")
    changed = lists.changed([f"i{i}" for i in range(1000)], added)
    assert changed.needs_lists
    changed.build_lists()
    assert not changed.needs_lists
    assert recall(changed, added, near(stored(added), 100, 0.3)) == 1.0
    assert len(changed.search(unit_rows(1), LARGE + 3000)[0]) == LARGE + 2000


def test_all_items_can_be_removed_and_others_added():
    index = build_index(items_of(unit_rows(100))).changed([f"i{i}" for i in range(100)], items_of(unit_rows(0)))
    assert index.search(unit_rows(1), 5) == [[]]
    assert index.changed((), items_of(unit_rows(2))).search(unit_rows(1), 5)[0][0].item_id == "i0"


def test_large_index_that_lost_all_items_needs_no_lists(lists, large):
    index = lists.changed(large.item_ids, items_of(unit_rows(0)))
    assert not index.needs_lists
    index.build_lists()
    assert index.search(unit_rows(1), 5) == [[]]


def test_small_categories_hold_no_floats_of_unused_places():
    assert RowBlocks.of(quantise(unit_rows(3))[0]).floats.shape == (3, 32)


def test_samples_are_live_rows(lists):
    vectors, item_ids = lists.changed(["i0"], items_of(unit_rows(500, seed=5), prefix="new")).sample(100)
    assert 90 <= len(item_ids) <= 100
    assert "i0" not in item_ids
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_index_of_a_space_names_the_category_of_each_item():
    rows = unit_rows(7)
    carton, tyre = items_of(rows[:4], [0, 0, 1, 2]), items_of(rows[4:], [0, 1, 1])
    for index in (
        build_space_index({"carton": carton, "tyre": tyre}),
        build_space_index({"tyre": tyre}, {"carton": build_index(carton)}),
    ):
        found = [index.search(row[None], 1)[0][0] for row in rows]
        assert [hit.label for hit in found] == ["carton"] * 4 + ["tyre"] * 3
        assert [hit.item_id for hit in found] == ["i0", "i0", "i1", "i2", "i0", "i1", "i1"]


def test_many_small_categories_are_searched_as_configured(large):
    assert build_space_index({"carton": large}).needs_lists
    assert not build_space_index({"carton": large}, kind="exact").needs_lists


def test_rows_keep_their_places():
    rows = quantise(unit_rows(SIZE + 6))[0]
    blocks = RowBlocks.of(rows)
    assert np.array_equal(blocks.vectors(np.arange(SIZE + 6)), rows)
    assert np.array_equal(np.concatenate([chunk for _, chunk in blocks.chunks()])[: SIZE + 6], rows)
    filled = RowBlocks.empty(SIZE + 6, 32)
    filled.fill([rows[:5], rows[5:66], rows[66:]])
    assert np.array_equal(filled.blocks, blocks.blocks)
    assert np.array_equal(filled.biases, blocks.biases)


def test_searches_read_few_of_many_lists(lists, large):
    steps = lists._parts[0].lists._steps
    assert [reads for reads, _ in steps] == sorted({reads for reads, _ in steps})
    assert steps[0][0] <= 20 < len(lists._parts[0].lists._centres)


def test_cached_lists_search_as_built_ones(large, lists, tmp_path):
    cache = IndexCache(tmp_path)
    first = build_index(large, cache=cache, key="store")
    first.build_lists()
    again = build_index(large, cache=cache, key="store")
    assert again.method == "lists"
    queries = near(stored(large), 20)
    assert again.search(queries, 5) == first.search(queries, 5)
    assert build_index(large, cache=cache, key="another store").method == "exact"
    assert [counted(cache, result) for result in ("hit", "miss", "damaged")] == [1, 2, 0]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "folder"])
def test_damaged_cache_is_counted_and_written_again(large, tmp_path, damage):
    cache = IndexCache(tmp_path)
    cache.write("store", clustering_of(large))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        data[200] ^= 1  # in a centre: only the hash can tell
        path.write_bytes({"cut": data[:-7], "flipped": data, "empty": b""}[damage])
    assert cache.read("store", LARGE, 32) is None
    assert counted(cache, "damaged") == 1
    cache.write("store", clustering_of(large))
    assert cache.read("store", LARGE, 32) is not None


def test_cache_of_other_rows_is_ignored(large, tmp_path):
    cache = IndexCache(tmp_path)
    cache.write("store", clustering_of(large))
    assert cache.read("store", LARGE - 1, 32) is None
    assert cache.read("store", LARGE, 16) is None
    assert counted(cache, "damaged") == 2


def test_cache_drops_the_files_not_used_for_longest(large, tmp_path):
    one = clustering_of(large)
    IndexCache(tmp_path).write("0", one)
    size = next(tmp_path.iterdir()).stat().st_size
    cache = IndexCache(tmp_path, max_bytes=2 * size)
    for key in "123":
        cache.write(key, one)
    assert sum(1 for _ in tmp_path.iterdir()) == 2
    assert cache.read("3", LARGE, 32) is not None


def test_cache_that_cannot_be_written_is_counted(large, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = IndexCache(tmp_path / "file")
    cache.write("store", clustering_of(large))
    assert counted(cache, "not_written") == 1


def test_cache_keeps_nothing_of_a_store_that_is_gone(large, tmp_path, monkeypatch):
    """A store is removed when items were deleted from it: before its lists are written, or while they are."""
    store = tmp_path / "tyre.sqlite"
    cache = IndexCache(tmp_path / "cache").of(store)
    cache.write("store", clustering_of(large))
    cache.write_graph("store", lambda path, key: path.write_text(key))
    assert not cache.folder.exists()
    store.write_bytes(b"")
    cache.write("store", clustering_of(large))
    assert len(list(cache.folder.iterdir())) == 1

    def save(path: Path, key: str) -> None:
        path.write_text(key)
        path.with_name(path.name + ".sha256").write_text(key)
        store.unlink()

    cache.write_graph("store", save)
    assert [path.suffix for path in cache.folder.iterdir()] == [".lists"]
    assert counted(cache, "not_written") == 3


def counted(cache: IndexCache, result: str) -> int:
    return cache.counts.total("gallery_cache", result=result)


def clustering_of(items: CategoryItems) -> inverted_lists.Clustering:
    count = len(items.row_item)
    centres = unit_rows(20)
    levels = inverted_lists.LEVELS
    return inverted_lists.Clustering(
        centres,
        np.fromiter(itertools.islice(itertools.cycle(range(20)), count), np.uint16),
        (4,) * levels,
        (0.0,) * levels,
    )


@pytest.fixture(scope="module")
def some_rows() -> CategoryItems:
    return items_of(catalogue(search.LISTS_FROM))


@pytest.fixture(scope="module")
def graph_folder(some_rows: CategoryItems, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the saved graph of some rows."""
    folder = tmp_path_factory.mktemp("graphs")
    build_index(some_rows, "hnsw", cache=IndexCache(folder), key="store").build_lists()
    return folder


def test_graph_finds_the_nearest_and_changes(some_rows, graph_folder):
    cache = IndexCache(graph_folder)
    index = build_index(some_rows, "hnsw", cache=cache, key="store")
    assert index.method == "exact"
    index.build_lists()
    assert (index.method, counted(cache, "hit")) == ("hnsw", 1)
    assert recall(index, some_rows, near(stored(some_rows), 100)) >= 0.95
    changed = index.changed(["i7"], items_of(unit_rows(1, seed=7), prefix="new"))
    assert changed.search(unit_rows(1, seed=7), 1)[0][0].item_id == "new0"
    assert changed.search(stored(some_rows)[7:8], 1)[0][0].item_id != "i7"
    assert changed.method == "hnsw"


@pytest.mark.parametrize("hash_is_right", [False, True])
def test_damaged_graph_is_never_opened_in_this_process(graph_folder, tmp_path, hash_is_right, monkeypatch):
    shutil.copytree(graph_folder, tmp_path / "copy")
    (path,) = (tmp_path / "copy").glob("*.hnsw")
    path.write_bytes(path.read_bytes()[:96])
    if hash_is_right:
        path.with_name(path.name + ".sha256").write_text(f"store\n{sha256_of(path)}\n")
    monkeypatch.setattr(hnsw_graph, "_load", lambda *_: pytest.fail("opened here"))
    assert hnsw_graph.open_graph(path, "store", search.LISTS_FROM, 32) is None


def test_graph_that_fills_the_disk_is_built_once_and_leaves_nothing(some_rows, tmp_path, monkeypatch):
    built, of = [], hnsw_graph.HnswGraph.of
    monkeypatch.setattr(hnsw_graph.HnswGraph, "of", lambda *args: built.append(1) or of(*args))
    cache = IndexCache(tmp_path)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        index = build_index(some_rows, "hnsw", cache=cache, key="store")
        index.build_lists()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (index.method, built, counted(cache, "not_written")) == ("hnsw", [1], 1)
    assert list(tmp_path.iterdir()) == []


def test_cache_drops_a_graph_with_its_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(index_cache, "_MAX_GRAPH_BYTES", 2)

    def save(path: Path, key: str) -> None:
        path.write_bytes(b"xx")
        path.with_name(path.name + ".sha256").write_text(key)

    cache = IndexCache(tmp_path)
    for key in "12":
        cache.write_graph(key, save)
    assert [path.name.split(".", 1)[1] for path in sorted(tmp_path.iterdir())] == ["hnsw", "hnsw.sha256"]
    assert cache.graph_path("2").exists()


def test_levels_are_joined_up_to_twice_the_lists_of_the_first():
    levels = [(4, 0.9), (6, 0.8), (11, 0.7), (20, 0.6), (23, 0.5), (39, 0.4), (70, -2.0)]
    assert inverted_lists._steps(levels) == [(6, 0.8), (20, 0.6), (39, 0.4), (70, -2.0)]
