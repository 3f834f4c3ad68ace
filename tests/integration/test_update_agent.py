"""The update agent and a running device, without a broker: a release arrives by itself, and a bad one goes back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.telemetry.vital_signs import VitalSigns, read_vital_signs
from gallery_sync.repository.publish import Demands, publish
from tests.sync_samples import keys_of, make_repository, time_now, trusted_root
from tests.waiting import until

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demo"
DEADLINE_S = 240.0  # a proof tries every engine

pytestmark = pytest.mark.slow


def bundle(folder: Path, number: int, threshold: float | None = None) -> Path:
    """Copy the demo's bundle under another name; a threshold of almost 1 makes every object unknown."""
    copy = folder / f"bundle-{number}"
    shutil.copytree(DEMO / "bundle", copy)
    manifest = json.loads((copy / "bundle.json").read_bytes())
    manifest |= {"bundle_id": f"demo-{number}", "sequence": manifest["sequence"] + number}
    for embedder in manifest["embedders"] if threshold else ():
        for one in embedder["open_set"].values():
            one |= {"threshold": threshold, "operating_points": dict.fromkeys(one["operating_points"], threshold)}
    (copy / "bundle.json").write_text(json.dumps(manifest))
    return copy


@contextmanager
def running(name: str, *arguments: object, **environment: str) -> Iterator[None]:
    command = [sys.executable, "-m", *map(str, arguments)]
    with (Path(environment.pop("LOGS")) / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log)
        try:
            yield
            process.terminate()
            assert process.wait(30) in (0, 3)
        finally:
            process.kill()
            process.wait()


def test_release_arrives_and_a_bad_one_goes_back_without_a_broker(tmp_path):
    state, repo = tmp_path / "state", tmp_path / "repo"
    keys = make_repository(repo)
    publish(repo, keys, time_now(), bundle_folder=bundle(tmp_path, 1), gallery_folder=DEMO / "gallery")
    (state / "trust").mkdir(parents=True)
    (state / "trust/root").write_bytes(trusted_root(repo))
    device, policy = tmp_path / "device.yaml", tmp_path / "agent.yaml"
    device.write_text(
        f"state_dir: {state}\nengine: {{backend: onnxruntime}}\n"
        f"cameras:\n  shelf: {{source: 'file://{DEMO / 'stream.mp4'}?loop=1'}}\n"
    )
    policy.write_text("poll_s: 1\ntrial: {seconds: 15, look_s: 1, answers: 5, frame_rate: 0.1}\n")

    def serves() -> VitalSigns | None:
        return read_vital_signs(state)

    def outcome() -> dict:
        path = state / "agent.json"
        return (json.loads(path.read_bytes())["last"] or {}) if path.exists() else {}

    agent = (
        "gallery_sync.cli",
        "--verbose",
        "agent",
        "--state-dir",
        state,
        "--config",
        policy,
        "--device-config",
        device,
    )
    with running("agent", *agent, FINESIGHT_REPOSITORY=repo.as_uri(), LOGS=str(tmp_path)):
        until((state / "current").exists, "the first release is active", DEADLINE_S)
        with running("edge", "edge", "run", "--config", device, LOGS=str(tmp_path)):
            until(lambda: (found := serves()) is not None and found.known >= 5, "the device gives answers", DEADLINE_S)
            demands = Demands(security_floor=1)
            publish(repo, keys_of(repo), time_now(), bundle_folder=bundle(tmp_path, 2), demands=demands)
            until(
                lambda: outcome().get("outcome") == "confirmed" and outcome()["sequence"] == 2, "confirmed", DEADLINE_S
            )
            signs = until(lambda: (s := serves()) and s.trial is None and s.release and s, "it says so")
            assert (signs.pair.bundle_id, signs.release.sequence if signs.release else None) == ("demo-2", 2)
            until(lambda: (found := serves()) is not None and found.known >= 20, "more answers", DEADLINE_S)
            publish(repo, keys_of(repo), time_now(), bundle_folder=bundle(tmp_path, 3, threshold=0.9999))
            until(lambda: outcome().get("sequence") == 3, "the bad release is judged", DEADLINE_S)
            assert outcome()["outcome"] == "rolled back"
            assert "objects were known" in outcome()["reason"]
            until(lambda: (s := serves()) is not None and s.pair.bundle_id == "demo-2", "it serves the one before")
