"""Retrieval measures against a plain re-implementation, picture by picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dataset_formats.records import Sample
from edge.errors import TrainError
from edge.imaging.image import encode_image
from edge.manifest.model import Preprocess
from trainer.tables import retrieval_measures as module
from trainer.tables.retrieval_measures import measure_names, retrieval_measures
from trainer.tables.trained_vectors import vectors_of

KS = (1, 2, 4, 8, 16, 32)


def plain(vectors, items, gallery=None, gallery_items=None):
    """The measures by their definitions, with loops and Euclidean distances of unit vectors."""
    own = gallery is None
    rows, row_items = (vectors, items) if own else (gallery, gallery_items)
    unit = [v / np.linalg.norm(v) for v in np.asarray(vectors, float)]
    stored = [v / np.linalg.norm(v) for v in np.asarray(rows, float)]
    found: dict[str, list[float]] = {}
    for query, (vector, item) in enumerate(zip(unit, items, strict=True)):
        others = [place for place in range(len(stored)) if not (own and place == query)]
        order = sorted(others, key=lambda place: float(((vector - stored[place]) ** 2).sum()))
        hits = [row_items[place] == item for place in order]
        total = sum(hits)
        if own and not total:
            continue
        for k in KS:
            found.setdefault(f"R@{k}", []).append(float(any(hits[:k])))
        for k in (1, 5, 10):
            top = hits[:k]
            precisions = [sum(top[: place + 1]) / (place + 1) for place, hit in enumerate(top) if hit]
            found.setdefault(f"P@{k}", []).append(sum(top) / min(k, len(order)))
            found.setdefault(f"mAP@{k} per hits", []).append(sum(precisions) / max(1, sum(top)))
            found.setdefault(f"mAP@{k} per possible", []).append(sum(precisions) / max(1, min(total, k)))
        top = hits[:total]
        precisions = [sum(top[: place + 1]) / (place + 1) for place, hit in enumerate(top) if hit]
        found.setdefault("MAP@R", []).append(sum(precisions) / max(1, total))
        found.setdefault("R-precision", []).append(sum(top) / max(1, total))
    return {name: float(np.mean(values)) for name, values in found.items()}


@pytest.fixture(params=["one block", "small blocks"])
def blocks(request, monkeypatch):
    if request.param == "small blocks":
        monkeypatch.setattr(module, "_BLOCK", 500)


def test_leave_one_out_agrees_with_the_definitions(blocks):
    rng = np.random.default_rng(3)
    items = [*np.repeat(np.arange(9), 7).tolist(), 50, 51]  # the last two are alone: no query
    vectors = (rng.normal(size=(65, 6)) + rng.normal(size=(52, 6))[items]).astype(np.float32)
    measured = retrieval_measures(vectors, items)
    assert measured == pytest.approx(plain(vectors, items))
    assert list(measured) == measure_names()
    assert measured["mAP@10 per hits"] > measured["P@10"] > measured["mAP@10 per possible"]


def test_gallery_counts_absent_items_as_not_found(blocks):
    rng = np.random.default_rng(4)
    names = np.array(["a", "b", "c", "d"])
    items, gallery_items = names[rng.integers(4, size=40)], names[rng.integers(3, size=30)]
    vectors, gallery = (rng.normal(size=(n, 5)).astype(np.float32) for n in (40, 30))
    measured = retrieval_measures(vectors, items, gallery, gallery_items)
    assert measured == pytest.approx(plain(vectors, items, gallery, gallery_items))
    assert measured["R@32"] == pytest.approx((items != "d").mean())


def test_queries_that_are_all_alone_have_no_measures():
    assert retrieval_measures(np.eye(3, dtype=np.float32), ["a", "b", "c"]) == {}
    with pytest.raises(ValueError, match="3 and 3 vectors, 2 and 2 items"):
        retrieval_measures(np.eye(3, dtype=np.float32), ["a", "b"])


def test_vectors_that_are_no_numbers_are_an_error(tmp_path):
    """A query without a direction would be left out of every mean."""
    (tmp_path / "a.png").write_bytes(encode_image(np.full((32, 32, 3), 90, np.uint8), ".png"))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    torch.nn.init.constant_(network[1].bias, float("nan"))
    spec = Preprocess(width=32, height=32, resize="stretch", mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(TrainError, match="1 of 1 vectors are not finite"):
        vectors_of(network, [Sample(tmp_path / "a.png", "test", "jar", "one")], spec)
