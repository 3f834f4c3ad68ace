"""Hashes passwords with argon2. The only module that imports pwdlib.

Rules this module keeps:
1. An unknown user takes as long as a wrong password, so that nobody learns names from the time.
2. Few hashes are made at once: each takes 64 MiB.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from pwdlib import PasswordHash
from pwdlib.exceptions import PwdlibError

from edge.errors import ConsoleError

SHORTEST, LONGEST = 10, 200  # characters
_AT_ONCE, _WAIT_S = 2, 20.0


class Passwords:
    """Hashes passwords, and compares them with hashes. Any thread may use it."""

    def __init__(self, method: PasswordHash | None = None) -> None:
        """Choose how to hash; None: argon2 as pwdlib recommends it."""
        self._method = method or PasswordHash.recommended()
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self._of_nobody: str | None = None

    def hash(self, password: str) -> str:
        """Return what to store of a password.

        Raises:
            ConsoleError: it is too short or too long, or too many are waiting.
        """
        check_password(password)
        with self._turn():
            return self._method.hash(password)

    def match(self, password: str, stored: str | None) -> bool:
        """Return whether a password is the stored one; None: of no user.

        Raises:
            ConsoleError: too many are waiting.
        """
        with self._turn():
            self._of_nobody = self._of_nobody or self._method.hash("the password of nobody")
            try:
                is_right = self._method.verify(password[:LONGEST], stored or self._of_nobody)
            except (PwdlibError, ValueError):  # a damaged row
                return False
        return is_right and stored is not None and len(password) <= LONGEST

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._turns.acquire(timeout=_WAIT_S):
            raise ConsoleError("busy", "too many people log in at once; try again in a minute")
        try:
            yield
        finally:
            self._turns.release()


def check_password(password: str) -> None:
    """Check that a new password can be one.

    Raises:
        ConsoleError: it is too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise ConsoleError(
            "invalid", f"a password has {SHORTEST} to {LONGEST} characters; this one has {len(password)}"
        )
