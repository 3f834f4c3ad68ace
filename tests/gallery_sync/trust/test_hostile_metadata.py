"""Oversized, endless, swapped and absurd metadata: one line of refusal, and nothing on the device changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.errors import SyncError
from gallery_sync.transport.errors import InterruptedTransferError
from gallery_sync.transport.repository_files import HttpTransport
from gallery_sync.transport.time_limits import Deadline
from gallery_sync.trust.errors import MetadataError, RolledBackError, SignatureError
from tests.sync_server import answer, cut_after, raw, redirect, serving
from tests.trust_samples import release_json

PATH = "rollout/shop.json"
NAMES = ["timestamp.json", "snapshot.json", "targets.json", "2.root.json"]


@pytest.fixture
def server(repo, device):
    """The repository on a web server, with release 2, which the device does not know."""
    repo.release(2)
    repo.publish("targets", "root")
    with serving(repo.folder) as running:
        device.transport = HttpTransport(running.url, 5.0, deadline=Deadline(20.0))
        yield running


def served(repo, name):
    """Return the path of a role's newest metadata."""
    role = name.removesuffix(".json")
    if role in ("timestamp", "2.root"):
        return f"metadata/{name}"
    return f"metadata/{repo.signed[role].version}.{name}"


def refuse(device, kind=SyncError):
    before = device.hashes()
    with pytest.raises(kind) as caught:
        device.client().refresh()
    assert "\n" not in str(caught.value)
    after = device.hashes()
    own = [name for name in before if name.endswith(("floors", "floors.copy")) or "/targets/" in name]
    assert [after[name] for name in own] == [before[name] for name in own]
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_oversized_metadata_is_refused(device, server, repo, name):
    server.faults[served(repo, name)] = [answer(lambda data: data + b" " * 6_000_000)]
    assert "limit" in refuse(device)


@pytest.mark.parametrize("name", NAMES)
def test_endless_metadata_is_refused(device, server, repo, name):
    endless = raw(b"HTTP/1.1 200 OK\r\n\r\n{", endless=b" " * (1 << 16))
    server.faults[served(repo, name)] = [endless]
    assert "limit" in refuse(device)


@pytest.mark.parametrize("name", NAMES)
def test_swapped_metadata_is_refused(device, server, repo, name):
    """Another role's valid metadata under this name."""
    other = repo.folder / served(repo, "snapshot.json" if name != "snapshot.json" else "targets.json")
    server.faults[served(repo, name)] = [answer(lambda _: other.read_bytes())]
    refuse(device)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "text",
    [b"", b"\0" * 500, b"null", b"{}", b"[" * 100_000, b"\xff\xfe", b'{"signed": 1, "signatures": 2}', b"9" * 5000],
    ids=lambda text: repr(text[:12]),
)
def test_nonsense_is_refused(device, server, repo, name, text):
    server.faults[served(repo, name)] = [answer(lambda _: text)]
    refuse(device)


@pytest.mark.parametrize("name", NAMES)
def test_changed_byte_is_refused(device, server, repo, name):
    server.faults[served(repo, name)] = [answer(lambda data: data.replace(b'"version":', b'"version":1', 1))]
    refuse(device)


@pytest.mark.parametrize("name", NAMES)
def test_half_an_answer_is_a_network_failure(device, server, repo, name):
    server.faults[served(repo, name)] = [cut_after(100)]
    refuse(device)


@pytest.mark.parametrize("name", NAMES)
def test_login_page_is_a_network_failure(device, server, repo, name):
    server.faults[served(repo, name)] = [answer(lambda _: b"<!DOCTYPE html><html>log in</html>")]
    assert "captive portal" in refuse(device)


def test_redirect_to_another_host_is_refused(device, server):
    server.faults["metadata/timestamp.json"] = [redirect("http://192.0.2.1/{path}")]
    assert "--allow-host" in refuse(device)


@pytest.mark.parametrize("status", [401, 403, 404, 410, 500, 503])
def test_missing_timestamp_tells_the_status(device, server, status):
    server.faults["metadata/timestamp.json"] = [answer(lambda _: b"", status)]
    assert str(status) in refuse(device)


@pytest.mark.parametrize("status", [403, 404])
def test_absent_next_root_means_that_there_is_none(device, server, status):
    server.faults["metadata/2.root.json"] = [answer(lambda _: b"", status)]
    assert device.client().refresh().root_version == 1


@pytest.mark.parametrize("status", [500, 502, 410])
def test_other_answers_for_the_next_root_are_failures(device, server, status):
    server.faults["metadata/2.root.json"] = [answer(lambda _: b"", status)]
    assert str(status) in refuse(device)


def test_every_second_request_may_fail(device, server):
    """N2: with retries, a server that fails now and then is enough."""
    from gallery_sync.transport.download import Retry
    from gallery_sync.trust.client import TrustedClient
    from gallery_sync.trust.floors import Floors

    class Flaky:
        base, deadline, count = device.transport.base, device.transport.deadline, 0

        def get(self, path, offset):
            self.count += 1
            if self.count % 2:
                raise InterruptedTransferError("HTTP 500", 500)
            return device.transport.get(path, offset)

    retry = Retry(3, lambda _: None, lambda: 0.0)
    client = TrustedClient(
        device.folder, device.root, Flaky(), Floors(device.folder), now=lambda: device.now, retry=retry
    )
    assert client.refresh().root_version == 2


@pytest.mark.parametrize("version", [2**53, 2**63, 2**64])
@pytest.mark.parametrize("role", ["timestamp", "targets", "models"])
def test_version_beyond_counting_is_refused(device, repo, role, version):
    """MAXINT versions, rightly signed, raise no floor and are not kept."""
    honest = repo.signed[role].version
    repo.signed[role].version = version
    repo.publish(role)
    refuse(device, MetadataError)
    repo.signed[role].version = honest
    repo.signed["timestamp"].version = repo.signed["snapshot"].version
    repo.publish(role)
    assert device.client().refresh().root_version == 1


@pytest.mark.parametrize("version", ["0", "-1", "1.5", '"2"', "null", "true", "1e3", "9" * 5000])
def test_version_that_is_no_number_is_refused(device, repo, version):
    path = repo.folder / "metadata/timestamp.json"
    repo.release(2)
    found = json.loads(path.read_text())["signed"]["version"]
    path.write_text(path.read_text().replace(f'"version":{found}}},"signatures', f'"version":{version}}},"signatures'))
    path.write_text(path.read_text().replace(f'"version":{found},"x-', f'"version":{version},"x-'))
    refuse(device)


def test_target_that_does_not_end_is_refused(device, server, repo):
    (place,) = [path for path in (repo.folder / "targets/rollout").iterdir() if path.read_bytes() == release_json(2)]
    server.faults[str(place.relative_to(repo.folder))] = [
        raw(b"HTTP/1.1 200 OK\r\n\r\n{", endless=b" " * (1 << 16)),
    ]
    client = device.client()
    client.refresh()
    with pytest.raises(SyncError, match="limit"):
        client.target(PATH, 1 << 16)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_change_of_any_file_is_refused_or_harmless(device, repo, data):
    """Whatever one byte of one file becomes, the device believes the honest repository or nothing."""
    path = data.draw(st.sampled_from(sorted((repo.folder / "metadata").iterdir())))
    good = path.read_bytes()
    position = data.draw(st.integers(0, len(good) - 1))
    bad = good[:position] + bytes([data.draw(st.integers(0, 255))]) + good[position + 1 :]
    path.write_bytes(bad)
    for name in ("timestamp.json", "snapshot.json", "targets.json"):
        device.cached(name).unlink(missing_ok=True)
    try:
        signed = device.client().target(PATH, 1 << 16)
        assert signed is not None
        assert signed.data == release_json(1)
    except (RolledBackError, SignatureError, MetadataError) as error:
        assert "\n" not in str(error)  # noqa: PT017
    finally:
        path.write_bytes(good)
