"""Weights for tests of `learn`: of a small network, drawn at random; and a detector with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edge.manifest.model import Preprocess
from trainer.models.networks import ModelCard, build_model, save_model
from trainer.models.timm_library import timm


@pytest.fixture(scope="session")
def lcnet(tmp_path_factory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "lcnet_035.safetensors"
    save_file({k: v.contiguous() for k, v in timm.create_model("lcnet_035").state_dict().items()}, path)
    return str(path)


@pytest.fixture(scope="session")
def toy_detector(tmp_path_factory, lcnet) -> Path:
    """Return the run folder of a detector that learned nothing."""
    spec = Preprocess(width=96, height=96, resize="letterbox", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    card = ModelCard(
        kind="detector", backbone="lcnet_035", preprocess=spec, strides=[8, 16], width=16, labels=["object"]
    )
    folder = tmp_path_factory.mktemp("detector")
    save_model(folder, build_model(card, lcnet), card)
    return folder
