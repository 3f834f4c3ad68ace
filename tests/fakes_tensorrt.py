"""Stand-ins for `tensorrt` and `cuda.bindings.runtime`, with no public name that the real ones lack.

`surface()` lists the names, to compare with real bindings; code that uses another name fails here. Models really run,
in ONNX Runtime; what is asynchronous happens when waited for, and a graph replays what was recorded.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import importlib.machinery
import itertools
import sys
import types
import weakref
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import edge.inference
from edge.inference.onnxruntime_library import ort

_KINDS = {"tensor(uint8)": ("UINT8", np.uint8), "tensor(float)": ("FLOAT", np.float32), "tensor(double)": ("FP8", None)}


CudaStatus = enum.IntEnum(
    "cudaError_t",
    {
        "cudaSuccess": 0,
        "cudaErrorInvalidValue": 1,
        "cudaErrorMemoryAllocation": 2,
        "cudaErrorNoDevice": 100,
        "cudaErrorIllegalAddress": 700,
        "cudaErrorLaunchOutOfResources": 701,
        "cudaErrorLaunchFailure": 719,
        "cudaErrorStreamCaptureUnsupported": 900,
    },
)
OK = CudaStatus.cudaSuccess


class KernelCrashError(Exception):
    """What a kernel raises that reads memory it must not: the GPU is lost for the process."""


@dataclass(frozen=True)
class _Properties:
    name: bytes


class FakeCuda:
    """One GPU with its driver."""

    def __init__(self) -> None:
        self.capability: tuple[int, int] | None = (8, 7)  # None: there is no GPU
        self.name, self.multiprocessors = b"Orin", 16
        self.driver, self.runtime = 12060, 12060
        self.free_bytes = 1 << 20
        self.lost: CudaStatus | None = None  # once set, every call fails with it
        self.cannot_record = False
        self.memory: dict[int, np.ndarray] = {}  # on the GPU
        self.pinned: dict[int, np.ndarray] = {}
        self.queues: dict[int, list] = {}
        self.graphs: dict[int, list] = {}  # recorded, by handle
        self.calls: list[str] = []
        self._recording: list | None = None
        self._handles = itertools.count(1)

    def put(self, stream, work):
        """Queue work, or record it."""
        (self.queues[stream] if self._recording is None else self._recording).append(work)

    def _malloc(self, size):
        if size > self.free_bytes:
            return CudaStatus.cudaErrorMemoryAllocation, None
        self.free_bytes -= size
        return OK, self._new(self.memory, size)

    def _new(self, into, size):
        block = np.zeros(size, np.uint8)
        into[block.ctypes.data] = block
        return block.ctypes.data

    def _free(self, pointer):
        assert self._recording is None, "freed while a graph is recorded"
        self.free_bytes += self.memory.pop(pointer).size
        return (OK,)

    def _free_pinned(self, pointer):
        del self.pinned[pointer]
        return (OK,)

    def _copy(self, target, source, size, kind, stream):
        device, host = (target, source) if kind == 1 else (source, target)
        assert host in self.pinned, "not page-locked"
        if device not in self.memory or size > self.memory[device].size:
            return (CudaStatus.cudaErrorInvalidValue,)

        def copy():
            if device not in self.memory or host not in self.pinned:
                raise KernelCrashError
            there, here = self.memory[device][:size], self.pinned[host][:size]
            np.copyto(*((there, here) if kind == 1 else (here, there)))

        self.put(stream, copy)
        return (OK,)

    def _new_stream(self, flags):
        assert flags == 1, "a stream that waits for the default stream"
        stream = next(self._handles)
        self.queues[stream] = []
        return OK, stream

    def _wait(self, stream):
        if self._recording is not None:
            return (CudaStatus.cudaErrorStreamCaptureUnsupported,)
        work, self.queues[stream] = self.queues[stream], []
        try:
            for item in work:
                item()
        except KernelCrashError:
            self.lost = CudaStatus.cudaErrorIllegalAddress
            return (self.lost,)
        except ZeroDivisionError:  # what a test puts where a kernel should not start
            return (CudaStatus.cudaErrorLaunchOutOfResources,)
        return (OK,)

    def _begin(self, stream, mode):
        assert mode == 1, "other threads could not load engines meanwhile"
        assert not self.queues[stream]
        self._recording = []
        return (OK,)

    def _end(self, stream):
        recorded, self._recording = self._recording, None
        if self.cannot_record:
            return CudaStatus.cudaErrorStreamCaptureUnsupported, 0
        handle = next(self._handles)
        self.graphs[handle] = recorded
        return OK, handle

    def _instantiate(self, graph, flags):
        handle = next(self._handles)
        self.graphs[handle] = list(self.graphs[graph])
        return OK, handle

    def _launch(self, graph, stream):
        self.queues[stream].extend(self.graphs[graph])
        return (OK,)

    def _destroy(self, graph):
        del self.graphs[graph]
        return (OK,)

    def _device(self):
        return (OK, 0) if self.capability else (CudaStatus.cudaErrorNoDevice, None)

    def _attribute(self, name, device):
        assert device == 0
        return OK, (*self.capability, self.multiprocessors)[("Major", "Minor", "Count").index(name.name[-5:])]

    def _call(self, name, function):
        def call(*arguments):
            self.calls.append(name)
            if self.lost is not None:
                return self.lost, None
            return function(*arguments)

        return call

    def module(self) -> types.ModuleType:
        """The module to import."""
        module = types.ModuleType("cuda.bindings.runtime")
        module.cudaError_t, module.cudaStreamNonBlocking = CudaStatus, 1
        directions = {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2}
        module.cudaMemcpyKind = enum.IntEnum("cudaMemcpyKind", directions)
        modes = {"cudaStreamCaptureModeThreadLocal": 1}
        module.cudaStreamCaptureMode = enum.IntEnum("cudaStreamCaptureMode", modes)
        attributes = ("ComputeCapabilityMajor", "ComputeCapabilityMinor", "MultiProcessorCount")
        module.cudaDeviceAttr = enum.IntEnum("cudaDeviceAttr", [f"cudaDevAttr{name}" for name in attributes])
        module.cudaGetErrorString = lambda status: (OK, f"text of {int(status)}".encode())
        functions = {
            "cudaDriverGetVersion": lambda: (OK, self.driver),
            "cudaRuntimeGetVersion": lambda: (OK, self.runtime),
            "cudaGetLastError": lambda: (OK,),
            "cudaGetDevice": self._device,
            "cudaGetDeviceProperties": lambda device: (OK, _Properties(self.name)),
            "cudaDeviceGetAttribute": self._attribute,
            "cudaMalloc": self._malloc,
            "cudaFree": self._free,
            "cudaMallocHost": lambda size: (OK, self._new(self.pinned, size)),
            "cudaFreeHost": self._free_pinned,
            "cudaMemcpyAsync": self._copy,
            "cudaStreamCreateWithFlags": self._new_stream,
            "cudaStreamSynchronize": self._wait,
            "cudaStreamBeginCapture": self._begin,
            "cudaStreamEndCapture": self._end,
            "cudaGraphInstantiate": self._instantiate,
            "cudaGraphLaunch": self._launch,
            "cudaGraphDestroy": self._destroy,
            "cudaGraphExecDestroy": self._destroy,
        }
        for name, function in functions.items():
            setattr(module, name, self._call(name, function))
        return module


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    FP8 = 6
    BF16 = 7
    INT64 = 8
    INT4 = 9


class DeviceType(enum.Enum):
    GPU = 0
    DLA = 1


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class BuilderFlag(enum.Enum):
    GPU_FALLBACK = 3


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC = 0
    USER_MANAGED = 2


class ParserError:
    def desc(self):
        return "Assertion failed: (known(node)): No such operator.\nmore of it"

    def node_name(self):
        return "scores"

    def node_operator(self):
        return "Shelf"


class IProgressMonitor:
    """TensorRT calls these methods of a class that derives from it."""

    def phase_start(self, phase_name, parent_phase, num_steps): ...

    def phase_finish(self, phase_name): ...

    def step_complete(self, phase_name, step): ...


class ITimingCache:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self):
        return IHostMemory(self._data)


@dataclass
class ITensor:
    name: str
    shape: tuple[int, ...]


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, tuple] = {}

    def set_shape(self, input, min, opt, max):  # noqa: A002 - TensorRT's names
        self._shapes[input] = (tuple(min), tuple(opt), tuple(max))


class IBuilderConfig:
    builder_optimization_level = 3
    default_device_type = DeviceType.GPU
    DLA_core = -1
    progress_monitor = None

    def __init__(self, timings_found: list[bytes]) -> None:
        self._timings_found = timings_found
        self._profiles: list[IOptimizationProfile] = []
        self._limits: dict[MemoryPoolType, int] = {}
        self._flags: set[BuilderFlag] = set()
        self._timings: ITimingCache | None = None

    def add_optimization_profile(self, profile):
        if any(low[0] > high[0] for low, _, high in profile._shapes.values()):
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_memory_pool_limit(self, pool, pool_size):
        self._limits[pool] = pool_size

    def set_flag(self, flag):
        self._flags.add(flag)

    def create_timing_cache(self, serialized_timing_cache):
        if serialized_timing_cache[:6] not in (b"", b"timing"):
            raise RuntimeError("not a timing cache")
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        self._timings = cache
        self._timings_found.append(cache._data)
        return cache._data != b"timings of another GPU"


class IHostMemory:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bytes__(self):
        return self._data


def dims(shape) -> tuple[int, ...]:
    """A shape as TensorRT writes it: -1 where it is open."""
    return tuple(side if isinstance(side, int) else -1 for side in shape)


class INetworkDefinition:
    def __init__(self) -> None:
        self._onnx = b""

    @property
    def num_inputs(self):
        return len(self._inputs())

    def get_input(self, index):
        return self._inputs()[index]

    def _inputs(self):
        return [ITensor(i.name, dims(i.shape)) for i in ort.InferenceSession(self._onnx).get_inputs()]


class IExecutionContext:
    def __init__(self, engine, cuda: FakeCuda) -> None:
        self._engine, self._cuda = engine, cuda
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)

    def set_input_shape(self, name, shape):
        low, _, high = self._engine.get_tensor_profile_shape(name, 0)
        fits = len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))
        if fits:
            self._shapes[name] = tuple(shape)
        return fits

    def get_tensor_shape(self, name):
        if name in self._shapes:
            return self._shapes[name]
        zeros = {n: np.zeros(shape, np.uint8) for n, shape in self._shapes.items()}
        outputs = dict(zip(self._engine._outputs, self._engine._session.run(None, zeros), strict=True))
        return outputs[name].shape

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return memory in self._cuda.memory

    def set_device_memory(self, memory, size):
        assert size >= self._engine.device_memory_size_v2
        self._scratch = (memory, size)

    def execute_async_v3(self, stream_handle):
        if self._engine._trt.refuses_to_run:
            return False
        self._engine._trt.during_enqueue()
        shapes, scratch = dict(self._shapes), self._scratch[0]
        self._cuda.put(stream_handle, lambda: self._execute(shapes, scratch))
        return True

    def _execute(self, shapes, scratch):
        self._engine._trt.kernel()
        if scratch not in self._cuda.memory:
            raise KernelCrashError
        feeds = {
            name: self._cuda.memory[self._addresses[name]][: int(np.prod(shape))].reshape(shape).copy()
            for name, shape in shapes.items()
        }
        for name, output in zip(self._engine._outputs, self._engine._session.run(None, feeds), strict=True):
            data = output.tobytes()
            self._cuda.memory[self._addresses[name]][: len(data)] = np.frombuffer(data, np.uint8)


class ICudaEngine:
    def __init__(self, trt, onnx: bytes, max_batch: int) -> None:
        self._trt, self._max_batch = trt, max_batch
        self._session = ort.InferenceSession(onnx)
        self._tensors = {t.name: t for t in [*self._session.get_outputs(), *self._session.get_inputs()]}
        self._outputs = [t.name for t in self._session.get_outputs()]

    @property
    def num_io_tensors(self):
        return len(self._tensors)

    def get_tensor_name(self, index):
        return list(self._tensors)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.OUTPUT if name in self._outputs else TensorIOMode.INPUT

    def get_tensor_dtype(self, name):
        return DataType[_KINDS[self._tensors[name].type][0]]

    def get_tensor_shape(self, name):
        return dims(self._tensors[name].shape)

    def get_tensor_profile_shape(self, name, profile_index):
        assert profile_index == 0
        shape = self.get_tensor_shape(name)
        return [tuple(n if side == -1 else side for side in shape) for n in (1, 1, self._max_batch)]

    @property
    def device_memory_size_v2(self):
        return self._trt.scratch_bytes * self._max_batch

    def create_execution_context(self, strategy):
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return IExecutionContext(self, self._trt.cuda)


class Builder:
    _fake: FakeTensorRt

    def __init__(self, logger) -> None:
        if self._fake.cuda.capability is None and not self._fake.builds_without_gpu:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    @property
    def num_DLA_cores(self):
        return self._fake.dla_cores

    def create_network(self, flags=0):
        assert flags == 1 << self._fake.strongly_typed_bit, "expected a strongly typed network"
        return INetworkDefinition()

    def create_builder_config(self):
        self._fake.settings = IBuilderConfig(self._fake.timings_found)
        return self._fake.settings

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        assert network._parser() is not None, "the parser owns the weights"
        self._fake.builds += 1
        if (monitor := config.progress_monitor) is not None:
            monitor.phase_start("Building", None, 2)
            monitor.step_complete("Building", 0)
            monitor.phase_start("Tactics", "Building", 4)
            for step in range(4):
                assert monitor.step_complete("Tactics", step) is True
            monitor.phase_finish("Tactics")
            monitor.step_complete("Building", 1)
            monitor.phase_finish("Building")
        if self._fake.refuses_to_build:
            self._logger.log(ILogger.Severity.ERROR, self._fake.refuses_to_build)
            return None
        if config._timings is not None:
            config._timings._data = b"timings of %d" % self._fake.builds
        shapes = [shape for profile in config._profiles for shape in profile._shapes.values()]
        largest = shapes[0][2][0] if shapes else 0
        parts = [b"plan", self._fake.version.encode(), b"%d" % largest, network._onnx]
        return IHostMemory(b"|".join([*parts, bytes(self._fake.plan_padding)]))


class OnnxParser:
    def __init__(self, network, logger) -> None:
        self._network, self._errors = network, []

    @property
    def num_errors(self):
        return len(self._errors)

    def parse(self, model, path=None):
        try:
            ort.InferenceSession(model)
        except Exception:
            self._errors.append(ParserError())
            return False
        self._network._onnx, self._network._parser = model, weakref.ref(self)
        return True

    def get_error(self, index):
        return self._errors[index]


class Runtime:
    _fake: FakeTensorRt
    DLA_core = -1

    def __init__(self, logger) -> None:
        self._logger = logger
        self._fake.runtime = self

    def deserialize_cuda_engine(self, serialized_engine):
        parts = serialized_engine[: len(serialized_engine) - self._fake.plan_padding - 1].split(b"|", 3)
        why = self._fake.refuses_to_load
        if why or len(parts) < 4 or parts[:2] != [b"plan", self._fake.version.encode()]:
            self._logger.log(ILogger.Severity.ERROR, why or "magic tag does not match")
            return None
        return ICudaEngine(self._fake, parts[3], int(parts[2]))


_MADE_HERE = (Builder, Runtime)
_IN_MODULE = (
    OnnxParser,
    ILogger,
    IProgressMonitor,
    TensorIOMode,
    DeviceType,
    MemoryPoolType,
    BuilderFlag,
    ExecutionContextAllocationStrategy,
)
_REACHED = (
    INetworkDefinition,
    ITensor,
    IOptimizationProfile,
    IBuilderConfig,
    ITimingCache,
    ParserError,
    ICudaEngine,
    IExecutionContext,
    DataType,
)


def surface() -> dict[str, set[str]]:
    """The names that this stand-in has, by class; those of the module under `(module)`. Real bindings have them all."""
    classes = (*_MADE_HERE, *_IN_MODULE, *_REACHED)
    names = {kind.__name__: _names_of(kind) for kind in classes}
    made_here = {kind.__name__ for kind in (*_MADE_HERE, *_IN_MODULE)} | {"NetworkDefinitionCreationFlag"}
    return names | {"(module)": made_here, "NetworkDefinitionCreationFlag": {"STRONGLY_TYPED"}}


def _names_of(kind: type) -> set[str]:
    if issubclass(kind, enum.Enum):
        return set(kind.__members__)
    return {name for name in dir(kind) if not name.startswith("_")} | set(getattr(kind, "__dataclass_fields__", ()))


@dataclass
class FakeTensorRt:
    """One installation of TensorRT on one device."""

    version: str = "10.3.0"
    cuda: FakeCuda = field(default_factory=FakeCuda)
    builds: int = 0
    builds_without_gpu: bool = False
    refuses_to_build: str = ""  # what TensorRT says then
    refuses_to_load: str = ""
    refuses_to_run: bool = False
    kernel: object = lambda: None  # called when a network runs
    during_enqueue: object = lambda: None
    scratch_bytes: int = 100  # of each row
    dla_cores: int = 0
    plan_padding: int = 0  # bytes at the end of each plan
    timings_found: list[bytes] = field(default_factory=list)  # what each build was given
    settings: IBuilderConfig | None = None  # of the latest build
    runtime: Runtime | None = None  # the latest

    @property
    def strongly_typed_bit(self) -> int:
        """Where the one flag that a network needs is."""
        return 0 if self.version.startswith("11") else 1

    def module(self) -> types.ModuleType:
        """The module to import."""
        module = types.ModuleType("tensorrt")
        module.__version__ = self.version
        flags = {"STRONGLY_TYPED": self.strongly_typed_bit}
        module.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", flags)
        for kind in _MADE_HERE:
            setattr(module, kind.__name__, type(kind.__name__, (kind,), {"_fake": self}))
        for kind in _IN_MODULE:
            if not (kind is DeviceType and self.version.startswith("11.0")):
                setattr(module, kind.__name__, kind)
        return module


_HOLD_FAKES = ("tensorrt_engine", "tensorrt_plans", "tensorrt_build", "tensorrt_library", "cuda_memory")


@contextlib.contextmanager
def installed(version: str = "10.3.0"):
    """Put a stand-in of a version in the place of TensorRT and CUDA; yield it."""
    fake = FakeTensorRt(version)
    bindings = types.ModuleType("cuda.bindings")
    bindings.runtime = fake.cuda.module()
    modules = {
        "tensorrt": fake.module(),
        "cuda": types.ModuleType("cuda"),
        "cuda.bindings": bindings,
        "cuda.bindings.runtime": bindings.runtime,
    }
    modules["tensorrt"].__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)
    before = {name: sys.modules.get(name) for name in modules}
    _drop_door()
    sys.modules.update(modules)
    try:
        yield fake
    finally:
        _drop_door()
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def _drop_door() -> None:
    for name in _HOLD_FAKES:
        sys.modules.pop(f"edge.inference.{name}", None)
        if hasattr(edge.inference, name):
            delattr(edge.inference, name)


def write_packages(folder: Path, lines: str = "", version: str = "10.3.0") -> str:
    """Write packages that stand in for TensorRT and CUDA in a child process.

    Args:
        folder: to put in front of its search path.
        lines: Python to run when it imports TensorRT; `fake` is the FakeTensorRt.
        version: of TensorRT.

    Returns:
        The folder.
    """
    (folder / "tensorrt").mkdir(parents=True, exist_ok=True)
    (folder / "cuda/bindings").mkdir(parents=True, exist_ok=True)
    head = f"from tests.fakes_tensorrt import the_fake\nfake = the_fake({version!r})\n"
    (folder / "tensorrt/__init__.py").write_text(f"{head}{lines}\nglobals().update(vars(fake.module()))\n")
    (folder / "cuda/__init__.py").write_text("")
    runtime = "from cuda.bindings import runtime_of_fake as runtime\n"
    (folder / "cuda/bindings/__init__.py").write_text(runtime)
    (folder / "cuda/bindings/runtime_of_fake.py").write_text(f"{head}globals().update(vars(fake.cuda.module()))\n")
    return str(folder)


@functools.cache
def the_fake(version: str) -> FakeTensorRt:
    """The one installation of a child process."""
    return FakeTensorRt(version)
