"""The optional packages: which extra brings them, and the command that installs it."""

from __future__ import annotations

import importlib.util

from edge.errors import ConfigError

_EXTRA_PACKAGES = {"kiosk": ("starlette", "uvicorn")}
INSTALL_COMMANDS = {  # by extra or engine
    "kiosk": 'pip install "finesight[kiosk]"',
    "gstreamer": 'pip install "finesight[gstreamer]"',
    "openvino": 'pip install "finesight[openvino]"',
    "trainer": 'pip install "finesight[trainer]"',
    "quantize": 'pip install "finesight[quantize]"',
    "matting": 'pip install "finesight[matting]"',
    "heic": 'pip install "finesight[heic]"',
    "onnxruntime": "pip install onnxruntime",
    "onnxruntime-cuda": "pip uninstall --yes onnxruntime && pip install onnxruntime-gpu",
    "tensorrt": "pip install tensorrt cuda-python",
}
_SERVER_EXTRAS = {  # extras that bring a package
    **dict.fromkeys(("torch", "torchvision", "timm", "safetensors", "matplotlib", "scipy"), ("trainer",)),
    **dict.fromkeys(("onnx", "tqdm"), ("trainer", "quantize")),
    "pymatting": ("matting",),
}


def require_extra(extra: str) -> None:
    """Check that the packages of an extra are installed.

    Raises:
        ConfigError: one is missing.
    """
    for package in _EXTRA_PACKAGES[extra]:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{extra}: package {package!r} is not installed; run: {INSTALL_COMMANDS[extra]}")


def install_hint(error: ModuleNotFoundError, preferred_extra: str) -> str | None:
    """Say how to install the package that an import did not find; None if no server extra brings it."""
    package = (error.name or "").partition(".")[0]
    extras = _SERVER_EXTRAS.get(package)
    if extras is None:
        return None
    extra = preferred_extra if preferred_extra in extras else extras[0]
    return f"package {package!r} is not installed; run: {INSTALL_COMMANDS[extra]}"
