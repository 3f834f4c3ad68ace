"""The gate of the console: who sends a request, and how they log in.

Rules this module keeps:
1. A request with an Authorization header is judged by that alone; its cookie does not count.
2. The printed token opens the console while there is no user, and never after that.
3. Users, roles, sessions and tokens are read from the database with each request: a change counts at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from console.access import audit, users
from console.access.login_limits import LoginLimits, TooManyAttemptsError
from console.access.passwords import Passwords
from console.access.roles import ROLES, Role, User
from console.access.sessions import SEEN_EVERY_S, Client, begin_session, find_session, hash_of
from console.access.tokens import USED_EVERY_S, find_token
from console.storage.database import Database
from edge.errors import ConsoleError
from edge.http_server.access import token_matches
from edge.telemetry.counters import Counters

__all__ = ["COOKIE", "ROLES", "Gate", "Role", "User"]

log = logging.getLogger(__name__)

COOKIE = "finesight_console"
_LONGEST_SECRET = 200  # characters


class Gate:
    """Users, sessions and tokens of a console."""

    def __init__(
        self,
        database: Database,
        token: str | None,
        passwords: Passwords | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Guard a console.

        Args:
            database: with the users.
            token: that opens it while there are no users; None: nothing does.
            passwords: how they are hashed.
            clock: Unix time, seconds.
        """
        self._database, self._token, self._clock = database, token, clock
        self.passwords = passwords or Passwords()
        self.limits = LoginLimits(clock)
        self.counters = Counters()  # log_ins by result, and what else the server refused or failed at

    def identify(self, headers: Mapping[str, str], cookie: str) -> User | None:
        """Return who sends a request; None: nobody who is known."""
        if (authorization := headers.get("authorization")) is not None:
            scheme, _, offered = authorization.partition(" ")
            return self._of_token(offered.strip()) if scheme.lower() == "bearer" else None
        return self._of_cookie(cookie) if cookie else None

    def count_users(self) -> int:
        """Return how many users there are."""
        with self._database.read() as rows:
            return users.count_users(rows)

    def withdraw_token(self) -> None:
        """Let the printed token open nothing from now on."""
        self._token = None

    def open_with_token(self, token: str, client: Client) -> str | None:
        """Return the cookie of a new session for the printed token; None where it opens nothing."""
        if self._token is None or not token_matches(hash_of(token), hash_of(self._token)) or self.count_users():
            self.counters.add("log_ins", result="wrong_token")
            return None
        now_s = self._clock()
        with self._database.write() as connection:
            if users.count_users(connection):
                return None
            cookie = begin_session(connection, now_s, None, client)
            audit.record(connection, now_s, users.LOCAL, "login", "printed token", address=client.address)
        self.counters.add("log_ins", result="done")
        return cookie

    def log_in(self, name: str, password: str, client: Client) -> str:
        """Return the cookie of a new session.

        Raises:
            ConsoleError: the name or the password is wrong, or there were too many attempts.
        """
        user_id = self.check_password(name, password, client)
        now_s = self._clock()
        with self._database.write() as connection:
            account = users.find_user(connection, user_id)
            cookie = begin_session(connection, now_s, user_id, client)
            audit.record(connection, now_s, account.name, "login", f"user {account.name}", address=client.address)
        self.counters.add("log_ins", result="done")
        return cookie

    def check_password(self, name: str, password: str, client: Client) -> int:
        """Return the id of the user whose name and password these are. Each failure counts and is recorded.

        Raises:
            ConsoleError: the name or the password is wrong, or there were too many attempts.
        """
        try:
            self.limits.count(name, client.address)
        except TooManyAttemptsError:
            self.counters.add("log_ins", result="limited")
            raise
        with self._database.read() as rows:
            user_id, stored = users.stored_password(rows, name)
        if self.passwords.match(password, stored) and user_id is not None:
            self.limits.succeed(name, client.address)
            return user_id
        self.counters.add("log_ins", result="wrong")
        with self._database.write() as connection:
            about = {"address": client.address, "name": name[:64]}
            audit.record(connection, self._clock(), "?", "login.failed", "a user", **about)
        raise ConsoleError("wrong_password", "the name or the password is wrong")

    def log_out(self, user: User) -> None:
        """End the session that a request came with."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM sessions WHERE id IS ?", (user.session,))
            audit.record(connection, self._clock(), user.name, "logout", f"user {user.name}")

    def _of_cookie(self, cookie: str) -> User | None:
        now_s = self._clock()
        with self._database.read() as rows:
            session = find_session(rows, now_s, cookie[:_LONGEST_SECRET])
            if session is None:
                return None
            if session.user_id is None and (self._token is None or users.count_users(rows)):
                return None
        if now_s - session.seen_at > SEEN_EVERY_S:
            self._note("UPDATE sessions SET seen_at = ? WHERE id = ?", now_s, session.id)
        if session.name is None or session.role is None:
            return User(users.LOCAL, "admin", None, session.id)
        return User(session.name, session.role, session.user_id, session.id)

    def _of_token(self, offered: str) -> User | None:
        now_s = self._clock()
        if self._token is not None and token_matches(hash_of(offered), hash_of(self._token)):
            return None if self.count_users() else User(users.LOCAL, "admin")
        with self._database.read() as rows:
            token = find_token(rows, now_s, offered[:_LONGEST_SECRET])
        if token is None:
            return None
        if token.used_at is None or now_s - token.used_at > USED_EVERY_S:
            self._note("UPDATE tokens SET used_at = ? WHERE id = ?", now_s, token.id)
        return User(token.user, token.role, token.user_id)

    def _note(self, statement: str, now_s: float, row: int) -> None:
        """Store when something was used; a full disk keeps nobody out."""
        try:
            with self._database.write() as connection:
                connection.execute(statement, (now_s, row))
        except ConsoleError as error:
            log.warning("the time of a request cannot be stored: %s", error)
