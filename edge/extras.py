"""The optional packages: which extra brings them, and the command that installs it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from edge.errors import ConfigError

_EXTRA_PACKAGES = {"demo": ("amqtt",), "kiosk": ("starlette", "uvicorn", "python_multipart")}
_EXTRAS_OF_PACKAGE = {  # of the server: extras that bring an importable package
    **dict.fromkeys(("torch", "torchvision", "timm", "safetensors", "matplotlib", "scipy"), ("trainer",)),
    **dict.fromkeys(("onnx", "tqdm", "PIL"), ("trainer", "quantize")),
    "pymatting": ("matting",),
}
_EXTRA_OF_ENGINE = {"onnxruntime-cuda": "gpu", "openvino": "openvino", "tensorrt": "tensorrt"}


def install_command(extra_or_engine: str) -> str:
    """Return the command that installs what an extra or an engine needs, for the pip of this environment."""
    pip = _pip(sys.prefix)
    if extra_or_engine == "onnxruntime":
        return f"{pip} install onnxruntime"
    extra = _EXTRA_OF_ENGINE.get(extra_or_engine, extra_or_engine)
    command = f'{pip} install "finesight[{extra}]"'
    # onnxruntime and onnxruntime-gpu write the same files: the one that is installed last works
    return f"{command} && {pip} install --force-reinstall --no-deps onnxruntime-gpu" if extra == "gpu" else command


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
