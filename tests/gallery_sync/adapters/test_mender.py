"""The update module, called in the order in which Mender calls one: Documentation/update-modules-v3-file-api.md."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import tarfile
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from edge.bundle import slots
from edge.bundle.active_pointer import read_active_pointer
from edge.errors import SyncError
from gallery_sync.adapters.mender import Tools, call, script
from gallery_sync.device.permit import read_permit
from gallery_sync.device.pull import pull
from gallery_sync.device.root_of_trust import keep_root
from gallery_sync.transport.repository_files import FolderTransport
from tests.gallery_sync.agent.samples import THREE
from tests.store_samples import trusted
from tests.sync_samples import trusted_root
from tests.waiting import until

RELEASE_2 = b'{"line":"demo","sequence":2}'


class KilledError(BaseException):
    """The power went."""


class Mender:
    """What `mender-update` does with one payload: folders, pipes, and states in their order."""

    def __init__(self, folder, state_dir, turn, payload, *, sizes=True):
        self.folder, self.state_dir, self.turn, self.payload, self.sizes = folder, state_dir, turn, payload, sizes
        self.states, self.said, self.killed_in, self.sleeps = [], "", None, 0
        self.clock_s, self.written = 0.0, False
        self.tools = Tools(lambda: self.clock_s, self.sleep, trusted)

    def sleep(self, seconds):
        if self.states[-1] == self.killed_in:
            raise KilledError
        self.clock_s += seconds
        self.sleeps += 1
        self.turn(seconds)

    def run(self, state):
        """Run a state; return whether it succeeded. The power goes at most once."""
        self.states.append(state)
        try:
            call(state, self.folder, self.state_dir, wait_s=600.0, tools=self.tools)
        except SyncError as error:
            self.said = str(error)
            return False
        except KilledError:
            self.killed_in = None
            return False
        return True

    def deploy(self):
        self.make_tree()
        if not self.download():
            self.run("Cleanup")
            return "download failed"
        done = self.run("ArtifactInstall")
        if done and call("NeedsArtifactReboot", self.folder, self.state_dir, wait_s=1.0) == "No":
            done = self.run("ArtifactCommit")
        if not done and call("SupportsRollback", self.folder, self.state_dir, wait_s=1.0) == "Yes":
            undone = self.run("ArtifactRollback")
            self.run("ArtifactFailure")
        self.run("Cleanup")
        return "success" if done else "rolled back" if undone else "inconsistent"

    def make_tree(self):
        for name in ("header", "tmp"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "header/artifact_name").write_text("shop-release-2\n")
        (self.folder / "version").write_text("3")

    def download(self):
        """Offer each file in a pipe of its own, named by the pipe `stream-next`; keep what the module does not read."""
        assert call("ProvidePayloadFileSizes", self.folder, self.state_dir, wait_s=1.0) == "Yes"
        (self.folder / "streams").mkdir()
        os.mkfifo(self.folder / "stream-next")
        for name in self.payload:
            os.mkfifo(self.folder / "streams" / name)
        writer = threading.Thread(target=self.write_streams, daemon=True)
        writer.start()
        done = self.run("DownloadWithFileSizes" if self.sizes else "Download")
        if done:
            writer.join(60)
            assert self.written, "the module did not read everything"
        until(lambda: not writer.is_alive() or self.unblock(), "the writer ends")
        return done

    def unblock(self):
        """Let a writer go on whose reader is gone."""
        for path in (self.folder / "stream-next", *(self.folder / "streams").iterdir()):
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))

    def write_streams(self):
        with suppress(BrokenPipeError):
            for name, data in self.payload.items():
                size = f" {len(data)}" if self.sizes else ""
                (self.folder / "stream-next").write_text(f"streams/{name}{size}\n")
                (self.folder / "streams" / name).write_bytes(data)
            (self.folder / "stream-next").write_text("")
            self.written = True


def agent_turns(device):
    def turn(seconds):
        device.agent.turn()
        device.clock.sleep(seconds)

    return turn


@pytest.fixture
def mender(device, tmp_path):
    return Mender(tmp_path / "tree", device.state_dir, agent_turns(device), {"release.json": RELEASE_2})


def test_release_is_installed_on_trial_and_committed_once_confirmed(mender, device):
    assert mender.deploy() == "success"
    assert device.serving() == "bundle-2"
    assert mender.states == ["DownloadWithFileSizes", "ArtifactInstall", "ArtifactCommit", "Cleanup"]
    assert device.outcomes() == [(2, "confirmed")]
    assert read_permit(device.state_dir) is None
    assert not (mender.folder / "tmp/finesight").exists()


def test_install_ends_while_the_release_is_on_trial(mender, device):
    mender.make_tree()
    assert mender.download()
    assert mender.run("ArtifactInstall")
    assert read_active_pointer(device.state_dir).trial is not None


def test_older_client_without_sizes_works(mender):
    mender.sizes = False
    assert mender.deploy() == "success"


def test_release_that_fails_its_trial_is_reported_as_failed(mender, device):
    device.steps.edge.failing = 0.5
    assert mender.deploy() == "rolled back"
    assert "frames failed" in mender.said
    assert mender.states[-4:] == ["ArtifactCommit", "ArtifactRollback", "ArtifactFailure", "Cleanup"]
    assert device.serving() == "bundle-1"


def test_release_that_is_not_offered_here_fails_in_time(mender, device):
    device.steps.wanted = THREE
    assert mender.deploy() == "rolled back"
    assert "did not switch to it within 600 s" in mender.said
    assert (device.serving(), read_permit(device.state_dir)) == ("bundle-1", None)


@pytest.mark.parametrize("state", ["ArtifactInstall", "ArtifactCommit"])
def test_power_cut_rolls_back_and_nothing_is_installed_later(mender, device, state):
    mender.killed_in = state
    assert mender.deploy() == "rolled back"
    for _ in range(30):
        mender.turn(5.0)
    assert (device.serving(), read_permit(device.state_dir)) == ("bundle-1", None)


def test_other_payload_that_failed_takes_a_confirmed_release_back(mender, device):
    mender.make_tree()
    for done in (mender.download(), mender.run("ArtifactInstall"), mender.run("ArtifactCommit")):
        assert done
    assert mender.run("ArtifactRollback")
    assert device.serving() == "bundle-1"


def test_rollback_finds_that_the_agent_went_back_already(mender, device):
    mender.make_tree()
    assert mender.download()
    assert mender.run("ArtifactInstall")
    slots.rollback(device.state_dir)
    assert mender.run("ArtifactRollback")
    assert device.serving() == "bundle-1"


def test_release_that_ran_before_is_not_taken_back(mender, device):
    assert mender.deploy() == "success"
    again = Mender(mender.folder.with_name("again"), device.state_dir, mender.turn, {"release.json": RELEASE_2})
    again.make_tree()
    for done in (again.download(), again.run("ArtifactInstall"), again.run("ArtifactCommit")):
        assert done
    assert again.run("ArtifactRollback")
    assert device.serving() == "bundle-2"


def test_install_that_failed_leaves_no_permit(mender, device):
    device.steps.wanted = THREE
    mender.make_tree()
    assert mender.download()
    assert not mender.run("ArtifactInstall")
    assert read_permit(device.state_dir) is None


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"release.json": b'{"line":"other","sequence":2}'}, "this device is of line demo"),
        ({"release.json": b"{}"}, "release.json"),
        ({"release.json": b" " * 70_000}, "70000 bytes"),
        ({"other.bin": b"x"}, "expected release.json"),
        ({}, "the artifact has no release.json"),
    ],
)
def test_artifact_that_names_no_release_of_this_device_fails(mender, device, payload, reason):
    mender.payload = payload
    assert mender.deploy() in ("download failed", "rolled back")
    assert reason in mender.said
    assert device.serving() == "bundle-1"


@pytest.mark.parametrize(
    "state", ["SomethingNew", "ArtifactReboot", "ArtifactFailure", "SupportsAugmentedArtifacts", ""]
)
def test_states_that_need_nothing_are_answered_with_nothing(state, tmp_path):
    assert call(state, tmp_path, tmp_path, wait_s=1.0) is None


def archive(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            else:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data or b""))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "metadata/../../x", "objects/00/x", "notes.txt", "metadata"])
@pytest.mark.parametrize("data", [b"x", None], ids=["file", "link"])
def test_archive_with_anything_but_a_repository_is_refused(mender, name, data):
    mender.payload = {"release.json": RELEASE_2, "repository.tar": archive({name: data})}
    assert mender.deploy() == "download failed"
    assert "expected files of a repository" in mender.said


@pytest.mark.parametrize(
    ("kept", "full", "reason"), [(15_000, False, "is no archive"), (None, True, "free some space")]
)
def test_archive_that_is_cut_or_has_no_room_leaves_nothing(mender, monkeypatch, kept, full, reason):
    """Mender may take its time until it calls Cleanup, and the device needs its disk."""
    whole = archive({"metadata/1.root.json": bytes(4000), "metadata/timestamp.json": bytes(20_000)})
    mender.payload = {"release.json": RELEASE_2, "repository.tar": whole[:kept]}
    if full:
        monkeypatch.setattr("gallery_sync.adapters.mender_streams.shutil.copyfileobj", no_room)
    mender.make_tree()
    assert not mender.download()
    assert reason in mender.said
    assert not (mender.state_dir / "cache/mender").exists()


def no_room(source, target, size):
    target.write(source.read(100))
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_repository_in_the_artifact_is_verified_and_tried(tmp_path, two_releases):
    """The agent adopts the trial; here its part is played: it confirms what is active."""
    repo, state_dir = two_releases / "second/repo", tmp_path / "device"
    pull(FolderTransport(two_releases / "first/repo"), state_dir, trusted_root(repo))
    slots.activate(state_dir, prove=trusted)
    keep_root(state_dir, trusted_root(repo))
    files = [path for part in ("metadata", "targets", "objects") for path in (repo / part).rglob("*")]
    whole = {str(path.relative_to(repo)): path.read_bytes() for path in files if path.is_file()}

    def confirm(_):
        active = read_active_pointer(state_dir)
        slots.confirm(state_dir, active.trial)
        last = {"at": 1.0, "line": "demo", "sequence": 2, "outcome": "confirmed", "trial": active.trial}
        (state_dir / "agent.json").write_text(json.dumps({"state": "idle", "last": last}))

    mender = Mender(
        tmp_path / "tree",
        state_dir,
        confirm,
        {"release.json": RELEASE_2, "repository.tar": archive(whole) + bytes(1 << 20)},  # tar pads as it likes
    )
    assert mender.deploy() == "success", mender.said
    assert read_active_pointer(state_dir).bundle_id == "two"
    changed = whole | {name: b"x" + data[1:] for name, data in whole.items() if name.startswith("metadata/timestamp")}
    other = Mender(
        tmp_path / "other", state_dir, confirm, {"release.json": RELEASE_2, "repository.tar": archive(changed)}
    )
    other.payload["release.json"] = b'{"line":"demo","sequence":3}'
    assert other.deploy() == "rolled back"
    assert "signed metadata is damaged" in other.said
    assert read_active_pointer(state_dir).bundle_id == "two"


def test_script_runs_the_command(tmp_path):
    path = tmp_path / "finesight"
    path.write_text(script(tmp_path / "a b", 60.0))
    done = subprocess.run(["sh", path, "SupportsRollback"], env={}, capture_output=True, text=True, check=True)
    assert done.stdout == "Yes\n"
    assert f"mender --state-dir '{tmp_path}/a b' --wait-s 60 " in path.read_text()


def test_what_root_writes_belongs_to_the_owner_of_the_state_folder(tmp_path):
    """Below pytest's folders, another account finds nothing."""
    me, owner = os.geteuid(), 65_534 if os.geteuid() == 0 else os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        state_dir = Path(name, "state")
        Path(name).chmod(0o755)
        state_dir.mkdir()
        os.chown(state_dir, owner, -1)
        (tmp_path / "tmp/finesight").mkdir(parents=True)
        (tmp_path / "tmp/finesight/release.json").write_bytes(RELEASE_2)

        def look(_):
            assert os.geteuid() == me
            raise KilledError

        with pytest.raises(KilledError):
            call("ArtifactInstall", tmp_path, state_dir, wait_s=9.0, tools=Tools(lambda: 0.0, look))
        assert {path.stat().st_uid for path in state_dir.iterdir()} == {owner}
        assert (state_dir / "permit.json").is_file()
        call("Cleanup", tmp_path, state_dir, wait_s=9.0)
        assert list(state_dir.iterdir()) == []
