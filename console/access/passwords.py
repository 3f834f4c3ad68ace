"""Hashes passwords with argon2. The only module that imports pwdlib."""

from __future__ import annotations

from pwdlib import PasswordHash

_HASH = PasswordHash.recommended()


def hash_password(password: str) -> str:
    """Return what to store of a password."""
    return _HASH.hash(password)


def password_matches(password: str, stored: str) -> bool:
    """Return whether a password is the stored one."""
    return _HASH.verify(password, stored)
