"""A device becomes one of a fleet: from a file, a QR code's text or a claim token, and is taken over or replaced."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import SyncError
from gallery_sync.enrolment import sealed
from gallery_sync.enrolment.batch import Batch, BrokerAddress, make_batch, read_repository
from gallery_sync.enrolment.broker_accounts import new_account
from gallery_sync.enrolment.device_files import enrol, read_enrolment
from gallery_sync.enrolment.document import LARGEST_TEXT, read_text
from gallery_sync.enrolment.fetch import from_claim, from_file, from_text
from gallery_sync.transport.download import Fetcher, Retry
from gallery_sync.transport.errors import StorageError
from gallery_sync.transport.repository_files import FolderTransport, HttpTransport
from gallery_sync.trust.client import TrustedClient
from gallery_sync.trust.errors import MetadataError, RolledBackError
from gallery_sync.trust.floors import Floors
from tests.sync_server import answer, serving
from tests.trust_samples import START, SignedFolder

ONCE = Retry(1, lambda _: None, lambda: 0.0)


@pytest.fixture
def signed(tmp_path) -> SignedFolder:
    """A signed repository of the line `shop`."""
    made = SignedFolder(tmp_path / "repo")
    (made.folder / "repository.json").write_text('{"line": "shop", "policy": "offline"}')
    return made


@pytest.fixture
def rows(tmp_path, signed) -> list[dict[str, str]]:
    """The list of a batch of two devices with claims."""
    url = f"file://{signed.folder}"
    batch = Batch(url, ["cam-1", "cam-2"], "store", BrokerAddress("broker", 1883, tls=False), claims=True)
    return make_batch(read_repository(signed.folder), batch, tmp_path / "batch", new_account)


@pytest.fixture
def state(tmp_path) -> Path:
    """The state folder of a new device."""
    return tmp_path / "state"


def file_of(tmp_path, device_id):
    return from_file(tmp_path / f"batch/{device_id}.json")


def fetcher(signed):
    return Fetcher(FolderTransport(signed.folder), Path("/nowhere"), ONCE)


def client_of(state, signed, now=START):
    trust = state / "trust"
    root = (trust / "root").read_bytes()
    return TrustedClient(trust, root, FolderTransport(signed.folder), Floors(trust), now=lambda: now, retry=ONCE)


def test_device_is_enrolled_from_a_file(tmp_path, rows, state, signed):
    enrolled = enrol(state, file_of(tmp_path, "cam-1"))
    assert (enrolled.device_id, enrolled.line, enrolled.group, enrolled.root_version) == ("cam-1", "shop", "store", 1)
    found = read_enrolment(state)
    assert found is not None
    assert (found.device_id, found.policy, found.broker) == ("cam-1", "offline", None)
    assert (state / "trust/root.copy").read_bytes() == (state / "trust/root").read_bytes() == found.root.encode()
    assert client_of(state, signed).refresh().root_version == 1


def test_password_is_only_in_the_private_file(tmp_path, rows, state):
    enrolment = file_of(tmp_path, "cam-1")
    enrol(state, enrolment)
    assert enrolment.broker is not None
    holding = [
        path.name for path in state.rglob("*") if path.is_file() and enrolment.broker.password in path.read_text()
    ]
    assert holding == ["broker.env"]
    assert stat.S_IMODE((state / "broker.env").stat().st_mode) == 0o600


def test_shell_reads_the_account_of_the_broker(tmp_path, rows, state):
    enrolment = file_of(tmp_path, "cam-1")
    broker = enrolment.broker.model_copy(update={"password": 'a $HOME "b" \\c `d`'})
    enrol(state, enrolment.model_copy(update={"broker": broker}))
    command = f'. {state / "broker.env"}; printf %s "$FINESIGHT_MQTT_PASSWORD"'
    assert subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout == broker.password


def test_same_enrolment_again_is_no_change(tmp_path, rows, state):
    enrol(state, file_of(tmp_path, "cam-1"))
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    assert enrol(state, file_of(tmp_path, "cam-1")).replaced is None
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before


def test_another_identity_needs_replace(tmp_path, rows, state):
    enrol(state, file_of(tmp_path, "cam-1"))
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    with pytest.raises(SyncError, match=r"this device is cam-1 of line shop.*--replace"):
        enrol(state, file_of(tmp_path, "cam-2"))
    assert {path: path.read_bytes() for path in state.rglob("*") if path.is_file()} == before
    assert enrol(state, file_of(tmp_path, "cam-2"), replace=True).replaced == "cam-1"


def test_replacement_takes_the_id_of_the_broken_device(tmp_path, rows, signed, state):
    """The new device gets the old id with a new password, so the old one is shut out of the broker."""
    batch = Batch(f"file://{signed.folder}", ["cam-1"], "store", BrokerAddress("broker", 1883, tls=False))
    make_batch(read_repository(signed.folder), batch, tmp_path / "again", new_account)
    enrolment = from_file(tmp_path / "again/cam-1.json")
    assert enrol(state, enrolment).device_id == "cam-1"
    assert enrolment.broker.password != file_of(tmp_path, "cam-1").broker.password


def test_another_root_brings_its_own_floors(tmp_path, rows, state, signed):
    enrol(state, file_of(tmp_path, "cam-1"))
    for _ in range(5):
        signed.publish("root")
    client_of(state, signed).refresh()
    other = SignedFolder(tmp_path / "other")
    (other.folder / "repository.json").write_text('{"line": "shop"}')
    make_batch(read_repository(other.folder), Batch("https://x", ["cam-1"]), tmp_path / "new", new_account)
    enrolment = from_file(tmp_path / "new/cam-1.json")
    with pytest.raises(SyncError, match="another root of trust"):
        enrol(state, enrolment)
    enrol(state, enrolment, replace=True)
    assert client_of(state, other).refresh().root_version == 1
    assert not (state / "broker.env").exists()


def test_root_given_by_hand_is_not_written_over(tmp_path, rows, state):
    (state / "trust").mkdir(parents=True)
    (state / "trust/root").write_bytes(b"another")
    with pytest.raises(SyncError, match="trusts another root"):
        enrol(state, file_of(tmp_path, "cam-1"))


def test_device_is_enrolled_from_the_text_of_a_qr_code(rows, signed, state):
    text = read_text(rows[0]["text"].replace("&c=" + rows[0]["claim"], ""))
    enrolment = from_text(text, fetcher(signed))
    assert enrol(state, enrolment).device_id == "cam-1"
    assert (enrolment.policy, enrolment.group, enrolment.broker) == ("offline", "store", None)


def test_text_with_a_claim_brings_the_account_of_the_broker(tmp_path, rows, signed):
    assert from_text(read_text(rows[1]["text"]), fetcher(signed)) == file_of(tmp_path, "cam-2")


def test_text_without_account_keeps_that_of_the_same_device(tmp_path, rows, signed, state):
    enrol(state, file_of(tmp_path, "cam-1"))
    enrol(state, from_text(read_text(rows[0]["text"].partition("&c=")[0]), fetcher(signed)))
    assert (state / "broker.env").exists()


def test_server_with_another_root_is_refused(tmp_path, rows, signed):
    """The text on the box is the root of trust, not the server."""
    other = SignedFolder(tmp_path / "other")
    with pytest.raises(SyncError, match="do not enrol from this server"):
        from_text(read_text(rows[0]["text"].partition("&c=")[0]), fetcher(other))


def test_claim_token_gives_everything(tmp_path, rows, signed):
    assert from_claim(rows[0]["claim"], fetcher(signed)) == file_of(tmp_path, "cam-1")
    typed = " ".join(rows[0]["claim"].lower()[at : at + 4] for at in range(0, 26, 4))
    assert from_claim(typed, fetcher(signed)) == file_of(tmp_path, "cam-1")


def test_claim_for_another_device_than_the_text_is_refused(rows, signed):
    mixed = rows[0]["text"].replace(rows[0]["claim"], rows[1]["claim"])
    with pytest.raises(SyncError, match="the claim is for device cam-2"):
        from_text(read_text(mixed), fetcher(signed))


def test_changed_or_swapped_claim_opens_nothing(rows, signed):
    paths = [signed.folder / sealed.sealed_path(row["claim"]) for row in rows]
    good = paths[0].read_bytes()
    for bad in (b"", good[:10], good[:-1], good + b"x", bytes([good[0] ^ 1]) + good[1:], paths[1].read_bytes()):
        paths[0].write_bytes(bad)
        with pytest.raises(SyncError, match="does not open"):
            from_claim(rows[0]["claim"], fetcher(signed))


@pytest.mark.parametrize("status", [403, 404, 410])
def test_retired_claim_says_so(rows, signed, status):
    with serving(signed.folder) as server:
        server.faults[sealed.sealed_path(rows[0]["claim"])] = [answer(lambda _: b"", status)]
        with pytest.raises(SyncError, match="it is retired, or mistyped"):
            from_claim(rows[0]["claim"], Fetcher(HttpTransport(server.url, 5.0), Path("/nowhere"), ONCE))


@pytest.mark.parametrize("token", ["", "short", "A" * 25, "A" * 27, "!" * 26, "é" * 26, "A" * 10_000])
def test_token_that_is_none_is_refused(token):
    with pytest.raises(SyncError, match="no claim token"):
        sealed.sealed_path(token)


def test_sealed_bytes_differ_every_time():
    token = sealed.new_token()
    assert sealed.seal(b"x", token) != sealed.seal(b"x", token)
    assert sealed.unseal(sealed.seal(b"x", token), token) == b"x"


def test_old_device_is_taken_over_with_its_release_as_floor(tmp_path, rows, state, signed):
    state.mkdir()
    (state / "sync.json").write_text('{"line": "shop", "sequence": 41}')
    with pytest.raises(SyncError, match="once and for all: --adopt"):
        enrol(state, file_of(tmp_path, "cam-1"))
    assert not (state / "trust").exists()
    assert enrol(state, file_of(tmp_path, "cam-1"), adopt=True).adopted_release == 41
    assert not (state / "sync.json").exists()
    assert json.loads((state / "sync.json.adopted").read_text())["sequence"] == 41
    signed.release(40)
    with pytest.raises(RolledBackError, match="older than release 41"):
        client_of(state, signed).target("rollout/shop.json", 1 << 16)
    signed.release(42)
    assert client_of(state, signed).target("rollout/shop.json", 1 << 16) is not None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sequence": -1}', '{"line": "shop", "sequence": 9007199254740991}'])
def test_damaged_memory_of_an_old_device_becomes_no_floor(tmp_path, rows, state, signed, text):
    state.mkdir()
    (state / "sync.json").write_text(text)
    assert enrol(state, file_of(tmp_path, "cam-1"), adopt=True).adopted_release == 0
    signed.release(1)
    assert client_of(state, signed).target("rollout/shop.json", 1 << 16) is not None


def test_old_device_of_another_line_needs_replace(tmp_path, rows, state):
    state.mkdir()
    (state / "sync.json").write_text('{"line": "other", "sequence": 3}')
    with pytest.raises(SyncError, match="follows line other"):
        enrol(state, file_of(tmp_path, "cam-1"), adopt=True)
    assert enrol(state, file_of(tmp_path, "cam-1"), adopt=True, replace=True).adopted_release == 0


def test_adopting_twice_is_harmless(tmp_path, rows, state):
    state.mkdir()
    (state / "sync.json").write_text('{"line": "shop", "sequence": 41}')
    enrol(state, file_of(tmp_path, "cam-1"), adopt=True)
    assert enrol(state, file_of(tmp_path, "cam-1"), adopt=True).adopted_release is None


@pytest.mark.parametrize("how", ["zeroed", "removed", "folder"])
@pytest.mark.parametrize("name", ["enrolment.json", "trust/enrolment"])
def test_p3_damaged_enrolment_is_read_from_its_copy(tmp_path, rows, state, name, how):
    enrol(state, file_of(tmp_path, "cam-1"))
    path = state / name
    path.unlink()
    if how == "zeroed":
        path.write_bytes(b"\0" * 100)
    elif how == "folder":
        path.mkdir()
    found = read_enrolment(state)
    assert found is not None
    assert found.device_id == "cam-1"
    enrol(state, file_of(tmp_path, "cam-1"))
    assert path.is_file()


def test_p3_both_enrolments_damaged_ask_for_a_new_one(tmp_path, rows, state):
    enrol(state, file_of(tmp_path, "cam-1"))
    for name in ("enrolment.json", "trust/enrolment"):
        (state / name).write_bytes(b"\0")
    with pytest.raises(SyncError, match="enrol the device again"):
        read_enrolment(state)
    assert enrol(state, file_of(tmp_path, "cam-1"), replace=True).device_id == "cam-1"


def test_p1_interrupted_enrolment_is_finished_by_the_next(tmp_path, rows, state, monkeypatch):
    """The n-th write fails, for every n: the device is not enrolled, or wholly."""
    from gallery_sync.enrolment import device_files

    real = device_files.write_durably
    for n in range(6):
        left = [n]

        def fail(path, data, mode=0o666, left=left):
            if left[0] == 0:
                raise OSError(28, "No space left on device")
            left[0] -= 1
            real(path, data, mode)

        monkeypatch.setattr(device_files, "write_durably", fail)
        folder = state / str(n)
        try:
            enrol(folder, file_of(tmp_path, "cam-1"))
        except StorageError:
            assert not (folder / "enrolment.json").exists()
        monkeypatch.setattr(device_files, "write_durably", real)
        assert enrol(folder, file_of(tmp_path, "cam-1")).device_id == "cam-1"
    assert left == [0]  # the last one was enough for all five


def test_root_that_nobody_signed_is_refused(tmp_path, rows, state):
    import hashlib

    enrolment = file_of(tmp_path, "cam-1")
    for root in ("{}", enrolment.root.replace('"version":1', '"version":7')):
        digest = hashlib.sha256(root.encode()).hexdigest()
        with pytest.raises(SyncError, match="root of trust"):
            enrol(state, enrolment.model_copy(update={"root": root, "root_sha256": digest}))
        assert not (state / "enrolment.json").exists()


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 10_000, b"\xff", b'{"schema": 1}', b" " * (2 << 20)])
def test_file_that_is_no_enrolment_is_refused(tmp_path, data):
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(SyncError) as caught:
        from_file(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_in_one_line(text):
    for written in (text, f"finesight:enrol?{text}"):
        try:
            read_text(written)
        except SyncError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_text_names_each_field_once(rows):
    with pytest.raises(SyncError, match="twice"):
        read_text(rows[0]["text"] + "&i=cam-9")
    assert len(rows[0]["text"]) <= LARGEST_TEXT


def test_metadata_error_is_told_for_a_root_of_another_role(signed):
    from gallery_sync.trust.root_file import check_root

    with pytest.raises(MetadataError, match="expected a root of trust"):
        check_root((signed.folder / "metadata/timestamp.json").read_bytes(), "x")
