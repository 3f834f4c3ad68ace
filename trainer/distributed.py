"""Data-parallel training under torchrun: several processes share each batch and get the gradients of one process.

Each process augments its shard of a batch's pictures and runs the trunk on them. Features and labels are then gathered,
so that heads and losses see the whole batch in every process, pairs across shards included.

Rules this module keeps:
1. Without torchrun every function returns its input.
2. The trunk's batch norm takes its statistics from all shards. gloo has no SyncBatchNorm, so it is written out here.
3. A gathered row's gradient is multiplied by the number of processes, because gradients are averaged at the end: those
   of the trunk are parts of a sum, those of the heads are equal already.
4. Only rank 0 evaluates and writes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edge.errors import TrainError

T = TypeVar("T")


def world_size() -> int:
    """Return the number of processes."""
    return int(dist.get_world_size()) if dist.is_initialized() else 1


def require_single_process(what: str) -> None:
    """Check that this is the only process.

    Raises:
        TrainError: torchrun started several.
    """
    if world_size() > 1:
        raise TrainError(
            f"{what}: trains in one process only, but torchrun started {world_size()}; start it without torchrun"
        )


def rank() -> int:
    """Return the rank of this process."""
    return int(dist.get_rank()) if dist.is_initialized() else 0


def is_rank0() -> bool:
    """Return whether this is the process that evaluates and writes."""
    return rank() == 0


@contextmanager
def process_group(environment: Mapping[str, str]) -> Iterator[None]:
    """Join the processes that torchrun started; do nothing without torchrun.

    Args:
        environment: WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, as torchrun sets them.

    Raises:
        TrainError: the processes cannot connect to each other.
    """
    count = int(environment.get("WORLD_SIZE", "1"))
    if count == 1:
        yield
        return
    has_gpu = torch.cuda.is_available()
    if has_gpu:
        torch.cuda.set_device(int(environment.get("LOCAL_RANK", "0")))
    try:
        address = f"tcp://{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}"
        backend = "cpu:gloo,cuda:nccl" if has_gpu else "gloo"
        dist.init_process_group(backend, init_method=address, world_size=count, rank=int(environment["RANK"]))
    except (KeyError, RuntimeError, ValueError) as error:
        raise TrainError(f"torchrun: the processes cannot connect: {error}") from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def shard(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return this process's shard of a batch.

    Raises:
        TrainError: the batch does not divide into equal shards.
    """
    if len(indices) % world_size():
        raise TrainError(
            f"a batch of {len(indices)} pictures does not divide by {world_size()} processes; change optimiser.batch"
        )
    size = len(indices) // world_size()
    return indices[rank() * size : (rank() + 1) * size]


def rank_seed(*seeds: int) -> tuple[int, ...]:
    """Return a seed of this rank; in a single process, the given seed."""
    return seeds if world_size() == 1 else (*seeds, rank())


def gather_rows(rows: Tensor) -> Tensor:
    """Gather the rows (n / processes, ...) of all ranks, in order: (n, ...). Each rank gets its own rows' gradients."""
    return rows if world_size() == 1 else _AllGather.apply(rows)


def gather_batch(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gather the tensors of a batch from all ranks, except its pictures `x` and scalars, which are equal everywhere."""
    return {name: value if name == "x" or not value.ndim else gather_rows(value) for name, value in tensors.items()}


def broadcast_weights(module: nn.Module) -> None:
    """Copy the weights of rank 0 to every process."""
    if world_size() > 1:
        for value in module.state_dict().values():
            dist.broadcast(value, 0)


def average_gradients(module: nn.Module) -> None:
    """Replace every gradient by its mean over the processes."""
    found = [p.grad for p in module.parameters() if p.grad is not None]
    if world_size() == 1 or not found:
        return
    flat = torch.cat([gradient.flatten() for gradient in found])
    dist.all_reduce(flat)
    start = 0
    for gradient in found:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient) / world_size())
        start += gradient.numel()


def broadcast_from_rank0(value: T) -> T:
    """Return the value of rank 0."""
    if world_size() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, 0)
    received: T = box[0]
    return received


@contextmanager
def sync_batch_norm(trunks: Sequence[nn.Module]) -> Iterator[None]:
    """Let the batch norms of these trunks normalise by the whole batch, not by the shard of this process."""
    norms = [part for trunk in trunks for part in trunk.modules() if isinstance(part, _BatchNorm)]
    if world_size() > 1:
        for norm in norms:
            norm.forward = functools.partial(_synced_batch_norm, norm)
    try:
        yield
    finally:
        for norm in norms:
            norm.__dict__.pop("forward", None)


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # noqa: ARG004
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return gradient.chunk(world_size())[rank()] * world_size()


class _AllReduceSum(torch.autograd.Function):
    """The sum over all processes; each process's input affects the output of all."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def _synced_batch_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Batch norm over all shards; timm's variant also has dropout and an activation."""
    if not norm.training:
        return type(norm).forward(norm, x)
    wide = x.float()
    axes = [0, *range(2, x.ndim)]
    shape = (1, -1, *[1] * (x.ndim - 2))
    count = wide.numel() // wide.shape[1] * world_size()
    mean = _AllReduceSum.apply(wide.sum(axes)) / count
    centred = wide - mean.view(shape)
    variance = _AllReduceSum.apply(centred.square().sum(axes)) / count
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        momentum = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(variance * count / max(1, count - 1), momentum)
    y = centred * ((variance + norm.eps).rsqrt() * norm.weight).view(shape) + norm.bias.view(shape)
    y = y.to(x.dtype)
    return norm.act(norm.drop(y)) if hasattr(norm, "act") else y
