"""The training loop: seeded, resumable, watched.

Rules this module keeps:
1. Everything random is drawn from (seed, epoch, step), so that a resumed run goes on exactly as an unbroken one.
2. The checkpoint is replaced whole at the end of each epoch; a run started again with the same recipe goes on from it.
3. A loss that is not a number stops the run and leaves the last good checkpoint; the batch is named.
"""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from edge.errors import TrainError
from trainer.checkpoint import CHECKPOINT_FILE, resume_checkpoint, save_checkpoint
from trainer.history import write_history
from trainer.recipe import Optimiser
from trainer.schedule import learning_rate, stalled, watched_values


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step learns from."""

    tensors: dict[str, Tensor]
    names: list[str]  # of its pictures


class Task(Protocol):
    """What is trained: a network, its batches, its loss, its examination."""

    module: nn.Module  # with whatever only training needs

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


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainError("device is 'cuda', found no CUDA device, expected one or 'cpu'")
    return torch.device(name)


def fit(task: Task, how: Optimiser, out: Path, seed: int, recipe: str, held: Sequence[nn.Module] = ()) -> nn.Module:
    """Train until the last epoch, or until nothing more is gained, from the checkpoint in `out` where there is one.

    Args:
        task: what is trained; its module is changed in place.
        how: epochs, rates, averaging.
        out: run folder: checkpoint, metrics.csv, curves.png.
        seed: of everything random.
        recipe: as text; a checkpoint of another one is refused.
        held: parts that stay in eval mode.

    Returns:
        the module to ship: the average of the weights where one is kept, in eval mode.

    Raises:
        TrainError: the loss is not a number, or the checkpoint is damaged or of another recipe.
    """
    out.mkdir(parents=True, exist_ok=True)
    device = choose_device(how.device)
    if how.threads:
        torch.set_num_threads(how.threads)
    torch.manual_seed(seed)
    task.module.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(task.module) if how.ema is not None else None
    optimiser = _optimiser(task, how)
    state = resume_checkpoint(out / CHECKPOINT_FILE, task.module, average, optimiser, recipe)
    steps = task.steps()
    total = how.epochs * steps
    for epoch in range(state.epoch, how.epochs):
        watched = watched_values(state.rows, how)
        if stalled(watched, how):
            break
        started = time.monotonic()
        torch.manual_seed(seed * 100_003 + epoch)
        task.begin_epoch(epoch, np.random.default_rng((seed, epoch, 0)))
        task.module.train()
        for part in held:
            part.eval()
        sums: dict[str, float] = {}
        bar = tqdm(_produce(task, seed, epoch, steps), total=steps, desc=f"{out.name} {epoch + 1}/{how.epochs}")
        for step, batch in enumerate(bar):
            rate = learning_rate(how, epoch * steps + step, total, watched)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            tensors = {key: value.to(device, non_blocking=True) for key, value in batch.tensors.items()}
            parts = task.loss(tensors, (epoch * steps + step) / total)
            loss = torch.stack(list(parts.values())).sum()
            _require_finite(parts, loss, epoch, step, batch, out)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(task.module.parameters(), how.clip)
            optimiser.step()
            if average is not None:
                _follow(
                    average, task.module, min(how.ema or 0.0, (1 + epoch * steps + step) / (10 + epoch * steps + step))
                )
            for key, value in parts.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach())
            bar.set_postfix_str(f"loss {float(loss.detach()):.3f}")
        row = {"epoch": epoch + 1.0, "lr": rate, "loss": sum(sums.values()) / steps}
        row |= {f"loss_{key}": value / steps for key, value in sums.items()}
        examined = (epoch + 1) % how.evaluate_every == 0 or epoch + 1 == how.epochs
        if examined:
            row |= _examine(task, average)
            _require_watched(how, row)
        row["seconds"] = time.monotonic() - started
        state.rows.append(row)
        state.epoch = epoch + 1
        save_checkpoint(out / CHECKPOINT_FILE, state, task.module, average, optimiser, recipe)
        write_history(out, state.rows, curves=examined)
    return (task.module if average is None else average).eval()


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
                batch = task.batch(step, np.random.default_rng((seed, epoch, step + 1)))
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


def _require_finite(parts: dict[str, Tensor], loss: Tensor, epoch: int, step: int, batch: Batch, out: Path) -> None:
    if not math.isfinite(float(loss.detach())):
        values = ", ".join(f"{key} {float(value.detach()):.3g}" for key, value in parts.items())
        raise TrainError(
            f"{out}: loss is {float(loss.detach())} in epoch {epoch + 1}, batch {step} ({values}; pictures "
            f"{', '.join(batch.names[:3])}, ...), expected a number; {CHECKPOINT_FILE} holds epoch {epoch}"
        )


def _require_watched(how: Optimiser, row: dict[str, float]) -> None:
    if how.watch is not None and how.watch not in row:
        raise TrainError(f"optimiser.watch is {how.watch!r}, expected one of what is measured: {sorted(row)}")


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
def _examine(task: Task, average: nn.Module | None) -> dict[str, float]:
    module = task.module if average is None else average
    module.eval()
    return task.evaluate(module)
