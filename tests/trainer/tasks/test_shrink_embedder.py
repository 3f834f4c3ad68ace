"""A smaller embedder gives the truncated vectors of the whole one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge.errors import TrainError
from edge.gallery.cut import cut_vectors
from edge.manifest.embedder import Head
from edge.manifest.model import Preprocess
from trainer.models.networks import ModelCard, build_model, load_model, save_model
from trainer.tasks.shrink_embedder import shrink_embedder, truncate_vectors

HEADS = [Head(name="class", dim=8), Head(name="local", dim=8), Head(name="outline", dim=8)]


@pytest.fixture
def run(tmp_path):
    def write(**changes):
        torch.manual_seed(2)
        spec = Preprocess(width=64, height=64)
        fields = {"heads": HEADS, "shorter_dims": [2, 4], "categories": ["a"], "width": 16, "grid": 2} | changes
        card = ModelCard(
            kind="embedder", backbone="mobilenetv4_conv_small_050", preprocess=spec, strides=[16], **fields
        )
        save_model(tmp_path / "run", build_model(card), card)
        return tmp_path / "run"

    return write


def vectors_of(folder):
    with torch.no_grad():
        return load_model(folder)[0](torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(4))).numpy()


@pytest.mark.parametrize(
    ("names", "dim", "length"),
    [(["class", "outline"], None, 16), (None, 4, 12), (["local", "class"], 2, 4)],
)
def test_smaller_embedder_gives_the_truncated_vectors(run, tmp_path, names, dim, length):
    whole = run()
    cut = shrink_embedder(whole, tmp_path / "cut", names, dim)
    found = vectors_of(tmp_path / "cut")
    assert found.shape == (3, length) == (3, sum(head.dim for head in cut.heads))
    expected = truncate_vectors(vectors_of(whole), HEADS, names or [h.name for h in HEADS], dim)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)


def test_card_lists_the_remaining_lengths(run, tmp_path):
    assert shrink_embedder(run(), tmp_path / "cut", dim=4).shorter_dims == [2]


@pytest.mark.parametrize(("names", "dim"), [(["class"], None), (["class", "outline"], None), (["class", "local"], 4)])
def test_the_device_cuts_stored_vectors_alike(names, dim):
    rows = np.random.default_rng(0).normal(size=(5, sum(head.dim for head in HEADS))).astype(np.float32)
    part = [Head(name=head.name, dim=dim or head.dim) for head in HEADS if head.name in names]
    np.testing.assert_allclose(cut_vectors(rows, HEADS, part), truncate_vectors(rows, HEADS, names, dim), atol=1e-6)


def test_truncate_vectors_on_small_numbers():
    heads = [Head(name="class", dim=2), Head(name="outline", dim=2)]
    joint = np.array([[0.6, 0.8, 0.0, 1.0]], np.float32) / np.sqrt(2)
    np.testing.assert_allclose(truncate_vectors(joint, heads, ["outline"]), [[0.0, 1.0]], atol=1e-6)
    np.testing.assert_allclose(truncate_vectors(joint, heads, ["class", "outline"]), joint, atol=1e-6)
    np.testing.assert_allclose(truncate_vectors(joint, heads, ["class"], 1), [[1.0]], atol=1e-6)


def test_untrained_length_and_missing_head_are_rejected(run, tmp_path):
    whole = run(heads=HEADS[:2])
    with pytest.raises(TrainError, match=r"dim is 3, expected one of \[2, 4, 8, 8\]"):
        shrink_embedder(whole, tmp_path / "cut", dim=3)
    with pytest.raises(TrainError, match=r"has heads \['class', 'local'\]; \['outline'\]"):
        shrink_embedder(whole, tmp_path / "cut", ["outline"])


def test_sum_of_heads_can_only_be_truncated(run, tmp_path):
    whole = run(joint="sum")
    with pytest.raises(TrainError, match="heads are summed"):
        shrink_embedder(whole, tmp_path / "cut", ["class"])
    shrink_embedder(whole, tmp_path / "cut", dim=4)
    assert vectors_of(tmp_path / "cut").shape == (3, 4)


def test_only_an_embedder_can_be_shrunk(tmp_path):
    spec = Preprocess(width=64, height=64)
    card = ModelCard(
        kind="classifier", backbone="mobilenetv4_conv_small_050", preprocess=spec, strides=[16], width=4, labels=["a"]
    )
    save_model(tmp_path, build_model(card), card)
    with pytest.raises(TrainError, match="this is a classifier; give the run folder of an embedder"):
        shrink_embedder(tmp_path, tmp_path / "cut")
