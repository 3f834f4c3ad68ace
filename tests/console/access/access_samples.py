"""Users, passwords that cost nothing, and a clock, for tests of who may do what."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from console.access.audit import TABLES as AUDIT
from console.access.gate import Gate
from console.access.passwords import Passwords
from console.access.schema import TABLES as ACCESS
from console.access.sessions import Client
from console.access.users import add_user
from console.storage.database import open_database

PASSWORD = "correct horse battery"
HERE = Client("192.0.2.7", "a browser")


@dataclass
class Clock:
    """A clock that stands still until a test moves it."""

    now_s: float = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now_s


def cheap_passwords() -> Passwords:
    """Hash with argon2 at its lowest cost: this test is not about guessing."""
    return Passwords(PasswordHash((Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1),)))


PASSWORDS = cheap_passwords()
HASH = PASSWORDS.hash(PASSWORD)


class Door:
    """A gate with its database and clock."""

    def __init__(self, folder, token="the printed token"):
        self.clock = Clock()
        self.database = open_database(folder, (AUDIT, ACCESS))
        self.gate = Gate(self.database, token, PASSWORDS, self.clock)

    def add(self, name, role="admin"):
        with self.database.write() as connection:
            return add_user(connection, self.clock(), "test", name, role, HASH)

    def do(self, act, *arguments, **more):
        """Call something that writes: act(connection, ...)."""
        with self.database.write() as connection:
            return act(connection, *arguments, **more)

    def see(self, look, *arguments):
        """Call something that reads: look(rows, ...)."""
        with self.database.read() as rows:
            return look(rows, *arguments)

    def who(self, cookie="", **headers):
        return self.gate.identify(headers, cookie)


@contextlib.contextmanager
def door(folder, **more):
    """Open a gate."""
    opened = Door(folder, **more)
    try:
        yield opened
    finally:
        opened.database.close()
