"""T1: the public conformance suite for TUF clients, all of it, against the client that devices use.

The suite is in `tests/integration/tuf_conformance`; `TUF_CONFORMANCE` names a checkout of another version. It marks no
case as optional for every client; what a client does not pass, it lists in a file of expected failures. We have none.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.integration.conformance_client import answer_commands, run, write_client

ROOT = Path(__file__).parents[2]
ARCHIVE = Path(__file__).with_name("tuf_conformance") / "suite.tar.gz"
CASES = 113


@pytest.fixture
def suite(tmp_path) -> Path:
    """The folder that holds `tuf_conformance`."""
    if given := os.environ.get("TUF_CONFORMANCE"):
        return Path(given)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "suite", filter="data")
    return tmp_path / "suite"


@pytest.fixture
def client(tmp_path):
    """The path of a client that answers at once."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    path = tmp_path / "socket"
    command = [sys.executable, "-m", "tests.integration.conformance_client", path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield write_client(bin_folder, path)
        server.kill()


def test_t1_every_case_of_the_suite_passes(suite, client, tmp_path):
    path = f"{client.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "tuf_conformance", "-c", os.devnull, f"--rootdir={suite}"),
            *("-q", "-p", "no:cacheprovider", "-p", "tests.integration.conformance_plugin"),
            *("--entrypoint", str(client), f"--basetemp={tmp_path / 'base'}"),
        ],
        cwd=suite,
        env=os.environ
        | {"PATH": path, "PYTEST_ADDOPTS": "", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": f"{ROOT}:{suite}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) passed", done.stdout)
    assert found, done.stdout[-2000:]
    assert "skipped" not in done.stdout
    assert "xfailed" not in done.stdout
    assert int(found[1]) == CASES or "TUF_CONFORMANCE" in os.environ


def test_the_command_itself_runs(tmp_path):
    """`python -m gallery_sync.conformance`, without the fork."""
    from tests.trust_samples import SignedFolder

    repo = SignedFolder(tmp_path / "repo", now=datetime.now(timezone.utc).replace(microsecond=0))
    root = tmp_path / "root.json"
    root.write_bytes(repo.trusted_root)
    (tmp_path / "metadata").mkdir()
    command = [sys.executable, "-m", "gallery_sync.conformance", "--metadata-dir", tmp_path / "metadata"]
    assert subprocess.run([*command, "init", root], cwd=ROOT, check=False).returncode == 0
    url = f"file://{repo.folder}/metadata"
    done = subprocess.run([*command, "--metadata-url", url, "refresh"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "metadata/timestamp.json").is_file()


def test_client_passes_errors_on():
    assert run(lambda _: 1, [], None) == (1, "")
    assert callable(answer_commands)
