"""Which embedder `learn` uses: the trained one, unless the published features find more held-out photos."""

from __future__ import annotations

import json

import pytest

from learn.networks import make_embedder, recall_of
from learn.photos import hold_out, read_photos, write_index
from learn.plan import Plan
from tests.learn.test_photos import shop
from trainer.models.networks import CARD_FILE, load_model
from trainer.models.published_weights import choose_weights

TRAINED = Plan("trained", 64, 32, 1, 1, "it fits")


@pytest.fixture
def index(tmp_path):
    photos = read_photos(shop(tmp_path / "photos", 6), None, tmp_path / "copies", lambda listed, _: listed)
    return write_index(hold_out(photos), tmp_path / "index.csv")


def set_recall(run, recall):
    run.mkdir(exist_ok=True)
    (run / CARD_FILE).write_text(json.dumps({"metrics": {"recall_1_train": recall}}))


def test_photos_are_trained_on_at_the_size_of_the_plan(tmp_path, index, lcnet):
    run, how = make_embedder(TRAINED, index, choose_weights(lcnet), tmp_path)
    network, card = load_model(tmp_path / "trained")
    assert network.part_dims == {"class": 384}
    assert (card.preprocess.width, card.recipe["input"]["train_width"]) == (64, 32)
    assert card.categories == ["fruit", "milk"]
    better = recall_of(tmp_path / "trained") >= recall_of(tmp_path / "general")
    assert run.name == ("trained" if better else "general")
    assert ("trained: it fits" in how) == better


@pytest.mark.parametrize(
    ("before", "after", "name", "said"),
    [
        (0.5, 0.6, "trained", "trained: it fits"),
        (0.5, 0.5, "trained", "trained: it fits"),
        (0.6, 0.5, "general", "training made it worse (50% instead of 60%)"),
    ],
)
def test_the_better_run_is_used_and_none_is_made_again(tmp_path, lcnet, before, after, name, said):
    set_recall(tmp_path / "general", before)
    set_recall(tmp_path / "trained", after)
    run, how = make_embedder(TRAINED, tmp_path / "no.csv", choose_weights(lcnet), tmp_path)
    assert run == tmp_path / name
    assert said in how
