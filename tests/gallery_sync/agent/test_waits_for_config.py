"""A release waits while a configuration is on trial, and the fleet learns which configuration is confirmed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.config.overlay import Overlay
from edge.errors import SyncError
from edge.telemetry.vital_signs import VitalConfig
from gallery_sync.agent.fleet_report import About, FleetReport
from gallery_sync.agent.gates import why_not_download, why_not_install
from gallery_sync.agent.journal import open_journal
from gallery_sync.agent.machine import Task
from gallery_sync.agent.policy import Policy
from gallery_sync.agent.report import Told
from gallery_sync.remote_hands.config_files import ConfigFiles, Trial, current
from tests.gallery_sync.agent.samples import TWO, Clock, Steps


def put_on_trial(steps: Steps) -> None:
    files = ConfigFiles(steps.folder / "device")
    sha256 = files.propose(Overlay("night-mode", 3, {"recognition": {"min_looks": 4}}))
    fields = {"cameras": [], "seconds": 120.0, "began_s": 0.0, "boot_id": "boot", "request": "r-1"}
    trial = Trial.model_validate({"overlay": "night-mode 3", "sha256": sha256, **fields})
    files.begin(trial)
    files.take(trial)


def test_nothing_is_switched_while_a_configuration_is_on_trial(folder):
    steps = Steps(folder, Clock())
    steps.stage(TWO)
    put_on_trial(steps)
    with pytest.raises(SyncError, match="a configuration is on trial"):
        steps.switch(TWO, "t-1")
    ConfigFiles(folder / "device").confirm()
    assert steps.switch(TWO, "t-1")


def test_proof_and_switch_wait_and_a_download_does_not(folder):
    here = replace(Steps(folder, Clock()).surroundings(), busy="a configuration is on trial")
    assert why_not_install(Policy(), here) == "a configuration is on trial"
    assert why_not_download(Policy(), here) is None


def test_report_names_the_confirmed_configuration(folder, monkeypatch):
    steps = Steps(folder, Clock())
    put_on_trial(steps)
    journal, device = open_journal(folder / "device"), folder / "device"
    about = About("cam-001", "demo", {}, "1", confirmed_config=lambda: current(device))
    report, signs = FleetReport(about, journal, lambda: 1.0), steps.signs()
    assert signs is not None
    used = signs.model_copy(update={"config": VitalConfig(overlay="night-mode 3")})
    monkeypatch.setattr(steps, "signs", lambda: used)
    assert report.content(Task(), Told(), steps)["config"] == "night-mode 3, on trial"
    ConfigFiles(device).confirm()
    assert report.content(Task(), Told(), steps)["config"] == "night-mode 3"
    journal.close()
