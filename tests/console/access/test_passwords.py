"""Hashes of passwords."""

from __future__ import annotations

import pytest
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from console.access.passwords import LONGEST, SHORTEST, Passwords
from edge.errors import ConsoleError
from tests.console.access.access_samples import HASH, PASSWORD, PASSWORDS


class Counting(Argon2Hasher):
    """Counts how often a password is compared: the time that a log-in takes."""

    verified = 0

    def verify(self, password, hash):  # noqa: A002  the door's name
        self.verified += 1
        return super().verify(password, hash)


def test_hash_is_argon2_of_the_password():
    assert HASH.startswith("$argon2id$")
    assert PASSWORDS.match(PASSWORD, HASH)
    assert not PASSWORDS.match("another password", HASH)


def test_unknown_user_takes_as_long_as_a_wrong_password():
    counting = Counting(time_cost=1, memory_cost=8, parallelism=1)
    passwords = Passwords(PasswordHash((counting,)))
    assert not passwords.match("wrong", None)
    assert counting.verified == 1
    assert not passwords.match("wrong", passwords.hash("a real password"))
    assert counting.verified == 2


def test_password_of_nobody_opens_nothing():
    assert not PASSWORDS.match("the password of nobody", None)


@pytest.mark.parametrize("length", [0, SHORTEST - 1, LONGEST + 1])
def test_too_short_and_too_long_passwords_are_refused(length):
    with pytest.raises(ConsoleError, match="characters"):
        PASSWORDS.hash("x" * length)


@pytest.mark.parametrize("stored", ["", "plain", "$argon2id$v=19$m=8,t=1,p=1$x$y"])
def test_damaged_hash_matches_nothing(stored):
    assert not PASSWORDS.match("", stored)
    assert not PASSWORDS.match(PASSWORD, stored)
