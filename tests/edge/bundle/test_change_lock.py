"""One lock for everything that changes a state folder."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from edge.bundle import slots
from edge.bundle.change_lock import NAME, changing
from edge.bundle.install import install_bundle, install_gallery
from edge.errors import BundleError
from tests.store_samples import make_bundle, make_gallery, trusted

HOLDER = """
import sys
from pathlib import Path
from edge.bundle.change_lock import changing
with changing(Path(sys.argv[1]), "pulling"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_process(tmp_path):
    """Another process that holds the lock until its input is closed."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "device")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


def changes(state_dir, tmp_path):
    bundle, gallery = make_bundle(tmp_path / "one", "one"), make_gallery(tmp_path / "items")
    yield lambda: install_bundle(bundle, state_dir)
    yield lambda: install_gallery(gallery, state_dir)
    yield lambda: slots.stage(state_dir, "a", "0" * 16)
    yield lambda: slots.activate(state_dir, "a", "0" * 16, prove=trusted)
    yield lambda: slots.rollback(state_dir)


def test_every_change_waits_for_the_holder_and_names_it(tmp_path, other_process, monkeypatch):
    monkeypatch.setattr("edge.bundle.change_lock._WAIT_S", 0.0)
    for change in changes(tmp_path / "device", tmp_path):
        with pytest.raises(BundleError, match=rf"process {other_process.pid} \(pulling\) is at work here; try again"):
            change()
    assert [path.name for path in (tmp_path / "device").iterdir()] == [NAME]


def test_change_goes_on_when_the_holder_was_killed(tmp_path, other_process):
    other_process.kill()
    with changing(tmp_path / "device", "installing", wait_s=10.0):
        pass


def test_thread_that_holds_the_lock_takes_it_again(tmp_path):
    with changing(tmp_path, "pulling"), changing(tmp_path, "installing", wait_s=0.0):
        pass
    with changing(tmp_path, "installing", wait_s=0.0):
        pass


def test_another_thread_does_not_share_the_lock(tmp_path):
    problems = []

    def change() -> None:
        try:
            with changing(tmp_path, "installing", wait_s=0.0):
                pass
        except BundleError as error:
            problems.append(str(error))

    with changing(tmp_path, "pulling"):
        thread = threading.Thread(target=change)
        thread.start()
        thread.join()
    assert len(problems) == 1


def test_nothing_can_be_installed_between_a_proof_and_its_activation(tmp_path, monkeypatch):
    monkeypatch.setattr("edge.bundle.change_lock._WAIT_S", 0.0)
    state_dir = tmp_path / "device"
    slot = install_bundle(make_bundle(tmp_path / "one", "one"), state_dir)
    generation = install_gallery(make_gallery(tmp_path / "items"), state_dir)
    other, refused = make_bundle(tmp_path / "two", "two", 2), []

    def install() -> None:
        try:
            install_bundle(other, state_dir)
        except BundleError as error:
            refused.append(str(error))

    def prove(*_: object) -> list[str]:
        thread = threading.Thread(target=install)
        thread.start()
        thread.join()
        return []

    assert slots.activate(state_dir, slot, generation, prove=prove).bundle_id == "one"
    assert ["(activating) is at work here" in text for text in refused] == [True]


def test_what_is_in_place_of_the_lock_is_set_aside(tmp_path):
    (tmp_path / NAME).symlink_to(tmp_path / "victim")
    with changing(tmp_path, "installing"):
        assert (tmp_path / NAME).is_file()
    assert not (tmp_path / "victim").exists()
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).mkdir()
    with changing(tmp_path, "installing"):
        assert (tmp_path / NAME).is_file()
