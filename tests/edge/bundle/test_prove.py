"""The child process that proves a bundle and a gallery."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.bundle import prove
from edge.bundle.prove import prover
from edge.errors import BundleError, EngineError
from tests.store_samples import make_bundle

ROOT = Path(__file__).parents[3]


def child(monkeypatch, code: str) -> None:
    """Let the child run this code, in place of a proof."""
    real = subprocess.Popen
    monkeypatch.setattr(
        prove.subprocess, "Popen", lambda command, **kwargs: real([sys.executable, "-c", code], **kwargs)
    )


def test_good_pair_is_proved_probe_by_probe():
    lines = prover()(ROOT / "demo/bundle", ROOT / "demo/gallery")
    assert len(lines) >= 32
    assert all(": ok" in line for line in lines)


def test_error_of_the_child_is_raised_with_its_kind(tmp_path):
    with pytest.raises(EngineError, match=r"tyre\.onnx"):  # its bytes are no model
        prover()(make_bundle(tmp_path / "one", "one"), None)


def test_proof_that_does_not_end_is_ended(monkeypatch, tmp_path):
    child(monkeypatch, "import signal; signal.pause()")
    started = time.monotonic()
    with pytest.raises(BundleError, match=r"did not end within 0\.2 s; do not use this bundle"):
        prover(limit_s=0.2)(tmp_path, None)
    assert time.monotonic() - started < 60.0


def test_bundle_that_hangs_while_engines_are_chosen_is_refused(monkeypatch, tmp_path, caplog):
    child(monkeypatch, "import signal; signal.pause()")
    started = time.monotonic()
    with pytest.raises(BundleError, match=r"did not end within 0\.2 s; do not use this bundle"):
        prover(state_dir=tmp_path, limit_s=0.2)(tmp_path, None)
    assert time.monotonic() - started < 60.0
    assert "no engines were chosen" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os.abort()", "signal SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL"),
        ("raise SystemExit(7)", "exit status 7"),
        ("pass", "exit status 0"),
    ],
)
def test_child_that_dies_refuses_the_bundle(monkeypatch, tmp_path, code, how):
    child(monkeypatch, code)
    for state_dir in (None, tmp_path):  # without and with a choice of engines
        with pytest.raises(BundleError, match=f"ended with {how}; do not use this bundle"):
            prover(state_dir=state_dir)(tmp_path, None)


def test_child_of_a_parent_that_is_gone_ends(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    request = {"bundle": str(tmp_path), "gallery": "", "cache": "", "backend": "auto", "choose": False, "choice": None}
    for parent, status in ((gone.pid, 1), (os.getpid(), 0)):
        code = f"from edge.bundle.proof_child import main; main(['{parent}'])"
        command = [sys.executable, "-c", code]
        ended = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True, check=False, cwd=ROOT)
        assert ended.returncode == status
        assert (b"is not a bundle folder" in ended.stdout) == (status == 0)


def test_child_does_not_import_from_the_folder_that_it_is_started_in(tmp_path, monkeypatch):
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "__init__.py").write_text("raise SystemExit(9)")
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert prover()(ROOT / "demo/bundle", None)
