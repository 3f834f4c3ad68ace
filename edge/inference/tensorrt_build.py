"""Build a plan, TensorRT's form of a model, from an ONNX file. This needs no GPU where the library needs none.

Rules:
1. The network is strongly typed: the Q/DQ and Cast nodes of the ONNX file set the precision.
2. The model has one input, of which only the batch may be dynamic.
3. A timing cache that TensorRT rejects is replaced by an empty one.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge.config.schema import TensorRtConfig
from edge.errors import EngineError, one_line
from edge.inference.tensorrt_library import VERSION, failed, forget_errors, has, library_log, trt, why

log = logging.getLogger(__name__)

OnShare = Callable[[float], None]  # share of the build that is done, 0..1

_BITS_OF_MIB = 20
_SHOWN_ERRORS = 3
# what the parser writes around a reason: the condition, the function, the place in its source
_INSIDE = re.compile(
    r'^Assertion failed: .*?: (?=[A-Z])|^[\w:]+: Error Code \d+: [\w ]+\(|\.? In \w+ at \S+\)$|^\w+ && "|"$'
)


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, and what the next build can use."""

    plan: bytes
    timing_cache: bytes  # b"": the build kept none
    took_s: float


def build_plan(
    onnx: bytes,
    where: str,
    max_batch: int,
    config: TensorRtConfig,
    timing_cache: bytes = b"",
    on_share: OnShare = lambda _: None,
) -> Built:
    """Build the plan of a model, which takes minutes on a small device.

    Args:
        onnx: the file.
        where: names it in errors.
        max_batch: rows of the largest batch if the batch is dynamic.
        config: how to build.
        timing_cache: of earlier builds with this TensorRT on this device.
        on_share: called as the build goes on, in this thread.

    Raises:
        EngineError: TensorRT rejects the file or cannot build it here.
    """
    started_s = time.monotonic()
    forget_errors()
    try:
        builder = trt.Builder(library_log())
        # strongly typed: required by 10, without effect in 11; its bit differs between the two
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = _parse(network, onnx, where)
        settings = builder.create_builder_config()
        _add_profile(builder, network, settings, max_batch, where)
        _configure(builder, settings, config, where)
        timings = _add_timing_cache(settings, timing_cache, where) if config.timing_cache else None
        monitor = _Monitor(on_share)  # a variable: TensorRT may not own it
        settings.progress_monitor = monitor
        plan = builder.build_serialized_network(network, settings)
        del parser  # not before: it owns the weights of the network
        kept = b"" if timings is None else bytes(timings.serialize())
    except EngineError:
        raise
    except Exception as error:  # the bindings raise many types, such as TypeError where there is no GPU
        raise failed(where, "TensorRT cannot build it", error) from error
    if plan is None:
        raise failed(where, "TensorRT cannot build it")
    return Built(bytes(plan), kept, time.monotonic() - started_s)


def _parse(network: Any, onnx: bytes, where: str) -> Any:
    """Fill a network; return the parser, which owns its weights."""
    parser = trt.OnnxParser(network, library_log())
    if not parser.parse(onnx):
        errors = [_reason(parser.get_error(i)) for i in range(parser.num_errors)]
        raise EngineError(
            f"{where}: TensorRT cannot parse it: {'; '.join(errors[:_SHOWN_ERRORS]) or why()}; "
            "pack it again with edge-quantize, which checks its forms for TensorRT"
        )
    return parser


def _reason(error: Any) -> str:
    """Return which node the parser rejects and why, without the names of its own functions and files."""
    lines = error.desc().splitlines()
    reasons = [line for line in lines if not line.startswith("Invalid Node")] or lines or ["no reason given"]
    reason = one_line(_INSIDE.sub("", reasons[0]).rstrip("."))
    name, operator = error.node_name(), error.node_operator()
    return f"{operator} {name!r}: {reason.removeprefix(f'{name}: ')}" if operator else reason


def _add_profile(builder: Any, network: Any, settings: Any, max_batch: int, where: str) -> None:
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    if len(tensors) != 1:
        names = [tensor.name for tensor in tensors]
        raise EngineError(f"{where}: the model has {len(tensors)} inputs {names}; only one is supported")
    batch, *row = tuple(tensors[0].shape)
    if -1 in row:
        raise EngineError(
            f"{where}: {tensors[0].name}: only the batch may be dynamic, but the shape is {[batch, *row]}"
        )
    if batch != -1:
        return
    profile = builder.create_optimization_profile()
    profile.set_shape(tensors[0].name, (1, *row), (1, *row), (max_batch, *row))
    if settings.add_optimization_profile(profile) < 0:
        raise failed(where, f"TensorRT rejects batches of 1 to {max_batch}")


def _configure(builder: Any, settings: Any, config: TensorRtConfig, where: str) -> None:
    settings.builder_optimization_level = config.optimisation_level
    if config.workspace_mib is not None:
        settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, config.workspace_mib << _BITS_OF_MIB)
    if config.dla_core is not None:
        cores = builder.num_DLA_cores if has("DeviceType.DLA") else 0
        if config.dla_core >= cores:
            raise EngineError(
                f"{where}: engine.tensorrt.dla_core is {config.dla_core}, but TensorRT {VERSION} finds {cores} DLA "
                "cores here; remove the key"
            )
        settings.default_device_type = trt.DeviceType.DLA
        settings.DLA_core = config.dla_core
        settings.set_flag(trt.BuilderFlag.GPU_FALLBACK)  # layers that the DLA lacks run on the GPU


def _add_timing_cache(settings: Any, kept: bytes, where: str) -> Any:
    """Give the builder the timings of earlier builds, or none if it rejects them; return its cache."""
    for data in (kept, b""):
        try:
            timings = settings.create_timing_cache(data)
            if timings is not None and settings.set_timing_cache(timings, False):
                return timings
            reason = why()
        except Exception as error:  # noqa: BLE001  a damaged cache must not stop the build
            reason = str(error)
        if data:
            log.warning("%s: TensorRT rejects the timing cache, starting another: %s", where, one_line(reason))
        forget_errors()
    return None


class _Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # TensorRT has no types
    """Turns TensorRT's nested phases into one share that never falls."""

    def __init__(self, on_share: OnShare) -> None:
        trt.IProgressMonitor.__init__(self)
        self._on_share = on_share
        self._phases: dict[str, tuple[str | None, int, int]] = {}  # name -> parent, steps, steps done
        self._reported = 0.0

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        self._phases[phase_name] = (parent_phase, max(1, num_steps), 0)

    def step_complete(self, phase_name: str, step: int) -> bool:
        if phase_name in self._phases:
            parent, steps, _ = self._phases[phase_name]
            self._phases[phase_name] = (parent, steps, min(steps, step + 1))
            self._report()
        return True  # go on

    def phase_finish(self, phase_name: str) -> None:
        self._phases.pop(phase_name, None)

    def _report(self) -> None:
        roots = [name for name, (parent, _, _) in self._phases.items() if parent is None]
        share = max((self._share(name) for name in roots), default=0.0)
        if share > self._reported:
            self._reported = share
            self._on_share(share)

    def _share(self, name: str) -> float:
        _, steps, done = self._phases[name]
        inner = max((self._share(child) for child, (parent, _, _) in self._phases.items() if parent == name), default=0)
        return min(1.0, (done + inner) / steps)
