"""T5, T6, T7, T8: what a stolen key can do, and how it is taken back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gallery_sync.trust.errors import MetadataError, RolledBackError, SignatureError
from tests.trust_samples import START, Device, SignedFolder

PATH = "rollout/shop.json"


@pytest.fixture
def two_keys(tmp_path):
    """A repository whose root and targets need two of two keys, and its device."""
    repo = SignedFolder(tmp_path / "repo2", thresholds={"root": 2, "targets": 2})
    repo.release(1)
    device = Device(tmp_path / "trust2", repo)
    device.client().refresh()
    return repo, device


@pytest.mark.parametrize("role", ["targets", "root"])
def test_t5_one_of_two_keys_changes_nothing(two_keys, role):
    repo, device = two_keys
    thief = repo.keys[role][:1]
    repo.rotate("models" if role == "targets" else "timestamp")
    before = device.hashes()
    repo.publish(role, signers={role: thief})
    with pytest.raises(SignatureError, match="too few"):
        device.client().refresh()
    assert {name: digest for name, digest in device.hashes().items() if name in before} == before | {
        str(device.cached(name)): device.hashes()[str(device.cached(name))]
        for name in (("timestamp.json", "snapshot.json") if role == "targets" else ())
    }


def test_t5_one_key_signing_twice_is_one_key(two_keys):
    repo, device = two_keys
    repo.publish("targets", signers={"targets": [repo.keys["targets"][0]] * 2})
    with pytest.raises(SignatureError):
        device.client().refresh()


def test_t5_stolen_targets_key_is_rotated_out(two_keys):
    repo, device = two_keys
    repo.rotate("targets")
    repo.publish("root", "targets")
    assert device.client().refresh().root_version == 2


def test_t5_models_key_signs_no_release(device, repo):
    repo.release(2)
    repo.publish("rollout", signers={"rollout": repo.keys["models"]})
    client = device.client()
    client.refresh()
    with pytest.raises(SignatureError):
        client.target(PATH, 1 << 16)


def test_t6_stolen_rollout_key_cannot_sign_a_bundle(device, repo):
    """It chooses among bundles that `models` signed: a head of its own is not found."""
    repo.add("models/shop/evil.json", b"{}")
    repo.publish("models", signers={"models": repo.keys["rollout"]})
    client = device.client()
    client.refresh()
    with pytest.raises(SignatureError):
        client.target("models/shop/evil.json", 1 << 16)


def test_t6_stolen_rollout_key_cannot_go_back(device, repo):
    repo.release(50)
    device.client().target(PATH, 1 << 16)
    repo.release(49)
    with pytest.raises(RolledBackError):
        device.client().target(PATH, 1 << 16)


def test_t6_stolen_rollout_key_cannot_jump_beyond_reach(device, repo):
    repo.release(2**53 - 1)
    with pytest.raises(RolledBackError, match="rotate it"):
        device.client().target(PATH, 1 << 16)
    repo.release(2)
    assert device.client().target(PATH, 1 << 16) is not None


def test_t6_floor_of_a_stolen_rollout_key_ends_with_the_key(device, repo):
    """The thief's million releases do not stop the owner's next one."""
    repo.release(900_000)
    device.client().target(PATH, 1 << 16)
    repo.rotate("rollout")
    repo.publish("targets")
    repo.release(2)
    assert device.client().target(PATH, 1 << 16) is not None
    repo.release(1)
    with pytest.raises(RolledBackError, match="older than release 2"):
        device.client().target(PATH, 1 << 16)


@pytest.mark.parametrize("cached", [True, False])
def test_t7_three_missed_rotations_after_two_years(device, repo, cached):
    for year in (1, 2, 3):
        repo.now = START + timedelta(days=240 * year)
        repo.rotate("root", "timestamp", "snapshot", "targets", "rollout")
        for role, signed in repo.signed.items():
            signed.expires = repo.now + timedelta(days=7 if role == "timestamp" else 365)
        repo.publish("root", "targets", "models", "rollout", "gallery")
    repo.release(2)
    if not cached:
        for path in device.cached("root_history").iterdir():
            path.unlink()
    device.now = repo.now
    client = device.client()
    assert client.refresh().root_version == 4
    assert client.target(PATH, 1 << 16) is not None


def test_t7_chain_of_roots_with_a_hole_is_refused(device, repo):
    """A mirror that serves version 1 and 3 of the root, but not 2."""
    for _ in range(2):
        repo.rotate("root", "timestamp")
        repo.publish("root")
    (repo.folder / "metadata/2.root.json").unlink()
    with pytest.raises(SignatureError):
        device.client().refresh()


def test_t7_root_that_old_keys_did_not_sign_is_refused(device, repo):
    repo.rotate("root", "timestamp")
    repo.old_root = []
    repo.publish("root")
    with pytest.raises(SignatureError):
        device.client().refresh()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "models"])
@pytest.mark.parametrize("is_lost", [False, True])
def test_t8_fast_forward_is_recovered_by_new_keys(device, repo, role, is_lost):
    """A thief signs a huge version; new keys bring small ones back, with cached metadata and without."""
    version = repo.signed[role].version
    repo.signed[role].version = 2**40
    repo.publish(role)
    client = device.client()
    client.refresh()
    repo.signed[role].version = version + 1
    if is_lost:
        for name in ("timestamp.json", "snapshot.json", "targets.json"):
            device.cached(name).unlink()
    repo.publish(role)
    with pytest.raises(RolledBackError):
        device.client().refresh()
    repo.rotate("timestamp", "snapshot")
    repo.publish("root", role)
    assert device.client().refresh().root_version == 2


def test_t8_floor_is_raised_again_under_the_new_keys(device, repo):
    repo.rotate("timestamp", "snapshot")
    repo.publish("root")
    device.client().refresh()
    repo.signed["timestamp"].version = 0
    repo.publish()
    for name in ("timestamp.json", "snapshot.json"):
        device.cached(name).unlink()
    with pytest.raises(RolledBackError, match="timestamp: found version 1"):
        device.client().refresh()


def test_t8_a_key_that_is_added_drops_no_floor(device, repo):
    """Only a revoked key was stolen: an old timestamp does not come back because a second key was added."""
    repo.set_keys("timestamp", [*repo.keys["timestamp"], *repo.keys["snapshot"]])
    repo.publish("root")
    device.client().refresh()
    repo.signed["timestamp"].version = 0
    repo.publish()
    for name in ("timestamp.json", "snapshot.json"):
        device.cached(name).unlink()
    with pytest.raises(RolledBackError):
        device.client().refresh()


def test_stolen_timestamp_key_cannot_set_the_clock_for_ever(device, repo):
    """The clock floor that it signed goes with it."""
    far = START + timedelta(days=3650)
    repo.now = far
    for signed in repo.signed.values():
        signed.expires = far + timedelta(days=400)
    repo.publish()
    assert device.client().refresh().issued_at == far
    repo.now = START + timedelta(days=1)
    repo.rotate("timestamp", "snapshot")
    for signed in repo.signed.values():
        signed.expires = START + timedelta(days=90)
    repo.publish()
    device.now = START + timedelta(days=1)
    client = device.client()
    assert client.refresh().issued_at == repo.now
    assert not client.freshness().expired


def test_stolen_timestamp_key_adds_no_document(device, repo):
    """Timestamp and snapshot list versions and hashes; what they list must be signed by its own role."""
    repo.add("models/shop/evil.json", b"{}")
    repo.publish("models", signers={"models": repo.keys["timestamp"]})
    client = device.client()
    client.refresh()
    with pytest.raises(SignatureError):
        client.target("models/shop/evil.json", 1 << 16)


def test_snapshot_that_forgets_a_role_is_refused(device, repo):
    del repo.signed["snapshot"].meta["rollout.json"]
    repo.publish("models")
    with pytest.raises(MetadataError, match=r"rollout\.json"):
        device.client().refresh()
