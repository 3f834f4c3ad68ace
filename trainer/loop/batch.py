"""The input of one training step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of one training step."""

    tensors: dict[str, Tensor]  # `x`, the pictures; every other tensor has a row for each picture, or is a scalar
    names: list[str]  # names of the pictures
