"""The door to hawkBit: limits, addresses, tokens; and an adapter that is killed at each request."""

from __future__ import annotations

import json

import pytest

from edge.bundle.active_pointer import ActivePointer, ReleaseName, write_active_pointer
from edge.errors import SyncError
from gallery_sync.adapters.device_view import Named
from gallery_sync.adapters.hawkbit import Adapter
from gallery_sync.adapters.hawkbit_client import open_client
from gallery_sync.adapters.hawkbit_doors import World
from gallery_sync.adapters.hawkbit_messages import ReleaseFile
from gallery_sync.adapters.oci_layout import ref_of
from tests.gallery_sync.adapters.ddi_server import CONTROLLER, ROOT, TENANT, TOKEN, hawkbit

RELEASE_2 = b'{"line":"demo","sequence":2}'


@pytest.fixture
def server():
    with hawkbit() as running:
        yield running


@pytest.fixture
def client(server):
    return open_client(server.url, TENANT, CONTROLLER, ("TargetToken", TOKEN))


def test_answer_that_is_too_large_is_refused(server, client):
    server.fails = [b" " * (2 << 20)]
    with pytest.raises(SyncError, match="larger than"):
        client.poll()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_not_followed(server, client, status):
    server.fails = [status]
    with pytest.raises(SyncError, match="redirects; give its final address"):
        client.poll()
    assert len(server.requests) == 1


def test_file_with_another_hash_is_refused(server, client):
    server.assign(7, b'{"line":"demo","sequence":9}')
    with pytest.raises(SyncError, match="SHA-256"):
        client.release_file(ReleaseFile("23", ref_of(RELEASE_2)))


def test_file_names_a_release_also_as_the_signed_document_does(server, client):
    data = b'{"schema":2,"line":"demo","sequence":2,"bundle_id":"two","gallery_sequence":3}'
    server.assign(7, data)
    assert client.release_file(ReleaseFile("23", ref_of(data))) == Named(line="demo", sequence=2)


def test_names_become_one_part_of_the_address(server):
    client = open_client(f"{server.url}/prefix/", "a b", "c?d", ("TargetToken", TOKEN))
    with pytest.raises(SyncError, match="404"):
        client.poll()
    assert server.requests == ["GET /prefix/a%20b/controller/v1/c%3Fd"]


@pytest.mark.parametrize(
    ("url", "controller", "token", "reason"),
    [
        ("https://user:pass@hawkbit.example.com", "c", TOKEN, "a user, a password or a query"),
        ("ftp://hawkbit.example.com", "c", TOKEN, "not a valid URL"),
        ("https://hawkbit.example.com", "../c", TOKEN, "is no name"),
        ("https://hawkbit.example.com", "c", "", "there is no token"),
        ("https://hawkbit.example.com", "c", "a\r\nX: y", "there is no token"),
    ],
)
def test_wrong_options_are_told(url, controller, token, reason):
    with pytest.raises(SyncError, match=reason):
        open_client(url, TENANT, controller, ("TargetToken", token))


def test_server_that_is_away_is_one_error(server, client):
    server.server_close()
    with pytest.raises(SyncError, match="no answer"):
        client.poll()


def test_feedback_of_an_action_that_is_over_is_no_error(server, client):
    server.assign(7, RELEASE_2, status="FINISHED")
    assert not client.tell("7", "closed", "failure", "too late")
    assert not client.answer_cancel("7", "closed", "success", "too late")
    assert not client.tell("8", "proceeding", "none", "never known")
    server.fails = [503]
    with pytest.raises(SyncError, match="503"):
        client.tell("7", "closed", "failure", "later")


def test_result_is_kept_until_it_is_sent(tmp_path, server, client):
    play(tmp_path, "idle", 1)
    action = server.assign(7, RELEASE_2)
    adapter = Adapter(client, tmp_path, 1e5, World(lambda: 0.0))
    adapter.turn()
    play(tmp_path, "idle", 1, "rolled back")
    server.fails = [503]
    with pytest.raises(SyncError):
        adapter.turn()
    (tmp_path / "agent.json").unlink()
    Adapter(client, tmp_path, 1e5, World(lambda: 0.0)).turn()
    assert (action.status, action.history[-1][:2]) == ("ERROR", ("closed", "failure"))


class KilledError(BaseException):
    """The process ends here."""


class Killed:
    """A client whose process is killed before or after one of its requests."""

    def __init__(self, client, left, *, after):
        self.client, self.left, self.after = client, left, after

    def __getattr__(self, name):
        def ask(*arguments):
            self.left -= 1
            if self.left == 0 and not self.after:
                raise KilledError
            answer = getattr(self.client, name)(*arguments)
            if self.left == 0:
                raise KilledError
            return answer

        return ask


def play(state_dir, state, sequence, outcome=None):
    """Write what an agent would, in the middle of release 2 or at its end."""
    last = {"at": 1.0, "line": "demo", "sequence": 2, "outcome": outcome, "trial": "t"} if outcome else None
    report = {"state": state, "release": {"line": "demo", "sequence": 2}, "last": last}
    (state_dir / "agent.json").write_text(json.dumps(report))
    release = ReleaseName(line="demo", sequence=sequence)
    write_active_pointer(state_dir, ActivePointer(slot="a", bundle_id="b", gallery="0" * 16, release=release))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("outcome", ["confirmed", "rolled back"])
def test_adapter_killed_at_each_request_answers_once(tmp_path, server, client, outcome, after):
    requests = 0
    for killed_at in range(1, 20):
        state_dir, now = tmp_path / str(killed_at), [0.0]
        state_dir.mkdir()
        play(state_dir, "idle", 1)
        action = server.assign(killed_at, RELEASE_2)
        dying = Killed(client, killed_at, after=after)
        adapter = Adapter(dying, state_dir, 1e5, World(lambda now=now: now[0]))
        for number in range(8):
            if number == 2:
                play(state_dir, "idle", 2 if outcome == "confirmed" else 1, outcome)
            try:
                adapter.turn()
            except KilledError:
                adapter = Adapter(client, state_dir, 1e5, World(lambda now=now: now[0]))
            now[0] += 60.0
        assert action.status == ("FINISHED" if outcome == "confirmed" else "ERROR"), killed_at
        assert [one for one, *_ in action.history].count("closed") == 1
        requests = max(requests, killed_at - dying.left)
        if dying.left > 0:
            break
    assert requests >= 5
    assert server.count(f"GET {ROOT}/deploymentBase") > 0
