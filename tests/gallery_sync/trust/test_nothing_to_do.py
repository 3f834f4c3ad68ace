"""The question that a device asks all day: is there anything new? One request, below 1 KB, hardly any time."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta

import pytest

from edge.errors import SyncError
from gallery_sync.transport.repository_files import HttpTransport
from tests.sync_server import serving
from tests.trust_samples import START, Device, SignedFolder


def test_nothing_to_do_is_one_small_request(device, repo):
    with serving(repo.folder) as server:
        device.transport = HttpTransport(server.url, 5.0)
        client = device.client()
        assert client.unchanged()
        assert server.requests == [("metadata/timestamp.json", "")]
    assert client.downloaded_bytes < 1000


def test_nothing_to_do_costs_less_than_50_ms(device, repo):
    with serving(repo.folder) as server:
        device.transport = HttpTransport(server.url, 5.0)
        client = device.client()
        client.unchanged()
        start = time.thread_time()
        assert client.unchanged()
        assert time.thread_time() - start < 0.05


def test_nothing_to_do_needs_no_library():
    code = "import sys, gallery_sync.trust.client; sys.exit('tuf' in sys.modules or 'securesystemslib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_new_release_is_something_to_do(device, repo):
    repo.release(2)
    assert device.client().unchanged() is False
    device.client().refresh()
    assert device.client().unchanged() is True


def test_device_that_never_refreshed_has_something_to_do(tmp_path, repo):
    device = Device(tmp_path / "new", repo)
    device.repo = tmp_path / "nowhere"
    assert device.client().unchanged() is False


@pytest.mark.parametrize("later", [timedelta(hours=24), timedelta(days=8), timedelta(seconds=-1)])
def test_a_day_after_the_last_refresh_only_a_refresh_can_say(device, later):
    device.now = START + later
    device.repo = device.repo / "gone"  # nobody is asked
    assert device.client().unchanged() is False


def test_other_bytes_of_the_same_version_are_something_to_do(device, repo):
    path = repo.folder / "metadata/timestamp.json"
    path.write_bytes(path.read_bytes() + b"\n")
    assert device.client().unchanged() is False


def test_unchanged_tells_a_failed_network_from_nothing_new(device):
    device.repo = device.repo / "gone"
    with pytest.raises(SyncError):
        device.client().unchanged()


def test_repository_of_many_categories_has_a_small_timestamp(tmp_path):
    repo = SignedFolder(tmp_path / "large")
    for number in range(300):
        repo.signed["gallery"].targets |= {}
        repo.add(f"gallery/shop/category-{number}.json", b"{}")
    repo.publish("gallery")
    assert (repo.folder / "metadata/timestamp.json").stat().st_size < 600
