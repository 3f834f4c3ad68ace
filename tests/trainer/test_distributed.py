"""Training in two processes equals training in one; a killed run resumes to the same result."""

from __future__ import annotations

import multiprocessing
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.errors import TrainError
from tests.trainer.loop.test_training_loop import table
from tests.trainer.processes import PLAIN, killed, step, together
from tests.trainer.toy import classifier_recipe, embedder_recipe, write_crops
from trainer import distributed
from trainer.loop.checkpoint import CHECKPOINT_FILE
from trainer.models.networks import load_model
from trainer.tasks.classifier import train_classifier
from trainer.tasks.embedder import train_embedders


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The run folders of two processes that trained together, started as by torchrun, and of one that was killed."""
    folder = tmp_path_factory.mktemp("runs")
    index = write_crops(folder / "data")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["tests.trainer.processes"])  # this import takes most of the time
    several = [
        start.Process(target=together, args=(index, folder, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}))
        for rank in (0, 1)
    ]
    several.append(start.Process(target=killed, args=(index, folder / "killed")))
    for process in several:
        process.start()
    for process in several:
        process.join(timeout=120)
        process.kill()
    assert [process.exitcode for process in several] == [0, 0, -signal.SIGKILL]
    return folder


@pytest.mark.parametrize("kind", ["classifier", "embedder", "detector"])
def test_two_processes_get_the_gradients_of_one(runs, kind):
    alone = step(kind)
    both = [torch.load(runs / f"{rank}.pt", weights_only=True)[kind] for rank in (0, 1)]
    for found in both:
        assert found.keys() == alone.keys()
        largest = max(float(value.abs().max()) for value in alone.values())
        for name, expected in alone.items():
            assert torch.allclose(found[name], expected, rtol=1e-3, atol=2e-6 * largest), name


def test_each_rank_has_its_own_seed(runs):
    assert [torch.load(runs / f"{rank}.pt", weights_only=True)["seed"] for rank in (0, 1)] == [(7, 0), (7, 1)]
    assert distributed.rank_seed(7) == (7,)


def test_two_processes_train_like_one_and_only_rank_0_writes(runs, tmp_path):
    card = train_classifier(classifier_recipe(runs / "data" / "index.csv", epochs=2, augment=PLAIN), tmp_path / "one")
    assert list((runs / "1").iterdir()) == []
    two = table(runs / "0")
    for row, expected in zip(two, table(tmp_path / "one"), strict=True):
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-3)
    assert float(two[-1]["accuracy"]) == pytest.approx(card.metrics["accuracy"], abs=0.15)


def test_run_killed_in_mid_epoch_resumes_to_the_same_weights(runs, tmp_path):
    recipe = embedder_recipe(runs / "data" / "index.csv", epochs=4, batches_per_epoch=3)
    assert torch.load(runs / "killed" / CHECKPOINT_FILE, weights_only=True)["epoch"] == 2
    torch.set_num_threads(1)
    train_embedders(recipe, runs / "killed")
    train_embedders(recipe, tmp_path / "unbroken")
    assert table(tmp_path / "unbroken") == table(runs / "killed")
    one, other = (load_model(folder)[0].state_dict() for folder in (tmp_path / "unbroken", runs / "killed"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_batch_that_does_not_divide_is_an_error(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(TrainError, match="a batch of 7 pictures does not divide by 2 processes"):
        distributed.shard(np.arange(7))


def test_single_process_gets_its_input_back():
    rows = torch.ones(3, 2)
    assert distributed.gather_rows(rows) is rows
    assert distributed.broadcast_from_rank0("found") == "found"
    assert distributed.shard(np.arange(7)).tolist() == list(range(7))
