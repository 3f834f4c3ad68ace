"""The verbs of `edge-console` for whoever runs the server: users, tokens, backups. A running console sees what they do.

Rules this module keeps:
1. A password comes from the terminal or from standard input, never from the command line, where others could read it.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from console.access.roles import ROLES
from console.storage.database import FILE, Database, open_database
from edge.errors import ConsoleError

BY = "terminal"  # in the audit log


def add_verbs(verbs: Any, add_data: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the verbs `user`, `token`, `backup` and `restore`."""
    user = verbs.add_parser("user", help="who may log in").add_subparsers(dest="action", required=True)
    add = user.add_parser("add", help="add a user; the first one is an admin")
    _add_name(add)
    add.add_argument("--role", choices=ROLES, required=True, help="what the user may do")
    _add_password(add)
    listed = user.add_parser("list", help="show all users")
    password = user.add_parser("password", help="set a password, and end the sessions of the user")
    _add_name(password)
    _add_password(password)
    role = user.add_parser("role", help="change what a user may do")
    _add_name(role)
    role.add_argument("role", choices=ROLES, metavar="ROLE", help=", ".join(ROLES))
    remove = user.add_parser("remove", help="remove a user with all sessions and tokens")
    _add_name(remove)
    token = verbs.add_parser("token", help="tokens for programs").add_subparsers(dest="action", required=True)
    add_token = token.add_parser("add", help="make a token, and print it once")
    _add_name(add_token)
    add_token.add_argument("--name", dest="token_name", metavar="TEXT", required=True, help="what it is for")
    add_token.add_argument("--role", choices=ROLES, default="viewer", help="(default: viewer)")
    add_token.add_argument("--days", type=int, default=90, help="it ends after so many (default: 90)")
    list_tokens = token.add_parser("list", help="show all tokens, without their secrets")
    remove_token = token.add_parser("remove", help="remove a token")
    remove_token.add_argument("id", type=int, metavar="ID", help="as `token list` shows it")
    backup = verbs.add_parser("backup", help="copy the database to a new file; a console may run meanwhile")
    backup.add_argument("file", type=Path, metavar="FILE", help="a new file")
    restored = verbs.add_parser("restore", help="put a backup in the place of the database, which is kept")
    restored.add_argument("file", type=Path, metavar="FILE", help="a backup")
    for one in (add, listed, password, role, remove, add_token, list_tokens, remove_token, backup, restored):
        add_data(one)


def run(arguments: argparse.Namespace) -> None:
    """Run one of the verbs.

    Raises:
        ConsoleError: it cannot be done.
    """
    acts = {
        ("user", "add"): _add_user,
        ("user", "list"): _list_users,
        ("user", "password"): _set_password,
        ("user", "role"): _set_role,
        ("user", "remove"): _remove_user,
        ("token", "add"): _add_token_of,
        ("token", "list"): _list_tokens,
        ("token", "remove"): _remove_token,
        ("backup", None): _back_up,
        ("restore", None): _restore,
    }
    acts[arguments.verb, getattr(arguments, "action", None)](arguments)


def _add_user(arguments: argparse.Namespace) -> None:
    from console.access.passwords import Passwords
    from console.access.users import add_user

    hashed = Passwords().hash(_read_password(is_from_stdin=arguments.password_stdin))
    with _writing(arguments, is_new=True) as connection:
        add_user(connection, time.time(), BY, arguments.name, arguments.role, hashed)
    print(f"{arguments.name} may log in as {arguments.role}")


def _list_users(arguments: argparse.Namespace) -> None:
    from console.access.users import list_users

    with _database(arguments) as database, database.read() as rows:
        for one in list_users(rows):
            seen = f"last seen {_day(one.seen_at)}" if one.seen_at else "not logged in"
            print(f"{one.name:20} {one.role:10} added {_day(one.created_at)}, {seen}, {one.tokens} tokens")


def _set_password(arguments: argparse.Namespace) -> None:
    from console.access.passwords import Passwords
    from console.access.users import find_user, set_password

    with _database(arguments) as database, database.read() as rows:
        find_user(rows, arguments.name)  # before somebody types a password
    hashed = Passwords().hash(_read_password(is_from_stdin=arguments.password_stdin))
    with _writing(arguments) as connection:
        account = set_password(connection, time.time(), BY, arguments.name, hashed)
    print(f"{account.name} has a new password, and is logged out everywhere")


def _set_role(arguments: argparse.Namespace) -> None:
    from console.access.users import role_named, set_role

    with _writing(arguments) as connection:
        account = set_role(connection, time.time(), BY, arguments.name, role_named(arguments.role))
    print(f"{account.name} is {account.role} now")


def _remove_user(arguments: argparse.Namespace) -> None:
    from console.access.users import remove_user

    with _writing(arguments) as connection:
        account = remove_user(connection, time.time(), BY, arguments.name)
    print(f"{account.name} is removed, with {account.sessions} sessions and {account.tokens} tokens")


def _add_token_of(arguments: argparse.Namespace) -> None:
    from console.access.tokens import add_token
    from console.access.users import find_user, role_named

    with _writing(arguments) as connection:
        user = find_user(connection, arguments.name)
        role = role_named(arguments.role)
        token = add_token(connection, time.time(), BY, user.id, arguments.token_name, role, arguments.days)
    print(token)
    print("edge-console: this token is shown once; keep it like a password", file=sys.stderr)


def _list_tokens(arguments: argparse.Namespace) -> None:
    from console.access.tokens import list_tokens

    with _database(arguments) as database, database.read() as rows:
        for one in list_tokens(rows):
            used = f"used {_day(one.used_at)}" if one.used_at else "never used"
            print(f"{one.id:5} {one.user:20} {one.role:10} until {_day(one.expires_at)}, {used}: {one.name}")


def _remove_token(arguments: argparse.Namespace) -> None:
    from console.access.tokens import remove_token

    with _writing(arguments) as connection:
        name = remove_token(connection, time.time(), BY, None, arguments.id)
    print(f"the token {name} is removed")


def _back_up(arguments: argparse.Namespace) -> None:
    from console.storage.backup import back_up

    size = back_up(arguments.data.absolute(), arguments.file)
    print(f"{arguments.file}: {size:,} bytes. Pictures and training runs are not part of it; copy their folders, too.")


def _restore(arguments: argparse.Namespace) -> None:
    from console.access.audit import record
    from console.storage.backup import restore

    kept = restore(arguments.data.absolute(), arguments.file)
    with _writing(arguments) as connection:
        record(connection, time.time(), BY, "restore", f"backup {arguments.file.name}")
    print(f"{arguments.data}: restored; everybody logs in again")
    if kept is not None:
        print(f"the replaced database is {kept}")


def _read_password(*, is_from_stdin: bool) -> str:
    """Return a password; on the terminal, it is typed twice and not shown."""
    if is_from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise ConsoleError("invalid", "the two passwords differ; try again")
    return password


@contextlib.contextmanager
def _database(arguments: argparse.Namespace, *, is_new: bool = False) -> Iterator[Database]:
    from console.tables import TABLES

    if not is_new and not (arguments.data / FILE).is_file():
        raise ConsoleError("missing", f"{arguments.data}: no console has run with this folder; give its --data")
    with contextlib.closing(open_database(arguments.data.absolute(), TABLES)) as database:
        yield database


@contextlib.contextmanager
def _writing(arguments: argparse.Namespace, *, is_new: bool = False) -> Iterator[Any]:
    with _database(arguments, is_new=is_new) as database, database.write() as connection:
        yield connection


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the user")


def _add_password(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--password-stdin", action="store_true", help="read it from standard input (default: ask on the terminal)"
    )


def _day(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, timezone.utc).strftime("%Y-%m-%d")
