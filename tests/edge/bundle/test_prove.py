"""The child process that proves a bundle and a gallery."""

from __future__ import annotations

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
    assert time.monotonic() - started < 10.0


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
    with pytest.raises(BundleError, match=f"ended with {how}; do not use this bundle"):
        prover()(tmp_path, None)


def test_child_of_a_parent_that_is_gone_ends(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    code = f"from edge.bundle.prove import main; main(['{gone.pid}', '{tmp_path}', '', 'auto', ''])"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, stdout=subprocess.PIPE, check=False, cwd=ROOT).returncode == 1


def test_child_does_not_import_from_the_folder_that_it_is_started_in(tmp_path, monkeypatch):
    (tmp_path / "edge").mkdir()
    (tmp_path / "edge" / "__init__.py").write_text("raise SystemExit(9)")
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert prover()(ROOT / "demo/bundle", None)
