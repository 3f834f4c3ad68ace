"""Constant padding for networks from TensorFlow, which compute it from the size of each input."""

from __future__ import annotations

import copy
from collections import defaultdict

import torch
from torch import Tensor, nn

from trainer.models.timm_library import timm


def with_fixed_padding(network: nn.Module, example: Tensor) -> nn.Module:
    """Return the network for inputs of one size: the padding of its convolutions is a constant.

    The arithmetic of sizes is wasted at a fixed size, and gives other sizes once it is quantised. A convolution that
    sees several sizes keeps its arithmetic.

    Args:
        network: the network, in eval mode; it is not changed.
        example: an input of that size.
    """
    copied = copy.deepcopy(network)
    sizes: dict[nn.Module, set[tuple[int, int]]] = defaultdict(set)

    def note(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes[conv].add((inputs[0].shape[-2], inputs[0].shape[-1]))

    hooks = [one.register_forward_pre_hook(note) for one in copied.modules() if isinstance(one, timm.layers.Conv2dSame)]
    if not hooks:
        return network
    with torch.no_grad():
        copied(example)
    for hook in hooks:
        hook.remove()
    for parent in list(copied.modules()):
        for name, conv in list(parent.named_children()):
            if len(sizes.get(conv, ())) == 1:
                setattr(parent, name, _padded(conv, *sizes[conv]))
    return copied


def _padded(conv: nn.Module, size: tuple[int, int]) -> nn.Module:
    """Return the convolution, with its padding at one size before it."""
    around = zip(size, conv.kernel_size, conv.stride, conv.dilation, strict=True)
    high, wide = (timm.layers.get_same_padding(*one) for one in around)
    conv.__class__ = nn.Conv2d  # the same weights, without the arithmetic
    return nn.Sequential(nn.ZeroPad2d((wide // 2, wide - wide // 2, high // 2, high - high // 2)), conv)
