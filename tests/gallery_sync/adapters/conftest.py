"""A device whose agent waits for a permit; the agent is real, its repository is in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gallery_sync.agent.policy import Policy
from gallery_sync.device.permit import read_permit
from tests.gallery_sync.agent.samples import QUICK, Device, copy_device, make_repository, start_agent

PERMITTED = Policy.model_validate({**QUICK.model_dump(exclude_unset=True), "install": {"permit": True}})


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """Bundles 1 to 3, and a device on which bundle 1 is active."""
    folder = tmp_path_factory.mktemp("made")
    make_repository(folder)
    return folder


def permitted_agent(folder: Path) -> Device:
    """Start the agent of a device, which installs what a permit names."""
    device = start_agent(folder, PERMITTED)
    plain = device.steps.surroundings

    device.steps.surroundings = lambda: replace(plain(), permit=read_permit(device.state_dir))
    return device


@pytest.fixture
def device(made, tmp_path) -> Device:
    copy_device(made, tmp_path)
    return permitted_agent(tmp_path)
