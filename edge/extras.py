"""The optional packages: which extra brings them, the command that installs it, and packages that spoil each other."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path

from edge.errors import ConfigError

_EXTRA_PACKAGES = {"demo": ("amqtt",), "kiosk": ("starlette", "uvicorn", "python_multipart")}
_EXTRA_PACKAGES["console"] = (*_EXTRA_PACKAGES["kiosk"], "jinja2", "pwdlib")
_EXTRAS_OF_PACKAGE = {  # of the server: extras that bring an importable package
    **dict.fromkeys(("torch", "torchvision", "timm", "safetensors", "matplotlib", "scipy"), ("trainer",)),
    **dict.fromkeys(("onnx", "tqdm", "PIL"), ("trainer", "quantize")),
    "pymatting": ("matting",),
    **dict.fromkeys(("fsspec", "ray"), ("scale",)),
    "cryptography": ("sync",),
}
RTX_MODULE = "onnxruntime_ep_nv_tensorrt_rtx"
_EXTRA_OF_ENGINE = {
    "onnxruntime-cuda": "gpu",
    "onnxruntime-tensorrt": "gpu,tensorrt",
}
_MODULE_OF_ENGINE = {
    "onnxruntime-cuda": "onnxruntime",
    "onnxruntime-tensorrt": "onnxruntime",
    "tensorrt-rtx": RTX_MODULE,
}
# Files beside ONNX Runtime's own. The package for the CPU lacks them.
FILE_OF_ENGINE = {
    "onnxruntime-cuda": "libonnxruntime_providers_cuda.so",
    "onnxruntime-tensorrt": "libonnxruntime_providers_tensorrt.so",
}
_FROM_JETPACK = {
    "tensorrt": "JetPack brings it: sudo apt install python3-libnvinfer, in an environment with --system-site-packages",
    "onnxruntime-cuda": "PyPI has no package for Jetson; take it from https://pypi.jetson-ai-lab.io, or use tensorrt",
    "onnxruntime-tensorrt": "PyPI has no package for Jetson; use the engine tensorrt",
    "tensorrt-rtx": "there is none for Jetson; use the engine tensorrt",
}


def is_jetson(root: Path = Path("/")) -> bool:
    """Return whether this machine is a Jetson: JetPack brings its TensorRT, and PyPI has none for it."""
    if (root / "etc/nv_tegra_release").exists():
        return True
    try:
        return "nvidia" in (root / "proc/device-tree/model").read_text(encoding="utf-8", errors="replace").lower()
    except OSError:
        return False


def install_command(extra_or_engine: str) -> str:
    """Return the command that installs what an extra or an engine needs, for the pip of this environment."""
    pip = _pip(sys.prefix)
    if extra_or_engine == "onnxruntime":
        return f"{pip} install onnxruntime"
    extra = _EXTRA_OF_ENGINE.get(extra_or_engine, extra_or_engine)
    command = f'{pip} install "finesight[{extra}]"'
    return f"{command} && {_repair('onnxruntime-gpu')}" if extra.startswith("gpu") else command


def how_to_install(engine: str) -> str:
    """Return how to get an engine on this machine: a command, or where it comes from on a Jetson."""
    if engine in _FROM_JETPACK and is_jetson():
        return _FROM_JETPACK[engine]
    return f"run: {install_command(engine)}"


def _repair(package: str) -> str:
    """Return the command after which the files that onnxruntime and onnxruntime-gpu share are those of one of them."""
    return f"{_pip(sys.prefix)} install --force-reinstall --no-deps {package}"


def engine_problem(engine: str) -> str | None:
    """Return why the packages of an engine are not here as it needs them, and what to do; None if they are.

    No library is loaded, so only a run proves that the engine works.

    Args:
        engine: a name of `engine.backend`, but not `auto`.
    """
    module = _MODULE_OF_ENGINE.get(engine, engine)
    spec = importlib.util.find_spec(module)
    # without an origin: RTX was uninstalled, and the links that it made are left
    if spec is None or (module == RTX_MODULE and spec.origin is None):
        return f"package {module!r} is not installed; {how_to_install(engine)}"
    if module != "onnxruntime":
        return None
    folder = Path(next(iter(spec.submodule_search_locations or ()), ""), "capi")
    return _spoiled(folder) if spec.origin is None else _without_gpu(folder, engine)


def _spoiled(capi: Path) -> str:
    """Return the problem of an `onnxruntime` without modules."""
    package = "onnxruntime-gpu" if (capi / FILE_OF_ENGINE["onnxruntime-cuda"]).exists() else "onnxruntime"
    return (
        "package 'onnxruntime' is incomplete: onnxruntime and onnxruntime-gpu write the same files, and one of them "
        f"was uninstalled; run: {_repair(package)}"
    )


def _without_gpu(capi: Path, engine: str) -> str | None:
    """Return why ONNX Runtime lacks what an engine needs of it; None if it does not."""
    file = FILE_OF_ENGINE.get(engine)
    if file is None:
        return None
    if not (capi / file).exists():
        return f"package 'onnxruntime-gpu' is not installed; {how_to_install(engine)}"
    if _written_last(capi) == "onnxruntime":
        return (
            "packages onnxruntime and onnxruntime-gpu are both installed and write the same files; onnxruntime came "
            f"last, so the GPU is left out; run: {_repair('onnxruntime-gpu')}"
        )
    return None


def _written_last(capi: Path) -> str | None:
    """Return which package wrote ONNX Runtime's files last; None if it does not say so."""
    try:
        text = (capi / "build_and_package_info.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"package_name = '([\w-]+)'", text)
    return found[1] if found else None


def _pip(prefix: str) -> str:
    """Return what to type for the pip of an environment: its path, unless the shell finds it first on the PATH."""
    own = Path(prefix, "bin", "pip")
    if shutil.which("pip") == str(own):
        return "pip"
    return str(own) if os.access(prefix, os.W_OK) else f"sudo {own}"


def require_extra(extra: str) -> None:
    """Check that the packages of an extra are installed.

    Raises:
        ConfigError: one is missing.
    """
    for package in _EXTRA_PACKAGES[extra]:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{extra}: package {package!r} is not installed; run: {install_command(extra)}")


def install_hint(error: ModuleNotFoundError, preferred_extra: str) -> str | None:
    """Say how to install the package that an import did not find; None if no extra of the server brings it."""
    package = (error.name or "").partition(".")[0]
    extras = _EXTRAS_OF_PACKAGE.get(package)
    if extras is None:
        return None
    extra = preferred_extra if preferred_extra in extras else extras[0]
    return f"package {package!r} is not installed; run: {install_command(extra)}"
