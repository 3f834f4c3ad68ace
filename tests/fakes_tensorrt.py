"""Stand-ins for `tensorrt` and `cuda.bindings.runtime`, with no public name that the real ones do not share.

The names that TensorRT 10.3 and 11.4 both have are in golden/tensorrt_surface.json; a name that either lacks is not
here, so code that uses it fails. Models really run, in ONNX Runtime; what is asynchronous happens when waited for.
"""

from __future__ import annotations

import ctypes
import enum
import types
from dataclasses import dataclass, field

import numpy as np

from edge.inference.onnxruntime_library import ort

_KINDS = {"tensor(uint8)": ("UINT8", np.uint8), "tensor(float)": ("FLOAT", np.float32), "tensor(double)": ("FP8", None)}


CudaStatus = enum.IntEnum(
    "cudaError_t",
    {
        "cudaSuccess": 0,
        "cudaErrorInvalidValue": 1,
        "cudaErrorMemoryAllocation": 2,
        "cudaErrorNoDevice": 100,
        "cudaErrorLaunchFailure": 719,
    },
)


class FakeCuda:
    """One device."""

    def __init__(self) -> None:
        self.capability: tuple[int, int] | None = (8, 7)  # None: there is no device
        self.free_bytes = 1 << 20
        self.memory: dict[int, np.ndarray] = {}
        self.queues: dict[int, list] = {}

    def _malloc(self, size):
        if size > self.free_bytes:
            return CudaStatus.cudaErrorMemoryAllocation, None
        block = np.zeros(size, np.uint8)
        self.free_bytes -= size
        self.memory[block.ctypes.data] = block
        return CudaStatus.cudaSuccess, block.ctypes.data

    def _free(self, pointer):
        self.free_bytes += self.memory.pop(pointer).size
        return (CudaStatus.cudaSuccess,)

    def _copy(self, target, source, size, kind, stream):
        device, host = (target, source) if kind == 1 else (source, target)
        if device not in self.memory or size > self.memory[device].size:
            return (CudaStatus.cudaErrorInvalidValue,)
        there, here = self.memory[device][:size], at_address(host, size)
        to, of = (there, here) if kind == 1 else (here, there)
        self.queues[stream].append(lambda: np.copyto(to, of))
        return (CudaStatus.cudaSuccess,)

    def _new_stream(self):
        self.queues[len(self.queues) + 1] = []
        return CudaStatus.cudaSuccess, len(self.queues)

    def _wait(self, stream):
        work, self.queues[stream] = self.queues[stream], []
        try:
            for item in work:
                item()
        except ZeroDivisionError:  # what a test puts where a kernel should crash
            return (CudaStatus.cudaErrorLaunchFailure,)
        return (CudaStatus.cudaSuccess,)

    def _attribute(self, name, device):
        assert device == 0
        return CudaStatus.cudaSuccess, self.capability[name - 75]

    def module(self) -> types.ModuleType:
        """The module to import."""
        module = types.ModuleType("cuda.bindings.runtime")
        module.cudaError_t = CudaStatus
        directions = {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2}
        module.cudaMemcpyKind = enum.IntEnum("cudaMemcpyKind", directions)
        module.cudaDeviceAttr = enum.IntEnum(
            "cudaDeviceAttr",
            {"cudaDevAttrComputeCapabilityMajor": 75, "cudaDevAttrComputeCapabilityMinor": 76},
        )
        module.cudaGetErrorString = lambda status: (CudaStatus.cudaSuccess, f"text of {int(status)}".encode())
        module.cudaGetDevice = lambda: (
            (CudaStatus.cudaSuccess, 0) if self.capability else (CudaStatus.cudaErrorNoDevice, None)
        )
        module.cudaDeviceGetAttribute = self._attribute
        module.cudaMalloc, module.cudaFree, module.cudaMemcpyAsync = self._malloc, self._free, self._copy
        module.cudaStreamCreate, module.cudaStreamSynchronize = self._new_stream, self._wait
        module.cudaStreamDestroy = lambda stream: (CudaStatus.cudaSuccess,) if not self.queues.pop(stream) else None
        return module


def at_address(pointer: int, size: int) -> np.ndarray:
    """The bytes at an address of this process."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))


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


class ParserError:
    def desc(self):
        return "node 3: no such operator"


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
    def __init__(self) -> None:
        self._profiles: list[IOptimizationProfile] = []

    def add_optimization_profile(self, profile):
        if any(low[0] > high[0] for low, _, high in profile._shapes.values()):
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1


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

    def execute_async_v3(self, stream_handle):
        if self._engine._trt.refuses_to_run:
            return False
        shapes = dict(self._shapes)
        self._cuda.queues[stream_handle].append(lambda: self._execute(shapes))
        return True

    def _execute(self, shapes):
        self._engine._trt.kernel()
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

    def create_execution_context(self):
        return IExecutionContext(self, self._trt.cuda)


class Builder:
    _fake: FakeTensorRt

    def __init__(self, logger) -> None:
        if self._fake.cuda.capability is None:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags=0):
        assert flags == 1 << self._fake.strongly_typed_bit, "expected a strongly typed network"
        return INetworkDefinition()

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        self._fake.builds += 1
        if self._fake.refuses_to_build:
            self._logger.log(ILogger.Severity.ERROR, "no implementation for node 7\nmore of it")
            return None
        shapes = [shape for profile in config._profiles for shape in profile._shapes.values()]
        largest = shapes[0][2][0] if shapes else 0
        return IHostMemory(b"|".join([b"plan", self._fake.version.encode(), b"%d" % largest, network._onnx]))


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
        self._network._onnx = model
        return True

    def get_error(self, index):
        return self._errors[index]


class Runtime:
    _fake: FakeTensorRt

    def __init__(self, logger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine):
        parts = serialized_engine.split(b"|", 3)
        if len(parts) < 4 or parts[:2] != [b"plan", self._fake.version.encode()]:
            self._logger.log(ILogger.Severity.ERROR, "magic tag does not match")
            return None
        return ICudaEngine(self._fake, parts[3], int(parts[2]))


@dataclass
class FakeTensorRt:
    """One installation of TensorRT on one device."""

    version: str = "10.3.0"
    cuda: FakeCuda = field(default_factory=FakeCuda)
    builds: int = 0
    refuses_to_build: bool = False
    refuses_to_run: bool = False
    kernel: object = lambda: None  # called when a network runs

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
        for kind in (Builder, Runtime):
            setattr(module, kind.__name__, type(kind.__name__, (kind,), {"_fake": self}))
        for kind in (OnnxParser, ILogger, TensorIOMode):
            setattr(module, kind.__name__, kind)
        return module
