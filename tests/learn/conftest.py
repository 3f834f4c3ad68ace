"""Weights for tests of `learn`: of a small network, drawn at random."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from trainer.models.timm_library import timm


@pytest.fixture(scope="session")
def lcnet(tmp_path_factory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "lcnet_035.safetensors"
    save_file({k: v.contiguous() for k, v in timm.create_model("lcnet_035").state_dict().items()}, path)
    return str(path)
