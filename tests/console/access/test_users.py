"""Users: names, roles, and the last admin."""

from __future__ import annotations

import json

import pytest

from console.access.audit import AuditQuery, find_page
from console.access.users import find_user, list_users, remove_user, set_password, set_role
from edge.errors import ConsoleError
from tests.console.access.access_samples import HASH, HERE, PASSWORD, door


def test_first_user_must_be_an_admin(tmp_path):
    with door(tmp_path) as it:
        with pytest.raises(ConsoleError, match="first user must be an admin"):
            it.add("ann", "viewer")
        it.add("ann", "admin")
        it.add("bob", "viewer")
        assert [(one.name, one.role) for one in it.see(list_users)] == [("ann", "admin"), ("bob", "viewer")]


def test_hostile_names_are_no_users(tmp_path):
    with door(tmp_path) as it:
        for name in ("", "a b", "ann\n", "../etc", "ä", "local", "Terminal", "-x", "a" * 65, "a\0b"):
            with pytest.raises(ConsoleError, match="cannot name a user"):
                it.add(name)


def test_names_differ_in_more_than_case(tmp_path):
    with door(tmp_path) as it:
        it.add("ann")
        with pytest.raises(ConsoleError) as caught:
            it.add("ANN")
        assert caught.value.reason == "conflict"


@pytest.mark.parametrize(
    "act", [lambda c, n: set_role(c, 0.0, "x", n, "viewer"), lambda c, n: remove_user(c, 0.0, "x", n)]
)
def test_last_admin_stays(tmp_path, act):
    with door(tmp_path) as it:
        it.add("ann")
        it.add("bob", "operator")
        with pytest.raises(ConsoleError, match="last admin"):
            it.do(act, "ann")
        it.do(set_role, 0.0, "ann", "bob", "admin")
        it.do(act, "ann")


def test_removed_user_is_logged_out_and_a_new_one_of_the_name_is_another(tmp_path):
    with door(tmp_path) as it:
        it.add("ann")
        old = it.add("bob", "operator")
        cookie = it.gate.log_in("bob", PASSWORD, HERE)
        assert it.who(cookie).name == "bob"
        it.do(remove_user, 0.0, "ann", "bob")
        assert it.who(cookie) is None
        assert it.add("bob", "operator") != old
        assert it.who(cookie) is None


def test_password_of_another_user_ends_all_sessions(tmp_path):
    with door(tmp_path) as it:
        it.add("ann")
        cookie = it.gate.log_in("ann", PASSWORD, HERE)
        it.do(set_password, it.clock(), "terminal", "ann", HASH)
        assert it.who(cookie) is None


def test_changes_of_users_are_recorded(tmp_path):
    with door(tmp_path) as it:
        it.add("ann")
        it.add("bob", "viewer")
        it.do(set_role, 5.0, "ann", "bob", "labeller")
        newest = it.see(find_page, AuditQuery(action="user.role")).rows[0]
        assert (newest.by, newest.target) == ("ann", "user bob")
        assert newest.details == {"before": "viewer", "role": "labeller"}
        assert HASH not in json.dumps([one.details for one in it.see(find_page, AuditQuery()).rows])


def test_unknown_user_is_said_so(tmp_path):
    with door(tmp_path) as it, pytest.raises(ConsoleError) as caught:
        it.see(find_user, "nobody")
    assert caught.value.reason == "not_found"
