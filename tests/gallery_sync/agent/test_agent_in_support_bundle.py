"""What `edge support-bundle` packs of the update agent."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from edge.config.yaml_file import load_config
from edge.diagnostics.support_bundle import pack_support
from gallery_sync.agent.journal import open_journal
from gallery_sync.agent.machine import Ended, State, Step, Target, Task

YAML = """
site: here
device: one
state_dir: state
kiosk: {camera: desk, token: "${KIOSK_TOKEN}"}
cameras:
  desk: {source: "v4l2://0", framing: whole_frame}
"""


def unpack(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as tar:
        return {m.name.partition("/")[2]: tar.extractfile(m).read().decode() for m in tar.getmembers()}


def test_support_bundle_has_what_the_agent_did_without_secrets(tmp_path: Path):
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    (tmp_path / "device.yaml").write_text(YAML)
    config = load_config(tmp_path / "device.yaml", {"KIOSK_TOKEN": "sesame-seed"})
    assert not (state_dir / "journal.sqlite").exists()
    pack_support(config, tmp_path / "before.tar.gz")
    assert unpack(tmp_path / "before.tar.gz")["state/agent_journal.json"].startswith("not available: ")
    journal, release = open_journal(state_dir), Target("shop", 2, "two", 2, 8)
    reason = "https://user:pass-w0rd@repo/objects?token=sesame-seed: 404"
    ended = Ended(release, "refused", reason, None)
    journal.store(Step(Task(State.IDLE, release), store=True, ended=ended), 1.0)
    journal.close()
    (state_dir / "agent.json").write_text(json.dumps({"state": "idle", "reason": reason}))
    pack_support(config, tmp_path / "support.tar.gz")
    parts = unpack(tmp_path / "support.tar.gz")
    past = json.loads(parts["state/agent_journal.json"])["history"]
    assert [(one["sequence"], one["outcome"]) for one in past] == [(2, "refused")]
    assert json.loads(parts["state/agent.json"])["state"] == "idle"
    for text in parts.values():
        assert "pass-w0rd" not in text
        assert "sesame-seed" not in text
