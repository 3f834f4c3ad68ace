"""How an agent is put together: what it loads, and what its policy hands to a proof."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge.bundle import prove, slots
from edge.errors import BundleError
from gallery_sync.agent.open_agent import Place, open_agent
from gallery_sync.agent.policy import read_policy
from tests.store_samples import trusted
from tests.sync_samples import publish_release, pull_folder, trusted_root

ROOT = Path(__file__).parents[3]
_ONE_CHECK = """
import json, sys
from pathlib import Path
from gallery_sync.agent.open_agent import Place, open_agent
from gallery_sync.agent.policy import Policy
agent = open_agent(Place(Path(sys.argv[1]), sys.argv[2], "demo", None), Policy())
agent.run(once=True)
print(json.dumps([agent.task.state.value, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_idle_agent_loads_no_library_that_runs_models_or_pictures(tmp_path):
    """It waits for months in the memory that recognition needs."""
    publish_release(tmp_path, "one", 1, 3)
    state_dir = tmp_path / "device"
    pull_folder(tmp_path / "repo", state_dir)
    slots.activate(state_dir, prove=trusted)
    (state_dir / "trust").mkdir(exist_ok=True)
    (state_dir / "trust/root").write_bytes(trusted_root(tmp_path / "repo"))
    command = [sys.executable, "-c", _ONE_CHECK, str(state_dir), (tmp_path / "repo").as_uri()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    state, modules = json.loads(done.stdout)
    assert state == "idle"
    assert json.loads((state_dir / "agent.json").read_bytes())["checked_at"] is not None
    heavy = {"cv2", "onnxruntime", "openvino", "tensorrt", "hnswlib", "torch", "onnx", "aiohttp", "paho"}
    assert heavy & set(modules) == set()


def test_limits_of_the_policy_reach_the_child_of_a_proof(tmp_path, monkeypatch):
    (tmp_path / "agent.yaml").write_text("proof: {p95_ms: 40, memory_mib: 300}\n")
    (tmp_path / "device.yaml").write_text("engine: {backend: onnxruntime, threads: 2}\ncameras: {}\n")
    (tmp_path / "trust").mkdir()
    publish_release(tmp_path / "site", "one", 1, 3)
    (tmp_path / "trust/root").write_bytes(trusted_root(tmp_path / "site/repo"))
    asked: list[dict] = []

    class Child:
        is_alive = True

        def ask(self, request: dict, limit_s: float) -> tuple[int, bytes]:
            asked.append(request | {"limit_s": limit_s})
            return 0, b'{"error": "refused", "kind": "BundleError"}'

        def close(self) -> None:
            """Nothing to end."""

    monkeypatch.setattr(prove, "EarlyChild", Child)
    policy = read_policy(tmp_path / "agent.yaml", must_exist=True)
    place = Place(tmp_path, (tmp_path / "site/repo").as_uri(), "demo", tmp_path / "device.yaml")
    agent = open_agent(place, policy)
    with pytest.raises(BundleError, match="refused"):
        agent._steps._prover(tmp_path / "bundle", tmp_path / "gallery")
    first = asked[0]
    assert (first["p95_ms"], first["memory_mib"], first["backend"], first["threads"]) == (40, 300, "onnxruntime", 2)
    assert first["cache"] == str(tmp_path / "cache")
