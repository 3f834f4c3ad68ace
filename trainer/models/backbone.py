"""Trunks: convolutional backbones of timm, by name, as a stack of feature maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edge.errors import TrainError
from trainer.distributed import gather_rows, sync_batch_norm
from trainer.models.published_weights import PACKAGE, packaged_weights
from trainer.models.timm_library import timm

Precision = Literal["auto", "fp32", "bf16"]
MeanStd = tuple[tuple[float, float, float], tuple[float, float, float]]


class Trunk(nn.Module):
    """A backbone without its pool and classifier, whole or cut after the deepest feature map in use."""

    def __init__(self, network: nn.Module, channels: list[int], strides: list[int], *, whole: bool) -> None:
        super().__init__()
        self.before: nn.Module = nn.Identity()  # applied to the pictures first
        self.network = network
        self.channels = channels  # channels of each map
        self.strides = strides  # input pixels per cell of each map
        self.whole = whole
        self.training_dtype: torch.dtype | None = None  # number format in training; None: float32

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (n, 3, h, w), normalised, to one (n, c, h / stride, w / stride) per stride.

        In training, the maps hold the pictures of all processes.
        """
        if not self.training:
            return self._maps(x)
        with _autocast(self.training_dtype, x.device):
            maps = self._maps(x)
        return [gather_rows(feature.float()) for feature in maps]

    def _maps(self, x: Tensor) -> list[Tensor]:
        x = self.before(x)
        return [self.network.forward_features(x)] if self.whole else list(self.network(x))

    def freeze(self, stages: int) -> list[nn.Module]:
        """Freeze the weights of the first stages.

        Returns:
            the parts that must stay in eval mode in training.

        Raises:
            TrainError: the network has fewer stages, or is not of the efficientnet and mobilenet families.
        """
        stem = [getattr(self.network, name, None) for name in ("conv_stem", "bn1")]
        blocks = getattr(self.network, "blocks", None)
        if stages and (None in stem or not isinstance(blocks, nn.Sequential) or stages > len(blocks)):
            found = len(blocks) if isinstance(blocks, nn.Sequential) else "no such stages"
            raise TrainError(f"backbone.frozen_stages is {stages}, but the backbone has a stem and {found} blocks")
        frozen = [*stem, *blocks[: stages - 1]] if stages and blocks is not None else []
        for part in frozen:
            part.requires_grad_(False)
        return frozen


def training_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Return the number format of the trunk in training; None is float32.

    `auto` is bfloat16 on a GPU and float32 on a CPU. The weights stay float32 (mixed precision). Only the trunk, which
    does nearly all of the arithmetic, computes in bfloat16. Heads, centres and losses see float32 features, because a
    cosine in bfloat16 is right to two decimals only.
    """
    bf16 = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if bf16 else None


@contextmanager
def training_mode(trunks: Sequence[Trunk], dtype: torch.dtype | None) -> Iterator[None]:
    """Let trunks compute in this number format (None: float32), with batch norm over the pictures of all processes."""
    for trunk in trunks:
        trunk.training_dtype = dtype
    try:
        with sync_batch_norm(trunks):
            yield
    finally:
        for trunk in trunks:
            trunk.training_dtype = None


def _autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[None]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def create_trunk(
    name: str, strides: Sequence[int] | None = None, pretrained: str = "none", options: dict[str, Any] | None = None
) -> Trunk:
    """Build a trunk.

    Args:
        name: name of a timm model that supports `features_only`.
        strides: strides of the maps to return, in input pixels per cell; the deepest map of each stride. A trunk cut
            at 16 keeps a 96 px crop at 6x6 cells. None: the last map of the whole network, with the widening
            convolution at the end of MobileNetV2, which a cut trunk lacks. It helps when it is pretrained.
        pretrained: `none`, `hub`, `package`, or the path of a safetensors file with the whole network's weights.
        options: options for timm: `output_stride` (dilates instead of striding), `pad_type`. One is our own:
            `patch_stem`, see `_patch_stem`.

    Raises:
        TrainError: the name or a stride is unknown, the hub is not reachable, or the weights do not fit.
    """
    options = dict(options or {})
    patch = bool(options.pop("patch_stem", False))
    if not strides:
        return _whole_trunk(name, pretrained, options, patch=patch)
    try:
        whole = timm.create_model(name, pretrained=False, features_only=True, **options)
    except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
        raise TrainError(f"backbone {name!r} with {options}: {error}") from error
    reductions, channels = whole.feature_info.reduction(), whole.feature_info.channels()
    wanted = list(strides)
    indices = [max((i for i, r in enumerate(reductions) if r == stride), default=-1) for stride in wanted]
    if -1 in indices:
        raise TrainError(f"backbone {name!r}: has strides {reductions}; backbone.strides {wanted} must be among them")
    try:
        network = timm.create_model(
            name, pretrained=pretrained == "hub", features_only=True, out_indices=tuple(indices), **options
        )
    except Exception as error:  # timm passes on any error of its download
        raise TrainError(f"backbone {name!r}: cannot download weights from the hub: {error}") from error
    _cut(network)
    if patch:
        _patch_stem(network, name, min(wanted))
    _load_weights(network, name, pretrained, options)
    return Trunk(network, [channels[i] for i in indices], wanted, whole=False)


def _whole_trunk(name: str, pretrained: str, options: dict[str, Any], *, patch: bool) -> Trunk:
    try:
        network = timm.create_model(name, pretrained=pretrained == "hub", num_classes=0, global_pool="", **options)
        stride = network.feature_info[-1]["reduction"]
    except Exception as error:  # timm passes on any error of its download
        raise TrainError(f"backbone {name!r} with {options}: {error}") from error
    if patch:
        _patch_stem(network, name, stride)
    _load_weights(network, name, pretrained, options)
    return Trunk(network, [network.num_features], [stride], whole=True)


def published_mean_std(name: str) -> MeanStd:
    """Return the mean and std of the input that the published weights were trained with."""
    try:
        config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise TrainError(f"backbone {name!r}: {error}") from error
    return tuple(config.mean), tuple(config.std)


def _cut(network: nn.Module) -> None:
    """Drop the blocks after the last map, which the efficientnet and mobilenet families would still compute."""
    last = max(getattr(network, "_stage_out_idx", {0: 0}))
    blocks = getattr(network, "blocks", None)
    if isinstance(blocks, nn.Sequential) and 0 < last < len(blocks):
        network.blocks = blocks[:last]


def _patch_stem(network: nn.Module, name: str, least_stride: int) -> None:
    """Let the stem read patches of 4x4 pixels that do not overlap, and the first stage keep their number.

    The stride of 4 is then reached in one convolution of 48 values instead of two. INT8 multiplies those without
    copying windows, see quantize.forms.group_pixels, and FP32 saves the map of stride 2, the largest of the network.

    Raises:
        TrainError: the network has no stem and first stage of stride 2 each, or a map of stride 2 is used.
    """
    stem = getattr(network, "conv_stem", None)
    stage = getattr(network, "blocks", nn.Sequential())[:1]
    first = next((part for part in stage.modules() if isinstance(part, nn.Conv2d)), None)
    if stem is None or first is None or stem.stride != (2, 2) or first.stride != (2, 2) or least_stride < 4:
        raise TrainError(
            f"backbone {name!r}: options.patch_stem needs a stem and a first stage of stride 2 each, as in "
            "mobilenetv4_conv_small_050, and backbone.strides of at least 4"
        )
    network.conv_stem = nn.Conv2d(stem.in_channels, stem.out_channels, 4, 4, bias=False)
    nn.init.kaiming_normal_(network.conv_stem.weight, mode="fan_out", nonlinearity="relu")
    first.stride = (1, 1)


def _load_weights(network: nn.Module, name: str, path: str, options: dict[str, Any]) -> None:
    """Load weights strictly: each of their keys exists in the whole network, and they hold each key of the trunk.

    The hub's are loaded already.
    """
    if path in {"none", "hub"}:
        return
    try:
        weights = packaged_weights(name) if path == PACKAGE else load_file(path)
    except TrainError:
        raise
    except Exception as error:  # safetensors raises its own, OSError and FileNotFoundError
        raise TrainError(f"{path}: cannot read weights: {error}") from error
    options = {key: value for key, value in options.items() if key != "output_stride"}
    whole = set(timm.create_model(name, pretrained=False, **options).state_dict())
    trunk = network.state_dict()
    unexpected = sorted(set(weights) - whole)
    missing = sorted(key for key in trunk if key not in weights and not key.endswith("num_batches_tracked"))
    wrong = sorted(key for key in trunk if key in weights and weights[key].shape != trunk[key].shape)
    if missing or unexpected or wrong:
        raise TrainError(
            f"{path} does not hold the weights of {name!r}: missing {missing[:3]} ({len(missing)}), "
            f"unexpected {unexpected[:3]} ({len(unexpected)}), of another shape {wrong[:3]} ({len(wrong)})"
        )
    network.load_state_dict({key: weights.get(key, torch.zeros_like(value)) for key, value in trunk.items()})
