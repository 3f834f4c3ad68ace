"""In which numbers a trunk computes while it is trained: float32, or bfloat16 with float32 weights (mixed precision).

The trunk alone is lowered: it is nearly all of the arithmetic. Heads, centres and losses see float32 features, for a
cosine of bfloat16 is right to two decimals only.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def trunk_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The number format of a training's trunk; None is float32. `auto` is bfloat16 on a GPU, float32 on a CPU."""
    lowered = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if lowered else None


def lowered(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[None]:
    """Convolutions and matrix products inside are computed in this format; None changes nothing."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
