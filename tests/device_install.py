"""A pytest plugin that gives tests what a device has: packages that only a server installs cannot be imported."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder

SERVER_ONLY = frozenset(
    {"torch", "torchvision", "timm", "onnx", "matplotlib", "scipy", "pymatting", "safetensors", "tqdm", "pillow_heif"}
    | {"dataset_formats", "gallery_sync", "learn", "quantize", "trainer"}
)


class ServerOnly(MetaPathFinder):
    """Refuses the imports."""

    def find_spec(self, fullname: str, _path: object = None, _target: object = None) -> None:
        """Refuse one, or leave it to the next finder.

        Raises:
            ModuleNotFoundError: a device does not have it.
        """
        if fullname.partition(".")[0] in SERVER_ONLY:
            raise ModuleNotFoundError(f"{fullname} is not part of a device install", name=fullname)


def pytest_configure() -> None:
    """Refuse from here on."""
    sys.meta_path.insert(0, ServerOnly())
