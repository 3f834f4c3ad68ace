"""A fake of what ONNX Runtime offers with a GPU, with names that the real one has; a session runs on the real CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from edge.inference.onnxruntime_library import ort as real

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT, RTX = "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"
OLD_DRIVER = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, "
    "onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const char*, "
    "const char*, int) [with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError] CUDA failure 35: CUDA driver "
    "version is insufficient for CUDA runtime version ; GPU=-1 ; hostname=shop ; "
    "file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider.cc ; line=355 ; "
    "expr=cudaSetDevice(info_.device_id); "
)
NO_DEVICE = OLD_DRIVER.replace(
    "35: CUDA driver version is insufficient for CUDA runtime version", "100: no CUDA-capable device is detected"
)
NO_TENSORRT = (
    "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void "
    "onnxruntime::python::RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) "
    "Please install TensorRT libraries as mentioned in the GPU requirements page, make sure they're in the PATH or "
    "LD_LIBRARY_PATH, and that your GPU is supported."
)
NO_MEMORY = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. Name:'Conv_1' "
    "Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* "
    "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to allocate memory for "
    "requested buffer of size 8388608000"
)
LOST = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. Name:'Conv_1' Status "
    "Message: /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:121 bool onnxruntime::CudaCall(ERRTYPE, "
    "const char*) [with ERRTYPE = cudaError] CUDA failure 719: unspecified launch failure ; GPU=0 ; hostname=shop ; "
    "file=/onnxruntime_src/a.cc ; line=1 ; expr=cudaGetLastError(); "
)
NO_LIBRARY = (
    "[ONNXRuntimeError] : 1 : FAIL : Failed to load library /opt/x/libonnxruntime_providers_nv_tensorrt_rtx.so with "
    "error: libcuda.so.1: cannot open shared object file: No such file or directory"
)


class _Options(real.SessionOptions):
    """Session options that take the device of a fake plug-in."""

    plugin: tuple[str, dict[str, str]] | None = None

    def add_provider_for_devices(self, devices: list[Any], settings: dict[str, str]) -> None:
        self.plugin = (devices[0].ep_name, settings)


class _Binding:
    """A binding whose device "cuda" is the CPU."""

    def __init__(self, binding: Any) -> None:
        self.real = binding

    def bind_output(self, name: str, device: str, number: int) -> None:
        assert (device, number) == ("cuda", 0)
        self.real.bind_output(name, "cpu", 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class _OrtValue:
    @staticmethod
    def ortvalue_from_numpy(array: Any, device: str, number: int) -> Any:
        assert (device, number) == ("cuda", 0)
        return real.OrtValue.ortvalue_from_numpy(array.copy(), "cpu", 0)


@dataclass
class FakeOrt:
    """Stands in for the module `onnxruntime`; what it does not fake is the real one's."""

    offers: tuple[str, ...] = (TENSORRT, CUDA, CPU)
    loads: bool = True  # False: as a provider whose library is missing, which ONNX Runtime only logs
    devices: tuple[str, ...] = ()  # providers of plug-ins that found a GPU
    raises: list[str] = field(default_factory=list)  # the messages of the next sessions that are opened on a GPU
    fails: list[str] = field(default_factory=list)  # the messages of the next runs on a GPU
    on_cpu: tuple[str, ...] = ()  # operators that the provider lacks
    registers: str = ""  # the message of registering a plug-in
    opened: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # provider and options of the sessions
    cuda_version: str = "13.0"
    SessionOptions: Any = _Options
    OrtValue: Any = _OrtValue

    def __post_init__(self) -> None:
        """Make the class of its sessions."""
        self.InferenceSession = _session_class(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)

    def get_available_providers(self) -> list[str]:
        return list(self.offers)

    def get_ep_devices(self) -> list[Any]:
        return [SimpleNamespace(ep_name=name) for name in self.devices]

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if self.registers:
            raise RuntimeError(self.registers)

    def preload_dlls(self) -> None:
        print("Failed to load libcublasLt.so.13")  # as the real one does

    def open(self, wanted: tuple[str, dict[str, str]]) -> None:
        self.opened.append(wanted)
        if self.raises:
            raise RuntimeError(self.raises.pop(0))

    def fail_if_planned(self, provider: str) -> None:
        if provider != CPU and self.fails:
            raise RuntimeError(self.fails.pop(0))

    def set_default_logger_severity(self, severity: int) -> None:
        """Leave the log of the real one as it is."""


def _session_class(fake: FakeOrt) -> Any:
    class Session(real.InferenceSession):
        def __init__(self, model: Any, options: Any, providers: Any = None, **more: Any) -> None:
            assert more == {"enable_fallback": 0}
            wanted = providers[0] if providers else options.plugin
            self.fake_provider = CPU if wanted == CPU else wanted[0]
            if self.fake_provider != CPU:
                fake.open(wanted)
            super().__init__(model, options, providers=[CPU], **more)

        def get_providers(self) -> list[str]:
            return [self.fake_provider] if fake.loads else [CPU]

        def io_binding(self) -> Any:
            return _Binding(super().io_binding())

        def run(self, *arguments: Any) -> Any:
            fake.fail_if_planned(self.fake_provider)
            return super().run(*arguments)

        def run_with_iobinding(self, binding: Any) -> None:
            fake.fail_if_planned(self.fake_provider)
            super().run_with_iobinding(binding.real)

        def get_provider_graph_assignment_info(self) -> list[Any]:
            nodes = [node for part in super().get_provider_graph_assignment_info() for node in part.get_nodes()]
            return [_part(CPU if node.op_type in fake.on_cpu else self.fake_provider, node) for node in nodes]

    return Session


def _part(provider: str, node: Any) -> Any:
    return SimpleNamespace(ep_name=provider, get_nodes=lambda: [node])
