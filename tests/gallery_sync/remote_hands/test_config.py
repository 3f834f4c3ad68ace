"""The command config: which fragments a device takes, its trial, and what it answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.bundle.active_pointer import ActivePointer
from edge.config.overlay import Overlay, overlay_bytes, overlay_path
from edge.errors import SyncError
from gallery_sync.formats.config import ConfigFragment, config_target
from gallery_sync.formats.fields import canonical_json
from gallery_sync.formats.reports import Request
from gallery_sync.formats.rollouts import parse_selector
from gallery_sync.remote_hands import config as command
from gallery_sync.remote_hands.commands import Context
from gallery_sync.remote_hands.config import RefusedFragmentError, read_fragment, wanted_of, why_not_fit
from gallery_sync.remote_hands.config_files import ConfigFiles, current, why_busy
from tests.gallery_sync.remote_hands.config_samples import DAY, NIGHT, TRIAL_S, PlayedDevice
from tests.gallery_sync.remote_hands.samples import ALL
from tests.gallery_sync.remote_hands.samples import Device as HandsDevice
from tests.gallery_sync.remote_hands.samples import request as request_bytes
from tests.trust_samples import Device as SignedDevice
from tests.trust_samples import SignedFolder

LABELS = {"device": "cam-001", "group": "lab", "line": "shop"}


@pytest.fixture
def device(tmp_path: Path) -> PlayedDevice:
    return PlayedDevice(tmp_path / "state")


def request(**arguments: Any) -> Request:
    return Request.model_validate({"id": "r-1", "by": "alice", "at": 0.0, "arguments": arguments})


def fragment(**changes: Any) -> ConfigFragment:
    fields = {"line": "shop", "name": "night-mode", "revision": 3, "values": NIGHT.values, "by": "alice", "at": "now"}
    return ConfigFragment.model_validate(fields | changes)


def read(found: ConfigFragment | bytes | None, revision: int | None = None) -> Overlay:
    """Read a fragment that is signed under the name night-mode."""
    data = canonical_json(found) if isinstance(found, ConfigFragment) else found

    def signed(path: str, _: int) -> bytes | None:
        assert path == "rollout/shop.config.night-mode.json"
        return data

    return read_fragment(signed, "shop", wanted_of(request(name="night-mode", revision=revision)), LABELS)


# Fragments


def test_fragment_becomes_an_overlay():
    assert read(fragment()) == NIGHT
    assert read(fragment(selector=parse_selector("group=lab")), revision=3) == NIGHT


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"line": "other"}, "of line 'other'"),
        ({"name": "day-mode"}, "found fragment day-mode 3"),
        ({"revision": 4}, "fragment night-mode 4 is signed, and revision 3 was asked for"),
        ({"selector": parse_selector("group=shop")}, "is for group=shop, and this device is not selected"),
        ({"values": {"mqtt": {"host": "evil"}}}, "mqtt: may not be set from afar"),
        ({"values": {"recognition": {"min_looks": "x" * 150_000}}}, "is too large"),
    ],
)
def test_fragment_that_is_not_for_the_device_is_refused(changes, told):
    with pytest.raises(RefusedFragmentError, match=told):
        read(fragment(**changes), revision=3)


def test_missing_and_damaged_fragments_are_refused():
    with pytest.raises(RefusedFragmentError, match="has no fragment 'night-mode'"):
        read(None)
    with pytest.raises(SyncError, match="not a valid configuration fragment"):
        read(b"{}")


@pytest.mark.parametrize("arguments", [{}, {"name": "a/b"}, {"name": "x", "revision": 0}, {"name": "x", "extra": 1}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(RefusedFragmentError, match="expected arguments such as"):
        wanted_of(request(**arguments))


# Trials


def test_good_overlay_is_confirmed_after_its_trial(device):
    done = device.set(NIGHT)
    assert (done.state, done.text) == ("done", "night-mode 3 is in use, and all cameras are back")
    assert done.result == {"cameras": {"door": "online", "yard": "online"}}
    assert current(device.state_dir) == "night-mode 3"
    assert device.now_s >= 1000.0 + TRIAL_S
    assert sorted(path.name for path in (device.state_dir / "config").iterdir()) == ["overlay.json"]


def test_overlay_on_trial_is_used_and_not_reported_as_confirmed(device):
    assert device.set(DAY).state == "done"
    trials = device.trials()
    trial = trials.begin(NIGHT, "r-2", TRIAL_S)
    assert trial is not None
    assert device.in_use() == ("night-mode 3", None)
    assert current(device.state_dir) == "day-mode 1"
    assert why_busy(device.state_dir)
    assert trials.watch(trial).state == "done"
    assert why_busy(device.state_dir) is None


def test_camera_that_does_not_come_back_takes_the_device_back(device):
    device.states = {"night-mode 3": {"yard": "reconnecting"}}
    assert device.set(DAY).state == "done"
    done = device.set(NIGHT)
    assert done.state == "failed"
    assert done.text == (
        "night-mode 3: camera 'yard' is reconnecting, and was online before; the device is back at day-mode 1"
    )
    assert device.in_use() == ("day-mode 1", None)


def test_refused_overlay_is_taken_back_at_once(device):
    device.refuses = {"night-mode 3"}
    done = device.set(NIGHT)
    assert "edge refuses it: overlay night-mode 3: cameras.door.max_px: found 5" in done.text
    assert "the device is back at its own file" in done.text
    assert device.now_s < 1000.0 + TRIAL_S / 2
    assert current(device.state_dir) is None
    assert not overlay_path(device.state_dir).exists()


def test_overlay_is_removed_on_trial_too(device):
    device.set(NIGHT)
    device.states = {None: {"yard": "stalled"}}
    assert "the device's own file: camera 'yard' is stalled" in device.set(None).text
    assert current(device.state_dir) == "night-mode 3"
    device.states = {}
    assert device.set(None).state == "done"
    assert current(device.state_dir) is None


def test_what_the_device_has_is_not_tried_again(device):
    assert device.set(None).text == "already"
    device.set(NIGHT)
    assert device.set(NIGHT).text == "already"
    device.refuses = {"night-mode 3"}  # its own file changed, and the overlay does not fit any more
    assert device.set(NIGHT).state == "failed"


def test_same_revision_with_other_values_is_refused(device):
    device.set(NIGHT)
    with pytest.raises(RefusedFragmentError, match="publish a newer revision"):
        device.set(replace(NIGHT, values={"recognition": {"min_looks": 1}}))


def test_damaged_overlay_is_replaced(device):
    device.set(NIGHT)
    overlay_path(device.state_dir).write_bytes(b"{")
    assert device.set(DAY).state == "done"
    overlay_path(device.state_dir).write_bytes(b"{")
    assert device.set(None).state == "done"
    assert not overlay_path(device.state_dir).exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"runs": False}, "edge is not running"),
        ({"knows_overlays": False}, "edge is of an earlier version"),
        ({"why_not": "overlay night-mode 3: no camera is enabled"}, "no camera is enabled"),
    ],
)
def test_overlay_that_cannot_be_tried_changes_nothing(device, changes, told):
    for name, value in changes.items():
        setattr(device, name, value)
    with pytest.raises(RefusedFragmentError, match=told):
        device.set(NIGHT)
    assert not list(device.state_dir.rglob("*.json"))


def test_one_trial_at_a_time(device):
    device.trials().begin(NIGHT, "r-1", TRIAL_S)
    with pytest.raises(RefusedFragmentError, match="a configuration is on trial"):
        device.trials().begin(DAY, "r-2", TRIAL_S)


def test_no_trial_while_a_release_is_on_trial(device, monkeypatch):
    pointer = ActivePointer.model_construct(slot="a", bundle_id="one", gallery="g", trial="t-1")
    monkeypatch.setattr(command, "read_pointer_or_none", lambda _: (pointer, None))
    with pytest.raises(RefusedFragmentError, match="a release is on trial"):
        device.set(NIGHT)


# An agent that starts again


def test_agent_that_starts_again_goes_on(device):
    device.trials().begin(NIGHT, "r-1", TRIAL_S)
    device.now_s += TRIAL_S / 2
    trial = device.trials().resume()
    assert trial is not None
    assert trial.request == "r-1"
    assert device.trials().watch(trial).state == "done"
    assert device.now_s < 1000.0 + TRIAL_S + 2


def test_trial_whose_end_nobody_saw_is_taken_back(device):
    device.trials().begin(NIGHT, "r-1", TRIAL_S)
    device.now_s += TRIAL_S
    assert device.go_on() is None
    assert device.in_use() == (None, None)


def test_machine_may_start_once_during_a_trial(device):
    device.trials().begin(NIGHT, "r-1", TRIAL_S)
    device.reboot(2)
    assert device.trials().resume() is not None
    device.reboot(3)
    assert device.go_on() is None
    assert device.in_use() == (None, None)


def test_leftovers_of_no_trial_are_removed(device):
    ConfigFiles(device.state_dir).propose(NIGHT)
    assert device.go_on() is None
    assert not list(device.state_dir.rglob("*.json"))


# The whole command


class SignedShop:
    """A signed repository of the line shop with one fragment, and what a command may use of a device."""

    def __init__(self, folder: Path) -> None:
        self.repository = SignedFolder(folder / "repo")
        self.client = SignedDevice(folder / "state/trust", self.repository).client()
        self.rung: list[int] = []

    def publish(self, one: ConfigFragment) -> None:
        self.repository.add(config_target("shop", one.name), canonical_json(one))
        self.repository.publish("rollout")

    def context(self, device: PlayedDevice) -> Context:
        return Context(
            device.state_dir,
            "cam-001",
            "shop",
            LABELS,
            ALL.model_copy(update={"config_trial_s": TRIAL_S}),
            None,
            ring=lambda: self.rung.append(1),
            hold=lambda *_: None,
            prove=lambda *_: [],
            prove_new=lambda *_: [],
            source=_Source(self.client),  # type: ignore[arg-type]
        )


class _Source:
    def __init__(self, client: object) -> None:
        self.client = client


@pytest.fixture
def shop(tmp_path: Path, device: PlayedDevice, monkeypatch) -> SignedShop:
    monkeypatch.setattr(command, "real_world", lambda *_: device.world())
    return SignedShop(tmp_path)


def test_command_takes_a_signed_fragment(shop, device):
    shop.publish(fragment())
    begun = command.config(request(name="night-mode", revision=3), shop.context(device))
    assert begun.watch is not None
    assert begun.watch().state == "done"
    assert current(device.state_dir) == "night-mode 3"
    assert shop.rung
    again = command.config(request(name="night-mode"), shop.context(device))
    assert (again.state, again.text) == ("done", "the device has night-mode 3 already")
    removed = command.config(request(name=None), shop.context(device))
    assert removed.watch is not None
    assert removed.watch().state == "done"
    assert current(device.state_dir) is None


def test_command_refuses_what_is_older_than_the_device_saw(shop, device):
    shop.publish(fragment(revision=5))
    command.config(request(name="night-mode"), shop.context(device))
    device.go_on()
    shop.publish(fragment(revision=4))
    with pytest.raises(SyncError, match=r"revision 4 of rollout/shop\.config\.night-mode\.json is older"):
        command.config(request(name="night-mode"), shop.context(device))


def test_refusal_is_an_answer(shop, device):
    shop.publish(fragment(selector=parse_selector("group=other")))
    refused = command.config(request(name="night-mode"), shop.context(device))
    assert (refused.state, refused.watch) == ("refused", None)
    assert "is not selected" in refused.text
    refused = command.config(request(), shop.context(device))
    assert refused.state == "refused"


def test_command_from_the_mailbox_is_accepted_then_done(shop, device):
    shop.publish(fragment())
    hands = HandsDevice(device.state_dir, {one.verb: one for one in command.CONFIG_COMMANDS})
    hands.context = shop.context(device)
    hands.start()
    hands.send("config", request_bytes(name="night-mode"))
    hands.finish(2)
    assert hands.post.states() == ["accepted", "done"]
    assert hands.post.answered[-1]["text"] == "night-mode 3 is in use, and all cameras are back"


def test_trial_goes_on_after_a_restart_of_the_agent(shop, device):
    shop.publish(fragment())
    begun = command.config(request(name="night-mode"), shop.context(device))
    assert begun.watch is not None
    left = command.left_over(device.state_dir, None)
    assert left is not None
    assert left[0] == "r-1"
    assert left[1]().state == "done"


# The check of a child process


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "device.yaml"
    path.write_text("cameras: {door: {source: 'rtsp://u:hunter2@cam/1'}}\nmqtt: {password: '${BROKER_PASSWORD}'}\n")
    return path


def test_child_process_checks_an_overlay_over_the_own_file(tmp_path, own_file):
    overlay = tmp_path / "candidate.json"
    overlay.write_bytes(overlay_bytes(NIGHT))
    assert why_not_fit(overlay, tmp_path, own_file) is None
    overlay.write_bytes(overlay_bytes(Overlay("night-mode", 3, {"cameras": {"roof": {"max_px": 640}}})))
    why = why_not_fit(overlay, tmp_path, own_file)
    assert why == "overlay night-mode 3: cameras.roof.source: this key is missing; add it"


def test_without_the_own_file_nothing_fits(tmp_path):
    assert "does not know the device's own file" in (why_not_fit(tmp_path / "x.json", tmp_path, None) or "")
    assert "cannot read" in (why_not_fit(tmp_path / "x.json", tmp_path, tmp_path / "none.yaml") or "")


def test_candidate_of_no_overlay_sets_nothing(device):
    device.set(NIGHT)
    device.set(None)
    assert json.loads(device.checked[-1])["values"] == {}
