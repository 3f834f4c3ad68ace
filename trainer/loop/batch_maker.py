"""Make batches ahead, so that augmentation runs while the network trains: in a thread, or in worker processes.

Rules this module keeps:
1. A batch depends on (seed, epoch, step) alone, so that any number of workers gives the same batches in the same order.
2. Workers are forked at the start of an epoch, when its plan is known, and share the pictures in memory. They never
   touch the GPU. A fork beside busy threads may crash or hang, and it once crashed a process full of other tests'
   threads; workers that start fresh would import torch and copy all pictures at each epoch: with 400 MB for two
   workers 8 s instead of 0.2. `optimiser.workers: 0` forks nothing.
3. However an epoch ends, its workers end with it. A worker that outlives its trainer ends by itself within seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import Queue
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from edge.errors import FinesightError, TrainError
from edge.imaging.image import set_threads
from trainer import distributed
from trainer.cores import usable_cores
from trainer.loop.batch import Batch

_MOST_WORKERS = 16
_AHEAD = 2  # batches that wait, of each worker


class BatchSource(Protocol):
    """Makes batches."""

    def batch(self, step: int, rng: np.random.Generator) -> Batch:
        """Make one batch."""
        ...


def choose_workers(asked: int | None, device: torch.device) -> int:
    """Return the number of worker processes of this process; 0: a thread makes the batches.

    On a CPU the network needs the cores itself. Beside a GPU every core but one makes batches.

    Args:
        asked: as the recipe says; None: choose.
        device: where the network trains.
    """
    if asked is not None:
        return asked
    if device.type == "cpu":
        return 0
    return min(_MOST_WORKERS, max(0, usable_cores() // distributed.world_size() - 1))


def make_batches(source: BatchSource, seed: int, epoch: int, steps: int, workers: int) -> Iterator[Batch]:
    """Yield the batches of an epoch in order, made ahead.

    Args:
        source: makes one batch; with workers, called in other processes, which share nothing that it changes.
        seed: of the run.
        epoch: number of the epoch, whose plan the source has.
        steps: number of batches.
        workers: number of processes; 0: a thread.

    Raises:
        TrainError: a worker failed, or was ended by the system.
        Exception: that of the source, from the thread.
    """
    batches = _Steps(source, seed, epoch, steps)
    return _in_processes(batches, workers) if workers else _in_thread(batches)


class _Steps(Dataset):
    """The batches of an epoch by their number."""

    def __init__(self, source: BatchSource, seed: int, epoch: int, steps: int) -> None:
        self._source, self._seed, self._epoch, self._steps = source, seed, epoch, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        return self._source.batch(step, np.random.default_rng(distributed.rank_seed(self._seed, self._epoch, step + 1)))


class _Reporting(Dataset):
    """Returns the text of an error of ours instead of raising it: a worker would add a traceback."""

    def __init__(self, batches: _Steps) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, step: int) -> Batch | str:
        try:
            return self._batches[step]
        except FinesightError as error:
            return str(error)


def _in_processes(batches: _Steps, workers: int) -> Iterator[Batch]:
    set_threads(1)  # a pool of OpenCV's threads would not survive the fork
    loader = DataLoader(
        _Reporting(batches),
        batch_size=None,
        num_workers=min(workers, len(batches)),
        prefetch_factor=_AHEAD,
        multiprocessing_context="fork",
        collate_fn=_unchanged,
        generator=torch.Generator(),  # else its seeds are drawn from the generator of the network's dropout
    )
    made = iter(loader)
    try:
        for batch in made:
            if isinstance(batch, str):
                raise TrainError(batch)
            yield batch
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise TrainError(
            "a process that makes batches was ended from outside, perhaps because memory ran out; set "
            "optimiser.workers to fewer, or to 0"
        ) from error
    finally:
        made._shutdown_workers()  # noqa: SLF001  else they end when the garbage collector comes


def _unchanged(batch: Batch | str) -> Batch | str:
    return batch


def _in_thread(batches: _Steps) -> Iterator[Batch]:
    queue: Queue[Batch | BaseException] = Queue(maxsize=2)
    stop = threading.Event()

    def work() -> None:
        try:
            for step in range(len(batches)):
                queue.put(batches[step])
                if stop.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 passed on and raised in the main thread
            queue.put(error)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        for _ in range(len(batches)):
            batch = queue.get()
            if isinstance(batch, BaseException):
                raise batch
            yield batch
    finally:
        stop.set()
        while thread.is_alive():
            if not queue.empty():
                queue.get()
            thread.join(timeout=0.01)
