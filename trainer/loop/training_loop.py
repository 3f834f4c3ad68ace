"""The training loop: seeded, resumable, watched.

Rules this module keeps:
1. Everything random is drawn from (seed, epoch, step), so that a resumed run goes on exactly as an unbroken one.
2. The checkpoint is replaced whole at the end of each epoch; a run started again with the same recipe goes on from it.
3. A loss or gradient that is not a number stops the run and leaves the last good checkpoint; the batch is named.
4. Several processes that torchrun started share each batch (trainer.distributed); the first alone examines and writes.
"""

from __future__ import annotations

import copy
import ctypes
import math
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from edge.errors import TrainError
from trainer import distributed
from trainer.disk_errors import report_disk_errors
from trainer.loop.checkpoint import CHECKPOINT_FILE, load_best, resume_checkpoint, save_best, save_checkpoint
from trainer.loop.history import write_history
from trainer.loop.schedule import best_so_far, learning_rate, require_watched, watched_values
from trainer.models.backbone import Trunk, training_dtype, training_mode
from trainer.recipe import Optimiser


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step learns from."""

    tensors: dict[str, Tensor]  # `x`, the pictures; every other one has a row for each of them, or is one number
    names: list[str]  # of its pictures


class Task(Protocol):
    """What is trained: a network, its batches, its loss, its examination."""

    module: nn.Module  # with whatever only training needs
    plan: list[NDArray[np.int64]]  # the pictures of each batch of the epoch

    def steps(self) -> int:
        """Batches of an epoch."""
        ...

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Those that learn at the trunk's own rate."""
        ...

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:
        """Plan the epoch's batches."""
        ...

    def batch(self, step: int, rng: np.random.Generator) -> Batch:
        """Make one batch; called from another thread, one call at a time."""
        ...

    def loss(self, tensors: dict[str, Tensor], done: float) -> dict[str, Tensor]:
        """The parts of the loss; their sum is what is minimised. `done` is the fraction of the training behind."""
        ...

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Examine a module of the same shape, in eval mode, on the validation data."""
        ...


# malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Stop malloc from returning freed memory to the kernel, which costs a page fault per page at the next step.

    Measured on a training step of mobilenetv2_100 at 144 px, batch 32, one thread: 1.10 s user and 0.25 s system time
    before, 1.05 s and 0.02 s after.

    Returns:
        whether this C library has the setting.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_M_TOP_PAD, 256 * 2**20))


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainError("device is 'cuda', found no CUDA device, expected one or 'cpu'")
    return torch.device(name)


def fit(task: Task, how: Optimiser, out: Path, seed: int, recipe: str, held: Sequence[nn.Module] = ()) -> nn.Module:
    """Train until the last epoch or until it is told to stop early, from the checkpoint in `out` where there is one.

    Args:
        task: what is trained; its module is changed in place.
        how: epochs, rates, averaging.
        out: run folder: checkpoint, metrics.csv, curves.png.
        seed: of everything random.
        recipe: as text; a checkpoint of another one is refused.
        held: parts that stay in eval mode.

    Returns:
        the module to ship: the average of the weights where one is kept, in eval mode; of the best examination where
        there is a `stop_after`.

    Raises:
        TrainError: the loss is not a number, the checkpoint is damaged or of another recipe, or the disk refused.
    """
    with report_disk_errors(f"{out}: cannot make the run folder"):
        out.mkdir(parents=True, exist_ok=True)
    device = choose_device(how.device)
    if how.threads:
        torch.set_num_threads(how.threads)
    torch.manual_seed(seed)
    task.module.to(device, memory_format=torch.channels_last)
    distributed.broadcast_weights(task.module)
    average = copy.deepcopy(task.module) if how.ema is not None else None
    shipped = task.module if average is None else average
    optimiser = _optimiser(task, how)
    state = resume_checkpoint(out / CHECKPOINT_FILE, task.module, average, optimiser, recipe)
    epochs = _Epochs(task, how, out, seed, device, optimiser, average, held)
    for epoch in range(state.epoch, how.epochs):
        if standing(state.rows, how.watch).is_over(how.stop_after):
            break
        started = time.monotonic()
        row = epochs.learn(epoch, watched_values(state.rows, how))
        examined = (epoch + 1) % how.evaluate_every == 0 or epoch + 1 == how.epochs
        found = distributed.broadcast_from_rank0(_examine(task, shipped) if examined and distributed.is_rank0() else {})
        state.rows.append(row | found | {"seconds": time.monotonic() - started})
        state.epoch = epoch + 1
        now = standing(state.rows, how.watch)
        if examined and (how.stop_after is not None or how.schedule == "plateau"):
            require_watched(found, now, how.watch)
        if distributed.is_rank0():
            if how.stop_after is not None and now.best_epoch == epoch + 1:
                save_best(out, epoch + 1, shipped)
            save_checkpoint(out / CHECKPOINT_FILE, state, task.module, average, optimiser, recipe)
            write_history(out, state.rows, curves=examined)
    if how.stop_after is not None:
        distributed.broadcast_from_rank0(None)  # once that one has written
        load_best(out, standing(state.rows, how.watch).best_epoch, shipped)
    return shipped.eval()


@dataclass(frozen=True, slots=True)
class _Epochs:
    """Goes through the data once and again."""

    task: Task
    how: Optimiser
    out: Path
    seed: int
    device: torch.device
    optimiser: torch.optim.Optimizer
    average: nn.Module | None
    held: Sequence[nn.Module]

    def learn(self, epoch: int, watched: Sequence[float]) -> dict[str, float]:
        """Learn from every batch of one epoch; the row of metrics.csv, but for the examination."""
        task, how, steps = self.task, self.how, self.task.steps()
        torch.manual_seed(self.seed * 100_003 + epoch)
        task.begin_epoch(epoch, np.random.default_rng((self.seed, epoch, 0)))
        task.plan = [distributed.shard(indices) for indices in task.plan]
        task.module.train()
        for part in self.held:
            part.eval()
        sums: dict[str, float] = {}
        bar = tqdm(
            _produce(task, self.seed, epoch, steps),
            total=steps,
            desc=f"{self.out.name} {epoch + 1}/{how.epochs}",
            disable=not distributed.is_rank0(),
        )
        for step, batch in enumerate(bar):
            done = epoch * steps + step
            rate = learning_rate(how, done, how.epochs * steps, watched)
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            parts = self._minimise(batch, (epoch, step), done / (how.epochs * steps))
            if self.average is not None:
                _follow(self.average, task.module, min(how.ema or 0.0, (1 + done) / (10 + done)))
            for key, value in parts.items():
                sums[key] = sums.get(key, 0.0) + value
            bar.set_postfix_str(f"loss {sum(parts.values()):.3f}")
        losses = {f"loss_{key}": value / steps for key, value in sums.items()}
        return {"epoch": epoch + 1.0, "lr": rate, "loss": sum(losses.values()), **losses}

    def _minimise(self, batch: Batch, at: tuple[int, int], done: float) -> dict[str, float]:
        """Take one step; the parts of its loss."""
        module = self.task.module
        trunks = [part for part in module.modules() if isinstance(part, Trunk)]
        tensors = {key: value.to(self.device, non_blocking=True) for key, value in batch.tensors.items()}
        self.optimiser.zero_grad(set_to_none=True)
        with training_mode(trunks, training_dtype(self.how.precision, self.device)):
            parts = self.task.loss(distributed.gather_batch(tensors), done)
            loss = torch.stack(list(parts.values())).sum()
            values = {key: float(part.detach()) for key, part in parts.items()}
            _require_finite("loss", loss, values, at, batch, self.out)
            loss.backward()
        distributed.average_gradients(module)
        norm = nn.utils.clip_grad_norm_(module.parameters(), self.how.clip)
        _require_finite("gradient", norm, values, at, batch, self.out)
        self.optimiser.step()
        return values


def _optimiser(task: Task, how: Optimiser) -> torch.optim.Optimizer:
    trunk = {id(parameter) for parameter in task.trunk_parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in filter(lambda p: p.requires_grad, task.module.parameters()):
        factor = how.trunk_lr if id(parameter) in trunk else 1.0
        decay = how.weight_decay if parameter.ndim > 1 else 0.0  # no decay on biases and norms
        groups.setdefault((factor, decay), []).append(parameter)
    listed = [{"params": p, "factor": factor, "weight_decay": decay} for (factor, decay), p in groups.items()]
    if how.name == "sgd":
        return torch.optim.SGD(listed, lr=how.lr, momentum=how.momentum, nesterov=how.momentum > 0)
    return torch.optim.AdamW(listed, lr=how.lr)


def _produce(task: Task, seed: int, epoch: int, steps: int) -> Iterator[Batch]:
    """Make batches one ahead in a thread: the picture library works while the network learns."""
    queue: Queue[Batch | BaseException] = Queue(maxsize=2)
    stop = threading.Event()

    def work() -> None:
        try:
            for step in range(steps):
                rng = np.random.default_rng(distributed.rank_seed(seed, epoch, step + 1))
                batch = task.batch(step, rng)
                queue.put(batch)
                if stop.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 handed over and raised where the batch was awaited
            queue.put(error)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        for _ in range(steps):
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


def _require_finite(
    what: str, value: Tensor, parts: dict[str, float], at: tuple[int, int], batch: Batch, out: Path
) -> None:
    if not math.isfinite(float(value.detach())):
        epoch, step = at
        values = ", ".join(f"{key} {part:.3g}" for key, part in parts.items())
        raise TrainError(
            f"{out}: {what} is {float(value.detach())} in epoch {epoch + 1}, batch {step} ({values}; pictures "
            f"{', '.join(batch.names[:3])}, ...), expected a number; {CHECKPOINT_FILE} holds epoch {epoch}"
        )


@torch.no_grad()
def _follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    for slow, fast in zip(average.parameters(), module.parameters(), strict=True):
        slow.lerp_(fast, 1.0 - decay)
    for slow, fast in zip(average.buffers(), module.buffers(), strict=True):
        if slow.is_floating_point():
            slow.lerp_(fast, 1.0 - decay)
        else:
            slow.copy_(fast)


@torch.no_grad()
def _examine(task: Task, shipped: nn.Module) -> dict[str, float]:
    shipped.eval()
    return task.evaluate(shipped)
