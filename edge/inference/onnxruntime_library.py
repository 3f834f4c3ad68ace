"""ONNX Runtime's library: the only import of it, the libraries that it needs for GPUs, and what its messages mean.

From 1.31 on, its Linux packages report to their maker unless that is switched off before the import. Import `ort` from
here, and `onnxruntime.quantization` after it. Child processes inherit the setting.

The messages are those of onnxruntime-gpu 1.31.1 and onnxruntime-ep-nv-tensorrt-rtx-cu13 0.5.0: without a driver, with
one that finds no GPU, and with one that is too old. Those of a GPU in use are from reports of its users.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import os
import re
import threading
from pathlib import Path
from typing import Any

from edge.errors import EngineError, GpuError, one_line
from edge.extras import FILE_OF_ENGINE, RTX_MODULE, how_to_install

# Its own switch, disable_telemetry_events(), comes too late: the import writes a device id into the home folder.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort

__all__ = ["PROVIDERS", "explain", "load_libraries", "not_loaded", "ort", "plugin_devices"]

PROVIDERS = {
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
_FATAL = 4  # severity of ONNX Runtime's log
_register = threading.Lock()
_NO_DEVICE, _OLD_DRIVER, _NO_MEMORY = 100, 35, 2  # cudaError_t
_OF_A_CALL = frozenset({1, 9, 11, 13, 98, 209, 400, 801})  # errors after which later calls may work


def load_libraries(backend: str) -> None:
    """Load the libraries of NVIDIA's packages, so that a provider finds them; register the plug-in.

    Args:
        backend: a key of PROVIDERS.

    Raises:
        GpuError: there is no driver.
        EngineError: the plug-in cannot be loaded.
    """
    ort.set_default_logger_severity(_FATAL)  # what it says there, the errors here say in one line
    if backend == "tensorrt-rtx":
        _register_rtx()
        return
    if hasattr(ort, "preload_dlls"):  # ONNX Runtime 1.21; before it, the linker must find them
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            ort.preload_dlls()
    if backend == "onnxruntime-tensorrt":
        with contextlib.suppress(ImportError, OSError):  # of NVIDIA's package, which loads what it holds
            importlib.import_module("tensorrt_libs")


def _register_rtx() -> None:
    where = "engine tensorrt-rtx"
    with _register:
        if plugin_devices():
            return
        try:
            plugin = importlib.import_module(RTX_MODULE)
            _require_driver(where, Path(plugin.get_library_path()).parent)
            ort.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
        except AttributeError as error:
            raise EngineError(
                f"{where}: needs ONNX Runtime 1.24 or later, found {ort.__version__}; {how_to_install('tensorrt-rtx')}"
            ) from error
        except EngineError:
            raise
        except Exception as error:
            if "already registered" not in str(error):
                raise explain(where, "tensorrt-rtx", error) from error


def _require_driver(where: str, folder: Path) -> None:
    """Check that the driver knows the CUDA that is in a folder: with one that is too old, the plug-in may crash."""
    found = ctypes.c_int()
    ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(found))
    for runtime in folder.glob("libcudart.so.[0-9]*"):
        needed = runtime.name.split(".")[2]
        if found.value < 1000 * int(needed):
            raise _too_old(where, f"{needed}.0", f"{found.value // 1000}.{found.value % 1000 // 10}")


def plugin_devices() -> list[Any]:
    """Return the GPUs that the plug-in found."""
    wanted = PROVIDERS["tensorrt-rtx"]
    return [device for device in getattr(ort, "get_ep_devices", list)() if device.ep_name == wanted]


def not_loaded(where: str, backend: str) -> EngineError:
    """Return the error for a provider that ONNX Runtime has just left out, because its library did not load.

    Only ONNX Runtime loads that library first: it must find its host.

    Args:
        where: the model file.
        backend: a key of PROVIDERS.
    """
    if file := FILE_OF_ENGINE.get(backend):
        try:
            ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / file))  # fails as it did for ONNX Runtime
        except OSError as error:
            return explain(where, backend, error)
    return EngineError(f"{where}: ONNX Runtime does not use {PROVIDERS[backend]} and does not say why")


def explain(where: str, backend: str, error: Exception) -> EngineError:
    """Return the error to raise for what ONNX Runtime or the linker said: what is wrong, and what to do.

    Args:
        where: the model file, or the engine.
        backend: what runs it.
        error: as it was raised.
    """
    text = str(error) or type(error).__name__
    if found := re.search(r"(lib[\w.+-]+\.so[.\d]*): cannot open shared object file", text):
        return _missing(where, backend, found[1])
    if found := re.search(r"CUDA (?:failure|error) (?:cuda\w+ )?(\d+): ([^;\n]+)", text):
        return _cuda_failure(where, int(found[1]), found[2].strip())
    if "Failed to allocate memory for requested buffer" in text or "out of memory" in text.lower():
        return _no_memory(where, "memory" if backend == "onnxruntime" else "GPU memory")
    return EngineError(f"{where}: {backend}: {_last_words(text)}")


def _missing(where: str, backend: str, library: str) -> EngineError:
    if library.startswith(("libcuda.so", "libnvidia-ml.so")):
        return GpuError(f"{where}: there is no NVIDIA driver ({library}); install it, or choose another engine")
    if library.startswith(("libnvinfer", "libnvonnxparser")):
        major = library.rpartition(".")[2]
        return EngineError(
            f"{where}: {library} is missing: ONNX Runtime {ort.__version__} is built for TensorRT {major}, and another "
            f"version does not replace it; {how_to_install(backend)}"
        )
    return EngineError(f"{where}: {library} is missing; {how_to_install(backend)}")


def _cuda_failure(where: str, code: int, text: str) -> EngineError:
    if code == _NO_DEVICE:
        return GpuError(f"{where}: the driver finds no NVIDIA GPU; look at `nvidia-smi`, or choose another engine")
    if code == _OLD_DRIVER:
        return _too_old(where, getattr(ort, "cuda_version", "") or "as this package needs it")
    if code == _NO_MEMORY:
        return _no_memory(where, "GPU memory")
    if code in _OF_A_CALL:
        return EngineError(f"{where}: CUDA error {code}: {text}")
    return GpuError(f"{where}: the GPU is lost: CUDA error {code}: {text}; look at `dmesg`, then restart the device")


def _too_old(where: str, needed: str, found: str = "an older one") -> GpuError:
    """Return the error for a driver that does not know the CUDA version of a package."""
    return GpuError(f"{where}: needs an NVIDIA driver for CUDA {needed}, found {found}; install a newer driver")


def _no_memory(where: str, kind: str) -> EngineError:
    return EngineError(
        f"{where}: out of {kind}; free some (other programs, fewer models or cameras), or choose another engine"
    )


def _last_words(text: str) -> str:
    """Return what an error of ONNX Runtime says, without the places in its source."""
    message = re.sub(r"/\S+\.(?:cc|h|cpp):\d+ .*?\)(?: \[with .*?\])? ", "", text.replace("\n", " "))
    return one_line(message.strip())[:300] or "no reason given"
