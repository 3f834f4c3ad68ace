"""ONNX Runtime on NVIDIA GPUs: opens a model with its provider for CUDA or TensorRT, or with the plug-in TensorRT-RTX.

Running is not yet proved on hardware. How the providers fail to load is: with the packages of x86-64, and without a
driver, with one that finds no GPU, and with one that is too old.

Rules:
1. Nothing falls back: a provider that does not load, or leaves computation to the CPU, is an error.
2. A cache folder is named after all that its content depends on, because the providers check little of it. An engine
   in it that cannot be read is built again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from edge.config.schema import TensorRtConfig
from edge.durable import make_folder, sha256_of
from edge.errors import EngineError, GpuError
from edge.inference.machine import gpu_and_driver
from edge.inference.onnxruntime_engine import BoundEngine, OnnxRuntimeEngine, open_session, session_options
from edge.inference.onnxruntime_library import PROVIDERS, explain, load_libraries, not_loaded, ort, plugin_devices

log = logging.getLogger(__name__)

_MIB = 1 << 20
# Compute shapes. Providers leave them to the CPU on purpose, and no picture is copied for it.
_SHAPE_OPS = frozenset(
    {"Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Gather", "Mul", "Range", "Shape"}
    | {"Size", "Slice", "Squeeze", "Unsqueeze", "Where"}
)
_MOST_SHAPE_OPS = 0.2  # of all nodes


def open_gpu_session(
    path: Path, backend: str, max_batch: int = 1, cache: Path | None = None, config: TensorRtConfig | None = None
) -> OnnxRuntimeEngine:
    """Load a model file on an NVIDIA GPU.

    Args:
        path: an ONNX file.
        backend: a key of PROVIDERS.
        max_batch: rows of the largest batch.
        cache: folder of what is built on this machine; the model's folder when None.
        config: how TensorRT builds.

    Raises:
        GpuError: there is no GPU, it is lost, or its driver is missing or too old.
        EngineError: the file is missing or damaged, a library is missing, or the provider cannot run the whole model.
    """
    about = open_session(path, optimise=False)  # a damaged file is found before any engine is built
    load_libraries(backend)
    if backend == "onnxruntime-cuda":
        return _open_on(path, backend, _cuda_options())
    config = config or TensorRtConfig()
    cache = path.parent if cache is None else cache
    folder = _cache_folder(cache, backend, path, max_batch, config)
    profile = batch_profile(about.input_name, about.input_shape, max_batch)
    options = _rtx_options if backend == "tensorrt-rtx" else _tensorrt_options
    settings = options(folder, profile, config)
    was_built = _make(folder)
    try:
        return _open_on(path, backend, settings)
    except GpuError:
        raise
    except EngineError as error:
        if not was_built:
            raise
        log.warning("%s; building the engine again", error)
        shutil.rmtree(folder, ignore_errors=True)
        _make(folder)
        return _open_on(path, backend, settings)


def _make(folder: Path) -> bool:
    """Make a folder, and return whether it held something."""
    try:
        make_folder(folder)
        return any(folder.iterdir())
    except OSError as error:
        raise EngineError(f"{folder}: cannot write: {error.strerror}") from error


def _cuda_options() -> dict[str, str]:
    return {
        "device_id": "0",
        "arena_extend_strategy": "kSameAsRequested",  # else each model takes up to twice what it needs
        "cudnn_conv_algo_search": "HEURISTIC",  # the default tries every kernel again for every new batch size
        "use_tf32": "0",  # the form says the precision: fp16 is one, fp32 is not TF32
    }


def _tensorrt_options(folder: Path, profile: dict[str, str], config: TensorRtConfig) -> dict[str, str]:
    """Return the options of the TensorRT provider.

    FP16 and INT8 stay off: without them TensorRT keeps to the types and the Q/DQ pairs of the graph (strong typing).
    """
    options = {
        "device_id": "0",
        "trt_fp16_enable": "0",
        "trt_int8_enable": "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": str(int(config.timing_cache)),
        "trt_timing_cache_path": str(folder.parent),
        "trt_builder_optimization_level": str(config.optimisation_level),
        "trt_context_memory_sharing_enable": "1",
    }
    if config.workspace_mib is not None:
        options["trt_max_workspace_size"] = str(config.workspace_mib * _MIB)
    return options | {f"trt_profile_{key}_shapes": shapes for key, shapes in profile.items()}


def _rtx_options(folder: Path, profile: dict[str, str], config: TensorRtConfig) -> dict[str, str]:
    options = {"nv_runtime_cache_path": str(folder)}
    if config.workspace_mib is not None:
        options["nv_max_workspace_size"] = str(config.workspace_mib * _MIB)
    return options | {f"nv_profile_{key}_shapes": shapes for key, shapes in profile.items()}


def batch_profile(name: str, shape: Iterable[int | str], max_batch: int) -> dict[str, str]:
    """Return the smallest, usual and largest shape of an input whose first dimension is dynamic; {} if it is fixed.

    Args:
        name: of the input.
        shape: as ONNX Runtime returns it: a dynamic dimension is a name.
        max_batch: rows of the largest batch.
    """
    rows, *rest = shape
    if isinstance(rows, int):
        return {}
    sizes = "x".join(map(str, rest))
    return {key: f"{name}:{count}x{sizes}" for key, count in (("min", 1), ("opt", max_batch), ("max", max_batch))}


def _cache_folder(cache: Path, backend: str, model: Path, max_batch: int, config: TensorRtConfig) -> Path:
    """Return the folder of what a provider builds for a model, and delete those of the model that are out of date."""
    depends_on = [machine(), config.optimisation_level, config.workspace_mib]
    key = hashlib.sha256(json.dumps(depends_on).encode()).hexdigest()[:16]
    stem = f"{_sha256(model)[:24]}-{backend}-b{max_batch}"
    folder = cache / f"{stem}-{key}"
    for old in cache.glob(f"{stem}-*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    return folder


@functools.cache
def machine() -> str:
    """Return what engines and outputs depend on here: the driver, the GPU, and the packages."""
    names = re.compile(r"onnxruntime|tensorrt|nvidia-cu", re.IGNORECASE)
    packages = {f"{one.name} {one.version}" for one in metadata.distributions() if one.name and names.match(one.name)}
    return ", ".join([gpu_and_driver(), *sorted(packages)])


def _open_on(path: Path, backend: str, settings: dict[str, str]) -> OnnxRuntimeEngine:
    """Open a session whose computation is all on the GPU."""
    where, provider = str(path), PROVIDERS[backend]
    # TensorRT optimises the graph itself, and must see its Q/DQ pairs as they are (onnxruntime#17312)
    options = session_options(1, optimise=backend == "onnxruntime-cuda")
    can_list = hasattr(ort.InferenceSession, "get_provider_graph_assignment_info")  # of later than 1.23
    options.add_session_config_entry(
        "session.record_ep_graph_assignment_info" if can_list else "session.disable_cpu_ep_fallback", "1"
    )
    wanted = _choose(where, backend, settings, options)
    try:
        session = ort.InferenceSession(where, options, providers=wanted or None, enable_fallback=0)
    except Exception as error:
        raise _not_opened(where, backend, error) from error
    if session.get_providers()[0] != provider:  # ONNX Runtime only logs that it leaves a provider out
        raise not_loaded(where, backend)
    if can_list:
        parts = session.get_provider_graph_assignment_info()
        nodes = [(part.ep_name, node.op_type) for part in parts for node in part.get_nodes()]
        if problem := misplaced(nodes, frozenset({provider, *(name for name, _ in wanted)})):
            raise _lacks(where, backend, problem)
    made_of = f", {machine()}, {_engines_sha256(settings)}"
    if backend == "tensorrt-rtx":
        return OnnxRuntimeEngine(session, where, 1, backend, made_of)
    return BoundEngine(session, where, backend, "cuda", made_of)


def _choose(
    where: str, backend: str, settings: dict[str, str], options: ort.SessionOptions
) -> list[tuple[str, dict[str, str]]]:
    """Return the providers of a session; a plug-in is added to its options instead."""
    provider = PROVIDERS[backend]
    if backend == "tensorrt-rtx":
        if not (devices := plugin_devices()):
            raise GpuError(f"{where}: TensorRT-RTX finds no GPU that it runs on (GeForce RTX 30 or later)")
        options.add_provider_for_devices(devices[:1], settings)
        return []
    if provider not in ort.get_available_providers():
        raise EngineError(f"{where}: ONNX Runtime offers {ort.get_available_providers()}, not {provider}")
    cuda = [(PROVIDERS["onnxruntime-cuda"], _cuda_options())]  # for what TensorRT lacks
    return [(provider, settings), *(cuda if backend == "onnxruntime-tensorrt" else [])]


def _not_opened(where: str, backend: str, error: Exception) -> EngineError:
    """Return the error for a session that ONNX Runtime did not open."""
    if "Please install TensorRT libraries" in str(error):  # which one is missing is only in its log
        return not_loaded(where, backend)
    if "fallback to CPU EP has been explicitly disabled" in str(error):
        return _lacks(where, backend, "some nodes would run on the CPU")
    return explain(where, backend, error)


def _lacks(where: str, backend: str, problem: str) -> EngineError:
    return EngineError(
        f"{where}: {backend} cannot run the whole model: {problem}; choose another engine or form of the model"
    )


def misplaced(assigned: Iterable[tuple[str, str]], providers: frozenset[str]) -> str | None:
    """Return what a session leaves to the CPU that belongs on the GPU, in words; None if nothing.

    Args:
        assigned: the provider and the operator of each node.
        providers: those of the GPU.
    """
    nodes = list(assigned)
    elsewhere = Counter(operator for provider, operator in nodes if provider not in providers)
    count = elsewhere.total()
    wrong = Counter({name: n for name, n in elsewhere.items() if name not in _SHAPE_OPS})
    if nodes and not wrong and count <= _MOST_SHAPE_OPS * len(nodes):
        return None
    kinds = ", ".join(f"{n} {name}" for name, n in (wrong or elsewhere).most_common(5)) or "the model is empty"
    return f"{count} of its {len(nodes)} nodes would run on the CPU: {kinds}"


def _engines_sha256(settings: dict[str, str]) -> str:
    """Return the hash of the engines that a session has built or read: one that is built again may differ."""
    digest = hashlib.sha256()
    if folder := settings.get("trt_engine_cache_path"):
        for path in sorted(Path(folder).glob("*.engine")):
            digest.update(_sha256(path).encode())
    return digest.hexdigest()[:16]


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise EngineError(f"{path}: cannot read: {error.strerror}") from error
