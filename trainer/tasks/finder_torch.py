"""Run a trained finder with the device's search code, with torch instead of an inference engine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge.errors import TrainError
from edge.finder.finder import Finder
from edge.manifest.model import Preprocess
from edge.manifest.stages import FinderModel
from trainer.data.augment import canvases_to_input
from trainer.models.finder_network import Finder as Network
from trainer.models.networks import load_model


class _TorchEngine:
    """An inference engine that runs a torch network: a trunk on pictures, or the conversion on maps."""

    def __init__(self, network: nn.Module, spec: Preprocess | None, where: str, outputs: Sequence[str]) -> None:
        self.where, self.library = where, f"torch {torch.__version__}"
        self.inputs: Sequence[Collection[str]] = [("image" if spec else "maps",)]
        self.outputs: Sequence[Collection[str]] = [(name,) for name in outputs]
        self._network, self._spec = network, spec

    def run(self, batch: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Run one batch."""
        pixels = np.asarray(batch)
        x = torch.from_numpy(pixels) if self._spec is None else canvases_to_input(pixels, self._spec)
        with torch.no_grad():
            outputs = self._network(x)
        return [one.numpy() for one in ([outputs] if isinstance(outputs, Tensor) else outputs)]


def load_finder(folder: Path) -> Finder:
    """Read a trained finder.

    Raises:
        TrainError: the folder holds none, or one with a separate trunk for queries.
    """
    network, card = load_model(folder)
    if not isinstance(network, Network) or card.finder is None:
        raise TrainError(f"{folder}: this is a {card.kind}; give the run folder of a finder")
    if not card.shared_trunk:
        raise TrainError(f"{folder}: this finder has two trunks; only one with a shared trunk can run here")
    model = FinderModel(
        files={"fp32": "trunk.onnx"},
        ship="fp32",
        input_name="image",
        output_names=["representation", "guide"][: 1 + bool(card.guide)],
        preprocess=card.preprocess,
        shape=card.finder,
        channels=card.channels,
        guide=card.guide,
        conversion="conversion.onnx",
        score_threshold=card.score_threshold,
    )
    trunk = _TorchEngine(network.represent, card.preprocess, str(folder), model.output_names)
    return Finder(model, trunk, _TorchEngine(network.conversion, None, str(folder), ["heat_map"]))
