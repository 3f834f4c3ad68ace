"""The verbs of `edge-console` for users, tokens and backups."""

from __future__ import annotations

import io

import pytest

from console.cli import main
from console.settings import Settings
from console.web.serve import Listen, serve
from edge.errors import ConfigError
from tests.console.access.access_samples import PASSWORD, PASSWORDS


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a verb with a text on standard input; return the exit code and what it printed."""
    monkeypatch.setattr("console.access.passwords.Passwords", lambda: PASSWORDS)

    def run(*arguments, typed=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        code = main([*arguments, "--data", str(tmp_path / "data")])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_users_are_added_listed_changed_and_removed(run):
    add = ("user", "add", "--password-stdin", "--role")
    assert run(*add, "viewer", "ann", typed=PASSWORD)[::2] == (
        1,
        "edge-console: the first user must be an admin; found the role viewer\n",
    )
    assert run(*add, "admin", "ann", typed=f"{PASSWORD}\n")[:2] == (0, "ann may log in as admin\n")
    assert run(*add, "viewer", "bob", typed=PASSWORD)[0] == 0
    assert run("user", "role", "bob", "operator")[1] == "bob is operator now\n"
    lines = run("user", "list")[1].splitlines()
    assert [line.split()[:2] for line in lines] == [["ann", "admin"], ["bob", "operator"]]
    assert run("user", "password", "bob", "--password-stdin", typed="another password")[0] == 0
    assert run("user", "remove", "bob")[0] == 0
    assert "last admin" in run("user", "remove", "ann")[2]
    assert "no user 'bob'" in run("user", "remove", "bob")[2]


@pytest.mark.parametrize("typed", ["", "short\n", "x" * 201])
def test_password_of_a_wrong_length_is_refused(run, typed):
    code, _, error = run("user", "add", "ann", "--role", "admin", "--password-stdin", typed=typed)
    assert code == 1
    assert "a password has 10 to 200 characters" in error


def test_password_is_typed_twice(run, monkeypatch):
    typed = iter([PASSWORD, "something else", PASSWORD, PASSWORD])
    monkeypatch.setattr("getpass.getpass", lambda _: next(typed))
    add = ("user", "add", "ann", "--role", "admin")
    assert "differ" in run(*add)[2]
    assert run(*add)[0] == 0


def test_password_is_no_argument(run):
    with pytest.raises(SystemExit):
        run("user", "add", "ann", "--role", "admin", "--password", PASSWORD)


def test_token_is_printed_once_and_removed(run):
    run("user", "add", "ann", "--role", "admin", "--password-stdin", typed=PASSWORD)
    code, token, _ = run("token", "add", "ann", "--name", "ci", "--role", "operator", "--days", "7")
    assert (code, token.startswith("fsc_")) == (0, True)
    listed = run("token", "list")[1]
    assert token.strip() not in listed
    assert listed.split()[:3] == ["1", "ann", "operator"]
    assert run("token", "remove", "1")[1] == "the token ci is removed\n"
    assert run("token", "remove", "1")[0] == 1
    assert "expected 1 to 366" in run("token", "add", "ann", "--name", "x", "--days", "1000")[2]


def test_backup_and_restore(run, tmp_path):
    run("user", "add", "ann", "--role", "admin", "--password-stdin", typed=PASSWORD)
    backup = str(tmp_path / "backup")
    assert run("backup", backup)[0] == 0
    assert "is there already" in run("backup", backup)[2]
    run("user", "add", "bob", "--role", "viewer", "--password-stdin", typed=PASSWORD)
    code, said, _ = run("restore", backup)
    assert (code, "replaced-1" in said) == (0, True)
    assert run("user", "list")[1].split()[0] == "ann"
    assert len(run("user", "list")[1].splitlines()) == 1


def test_console_refuses_to_listen_where_passwords_would_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"needs a user: .* and TLS"):
        serve(Settings(tmp_path), Listen("0.0.0.0", 0))
    with pytest.raises(ConfigError, match=r"key\.pem is the key of no certificate"):
        serve(Settings(tmp_path), Listen(port=0, key=tmp_path / "key.pem"))


def test_uploads_of_a_killed_console_are_deleted(tmp_path):
    settings = Settings(tmp_path)
    (settings.incoming / "left").mkdir(parents=True)
    with pytest.raises(ConfigError):
        serve(settings, Listen("0.0.0.0", 0))
    assert not settings.incoming.exists()


@pytest.mark.parametrize("verb", [("user", "list"), ("token", "list"), ("user", "remove", "ann")])
def test_folder_that_is_no_consoles_stays_empty(run, tmp_path, verb):
    code, _, said = run(*verb)
    assert (code, "no console has run with this folder" in said) == (1, True)
    assert not list(tmp_path.rglob("console.sqlite"))
