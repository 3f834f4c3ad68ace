"""The gate: the printed token, sessions, tokens of programs, and failed attempts."""

from __future__ import annotations

import pytest

from console.access.audit import AuditQuery, find_page
from console.access.login_limits import PER_NAME, TooManyAttemptsError
from console.access.sessions import IDLE_S, LONGEST_S, browser_named, end_session, list_sessions
from console.access.tokens import add_token, list_tokens, remove_token
from console.access.users import set_role
from edge.errors import ConsoleError
from tests.console.access.access_samples import HERE, PASSWORD, door

PRINTED = "the printed token"


def test_printed_token_opens_until_there_is_a_user(tmp_path):
    with door(tmp_path) as it:
        assert it.gate.open_with_token("wrong", HERE) is None
        cookie = it.gate.open_with_token(PRINTED, HERE)
        assert (it.who(cookie).name, it.who(cookie).role) == ("local", "admin")
        assert it.who(authorization=f"Bearer {PRINTED}").role == "admin"
        it.add("ann")
        assert it.who(cookie) is None
        assert it.who(authorization=f"Bearer {PRINTED}") is None
        assert it.gate.open_with_token(PRINTED, HERE) is None


def test_withdrawn_token_opens_nothing(tmp_path):
    with door(tmp_path) as it:
        cookie = it.gate.open_with_token(PRINTED, HERE)
        it.gate.withdraw_token()
        assert it.who(cookie) is None
        assert it.gate.open_with_token(PRINTED, HERE) is None


def test_session_ends_when_idle_and_after_its_longest_time(tmp_path):
    with door(tmp_path) as it:
        it.add("ann")
        cookie = it.gate.log_in("ann", PASSWORD, HERE)
        began_s = it.clock()
        while it.clock() - began_s < LONGEST_S - IDLE_S / 2:
            assert it.who(cookie).name == "ann"
            it.clock.now_s += IDLE_S / 2
        it.clock.now_s = began_s + LONGEST_S + 1
        assert it.who(cookie) is None
        other = it.gate.log_in("ann", PASSWORD, HERE)
        it.clock.now_s += IDLE_S + 1
        assert it.who(other) is None


def test_full_disk_keeps_nobody_out(tmp_path, monkeypatch, caplog):
    with door(tmp_path) as it:
        it.add("ann")
        cookie = it.gate.log_in("ann", PASSWORD, HERE)
        token = it.do(add_token, it.clock(), "ann", 1, "ci", "viewer", 30)
        it.clock.now_s += 1000

        def full():
            raise ConsoleError("storage", "disk full")

        monkeypatch.setattr(it.database, "write", full)
        assert it.who(cookie).name == "ann"
        assert it.who(authorization=f"Bearer {token}").name == "ann"
        assert len(caplog.records) == 2


def test_cookie_is_not_in_the_database(tmp_path):
    with door(tmp_path) as it:
        it.add("ann")
        cookie = it.gate.log_in("ann", PASSWORD, HERE)
        token = it.do(add_token, it.clock(), "ann", 1, "ci", "viewer", 30)
        stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert cookie.encode() not in stored
        assert token.encode() not in stored
        assert PASSWORD.encode() not in stored


def test_user_ends_own_sessions_only(tmp_path):
    with door(tmp_path) as it:
        ann, bob = it.add("ann"), it.add("bob", "viewer")
        cookie = it.gate.log_in("ann", PASSWORD, HERE)
        session = it.see(list_sessions, it.clock(), ann)[0]
        assert (session.address, session.agent) == (HERE.address, HERE.agent)
        with pytest.raises(ConsoleError):
            it.do(end_session, bob, session.id)
        it.do(end_session, ann, session.id)
        assert it.who(cookie) is None


def test_log_out_ends_the_session(tmp_path):
    with door(tmp_path) as it:
        it.add("ann")
        cookie = it.gate.log_in("ann", PASSWORD, HERE)
        it.gate.log_out(it.who(cookie))
        assert it.who(cookie) is None


def test_changed_role_counts_at_once(tmp_path):
    with door(tmp_path) as it:
        it.add("ann")
        bob = it.add("bob", "operator")
        cookie = it.gate.log_in("bob", PASSWORD, HERE)
        token = it.do(add_token, it.clock(), "bob", bob, "ci", "operator", 30)
        it.do(set_role, it.clock(), "ann", "bob", "viewer")
        assert it.who(cookie).role == "viewer"
        assert it.who(authorization=f"bearer {token}").role == "viewer"


def test_token_may_not_do_more_than_its_user(tmp_path):
    with door(tmp_path) as it:
        it.add("ann")
        bob = it.add("bob", "labeller")
        with pytest.raises(ConsoleError, match="may not be operator"):
            it.do(add_token, it.clock(), "bob", bob, "ci", "operator", 30)


def test_token_ends_and_is_removed(tmp_path):
    with door(tmp_path) as it:
        ann = it.add("ann")
        first = it.do(add_token, it.clock(), "ann", ann, "ci", "viewer", 1)
        second = it.do(add_token, it.clock(), "ann", ann, "other", "viewer", 300)
        assert it.who(authorization=f"Bearer {first}").role == "viewer"
        it.clock.now_s += 86401
        assert it.who(authorization=f"Bearer {first}") is None
        found = it.see(list_tokens, ann)
        assert [(one.name, one.used_at is None) for one in found] == [("other", True), ("ci", False)]
        it.do(remove_token, it.clock(), "ann", ann, found[0].id)
        assert it.who(authorization=f"Bearer {second}") is None


def test_authorization_header_decides_alone(tmp_path):
    with door(tmp_path) as it:
        it.add("ann")
        cookie = it.gate.log_in("ann", PASSWORD, HERE)
        for header in ("Bearer wrong", "Basic YW5uOmFubg==", "", "Bearer " + "x" * 10_000, "Bearer \ud800"):
            assert it.who(cookie, authorization=header) is None


def test_hostile_cookies_are_nobody(tmp_path):
    with door(tmp_path) as it:
        it.add("ann")
        for cookie in ("x", "\ud800", "é" * 50, "a" * 100_000, "'; DROP TABLE users; --"):
            assert it.who(cookie) is None


def test_wrong_passwords_are_counted_recorded_and_limited(tmp_path):
    with door(tmp_path) as it:
        it.add("ann")
        for _ in range(PER_NAME):
            with pytest.raises(ConsoleError, match="the name or the password is wrong"):
                it.gate.log_in("ann", "wrong", HERE)
        with pytest.raises(TooManyAttemptsError, match=r"wait \d+ minutes"):
            it.gate.log_in("ann", PASSWORD, HERE)
        assert it.gate.counters.snapshot() == {'log_ins{result="limited"}': 1, 'log_ins{result="wrong"}': PER_NAME}
        rows = it.see(find_page, AuditQuery(action="login.failed")).rows
        assert len(rows) == PER_NAME
        assert rows[0].details == {"address": HERE.address, "name": "ann"}
        it.clock.now_s += 901
        assert it.who(it.gate.log_in("ann", PASSWORD, HERE)).name == "ann"


def test_unknown_user_gets_the_same_answer(tmp_path):
    with door(tmp_path) as it:
        it.add("ann")
        texts = set()
        for name in ("ann", "nobody"):
            with pytest.raises(ConsoleError) as caught:
                it.gate.log_in(name, "wrong", HERE)
            texts.add((str(caught.value), caught.value.reason))
        assert len(texts) == 1


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Safari/604.1", "Safari on iPhone"),
        ("", "unknown"),
        ("<b>x</b>", "<b>x</b>"),
    ],
)
def test_browser_is_named_as_people_know_it(agent, name):
    assert browser_named(agent) == name
