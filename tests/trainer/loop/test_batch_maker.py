"""Batches from worker processes are those of the thread; errors are one line; no process is left behind."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

from edge.errors import TrainError
from tests.trainer.loop.test_training_loop import table
from tests.trainer.toy import classifier_recipe, optimiser, write_crops
from trainer.loop import batch_maker
from trainer.loop.batch import Batch
from trainer.loop.batch_maker import choose_workers, make_batches
from trainer.models.networks import load_model
from trainer.tasks.classifier import train_classifier


def in_fresh_process(test):
    """Run a test in a process of its own: its workers are forked, which suits no process with other tests' threads."""

    @functools.wraps(test)
    def run(*arguments, **named):
        start = multiprocessing.get_context("forkserver")
        start.set_forkserver_preload(["tests.trainer.processes"])  # imports torch once for all
        with ProcessPoolExecutor(1, mp_context=start) as pool:
            pool.submit(call, test.__name__, arguments, named).result()

    return run


def call(name, arguments, named):
    torch.set_num_threads(1)
    getattr(importlib.import_module(__name__), name).__wrapped__(*arguments, **named)


class Numbers:
    """Makes batches of random numbers; fails or dies at a step."""

    def __init__(self, fails_at: int = -1, dies_at: int = -1) -> None:
        self._fails_at, self._dies_at = fails_at, dies_at

    def batch(self, step: int, rng: np.random.Generator) -> Batch:
        if step == self._fails_at:
            raise TrainError("picture 7: too small; give a larger one")
        if step == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        x = torch.from_numpy(rng.standard_normal((2, 3, 4, 4))).contiguous(memory_format=torch.channels_last)
        return Batch({"x": x}, [str(step)])


def made(workers: int) -> list[Batch]:
    return list(make_batches(Numbers(), 5, 1, 6, workers))


@in_fresh_process
def test_any_number_of_workers_makes_the_same_batches():
    expected = made(0)
    assert [batch.names for batch in expected] == [[str(step)] for step in range(6)]
    for workers in (1, 2):
        for one, other in zip(made(workers), expected, strict=True):
            assert one.names == other.names
            assert torch.equal(one.tensors["x"], other.tensors["x"])
            assert one.tensors["x"].stride() == other.tensors["x"].stride()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [0, 1])
@in_fresh_process
def test_error_in_a_batch_is_one_line(workers):
    batches = make_batches(Numbers(fails_at=1), 5, 1, 4, workers)
    assert next(batches).names == ["0"]
    with pytest.raises(TrainError) as caught:
        next(batches)
    assert str(caught.value) == "picture 7: too small; give a larger one"
    assert multiprocessing.active_children() == []


@in_fresh_process
def test_killed_worker_is_named():
    with pytest.raises(TrainError, match="was ended from outside, perhaps because memory ran out"):
        list(make_batches(Numbers(dies_at=1), 5, 1, 4, 1))


@in_fresh_process
def test_interrupted_epoch_leaves_no_process():
    batches = make_batches(Numbers(), 5, 1, 100, 2)
    next(batches)
    with pytest.raises(KeyboardInterrupt):
        batches.throw(KeyboardInterrupt)
    assert multiprocessing.active_children() == []


@in_fresh_process
def test_training_is_the_same_with_workers_and_may_resume_without(tmp_path):
    index = write_crops(tmp_path / "data")
    for name, workers in (("thread", 0), ("process", 2)):
        recipe = classifier_recipe(index, optimiser=optimiser(2) | {"workers": workers})
        train_classifier(recipe, tmp_path / name)
    assert table(tmp_path / "thread") == table(tmp_path / "process")
    one, other = (load_model(tmp_path / name)[0].state_dict() for name in ("thread", "process"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    train_classifier(classifier_recipe(index, optimiser=optimiser(2) | {"workers": 1}), tmp_path / "thread")


def test_workers_are_chosen_by_device_and_cores(monkeypatch):
    monkeypatch.setattr(batch_maker, "usable_cores", lambda: 8)
    assert choose_workers(None, torch.device("cpu")) == 0
    assert choose_workers(None, torch.device("cuda")) == 7
    assert choose_workers(3, torch.device("cpu")) == 3
    monkeypatch.setattr(batch_maker.distributed, "world_size", lambda: 4)
    assert choose_workers(None, torch.device("cuda")) == 1
