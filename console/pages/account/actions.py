"""What people do with their account, and admins with others': the API.

Rules this module keeps:
1. A token of the API changes no password, session, token or user: who finds one cannot make it last.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from console.access import audit, sessions, tokens, users
from console.access.roles import User
from console.pages.account.values import (
    AuditRowsQuery,
    AuditRowValue,
    AuditValue,
    Login,
    MadeToken,
    NewPassword,
    NewRole,
    NewToken,
    NewUser,
    OwnPassword,
    SessionsValue,
    SessionValue,
    TokensValue,
    TokenValue,
    UsersValue,
    UserValue,
)
from console.web.routing import Answer, Call, Route, Values, api
from edge.errors import ConsoleError


def local_path(text: str) -> str:
    """Return a path of this console; the start page for everything else."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return "/"
    is_path = text.startswith("/") and not text.startswith("//") and "\\" not in text and text.isprintable()
    return text if is_path and not parts.scheme and not parts.netloc and parts.path != "/login" else "/"


def _log_in(call: Call) -> Answer:
    cookie = call.services.gate.log_in(call.body.name, call.body.password, call.client)
    return Values(go=local_path(call.body.next), cookie=cookie)


def _log_out(call: Call) -> Answer:
    call.services.gate.log_out(call.user)
    return Values(says="logged out", go="/login", cookie="")


def _own_password(call: Call) -> Answer:
    user, user_id = _person(call), _own_id(call)
    call.services.gate.check_password(user.name, call.body.old, call.client)
    hashed = call.services.gate.passwords.hash(call.body.new)
    with call.services.database.write() as connection:
        users.set_password(connection, call.now_s, user.name, user_id, hashed, keep=user.session)
    return Values(says="your password is changed; your other sessions are ended", go=".")


def _sessions(call: Call) -> Answer:
    with call.services.database.read() as rows:
        found = sessions.list_sessions(rows, call.now_s, call.user.id)
    return Values(
        SessionsValue(
            sessions=[
                SessionValue(
                    id=one.id,
                    created_at=one.created_at,
                    seen_at=one.seen_at,
                    address=one.address,
                    agent=one.agent,
                    is_this=one.id == call.user.session,
                )
                for one in found
            ]
        )
    )


def _end_session(call: Call) -> Answer:
    user = _person(call)
    with call.services.database.write() as connection:
        sessions.end_session(connection, user.id, call.path["id"])
        audit.record(connection, call.now_s, user.name, "session.end", f"session {call.path['id']}")
    return Values(says="the session is ended", go=".")


def _tokens(call: Call) -> Answer:
    with call.services.database.read() as rows:
        found = tokens.list_tokens(rows, call.user.id) if call.user.id is not None else []
    return Values(
        TokensValue(
            tokens=[TokenValue(**{name: getattr(one, name) for name in TokenValue.model_fields}) for one in found]
        )
    )


def _add_token(call: Call) -> Answer:
    user, user_id = _person(call), _own_id(call)
    body: NewToken = call.body
    with call.services.database.write() as connection:
        made = tokens.add_token(connection, call.now_s, user.name, user_id, body.name, body.role, body.days)
    return Values(MadeToken(token=made), says="the token is made; copy it now")


def _remove_token(call: Call) -> Answer:
    user, user_id = _person(call), _own_id(call)
    with call.services.database.write() as connection:
        name = tokens.remove_token(connection, call.now_s, user.name, user_id, call.path["id"])
    return Values(says=f"the token {name} is removed", go=".")


def _users(call: Call) -> Answer:
    with call.services.database.read() as rows:
        found = users.list_users(rows)
    return Values(
        UsersValue(users=[UserValue(**{name: getattr(one, name) for name in UserValue.model_fields}) for one in found])
    )


def _add_user(call: Call) -> Answer:
    user, body = _person(call), call.body
    hashed = call.services.gate.passwords.hash(body.password)
    with call.services.database.write() as connection:
        users.add_user(connection, call.now_s, user.name, body.name, body.role, hashed)
    return Values(says=f"{body.name} may log in as {body.role}", go="." if user.id is not None else "/login")


def _set_role(call: Call) -> Answer:
    user = _person(call)
    with call.services.database.write() as connection:
        account = users.set_role(connection, call.now_s, user.name, call.path["id"], call.body.role)
    return Values(says=f"{account.name} is {account.role} now", go=".")


def _set_password(call: Call) -> Answer:
    user = _person(call)
    hashed = call.services.gate.passwords.hash(call.body.password)
    with call.services.database.write() as connection:
        account = users.set_password(connection, call.now_s, user.name, call.path["id"], hashed)
    return Values(says=f"{account.name} has a new password, and must log in with it", go=".")


def _remove_user(call: Call) -> Answer:
    user = _person(call)
    with call.services.database.write() as connection:
        account = users.remove_user(connection, call.now_s, user.name, call.path["id"])
    return Values(says=f"{account.name} is removed", go=".")


def _audit(call: Call) -> Answer:
    query: AuditRowsQuery = call.query
    wanted = audit.AuditQuery(query.by, query.action, query.since_s, query.until_s, query.before, query.limit)
    with call.services.database.read() as rows:
        found = audit.find_page(rows, wanted)
    names = AuditRowValue.model_fields
    shown = [AuditRowValue(**{name: getattr(one, name) for name in names}) for one in found.rows]
    return Values(AuditValue(rows=shown, next=found.next))


def _person(call: Call) -> User:
    """Return the user of a browser, or of a console without users."""
    if call.user.id is not None and call.user.session is None:
        raise ConsoleError("denied", "a token may not do this; log in with a browser")
    return call.user


def _own_id(call: Call) -> int:
    if call.user.id is None:
        raise ConsoleError("conflict", "this console has no users yet; add one first, then log in")
    return call.user.id


ROUTES: tuple[Route, ...] = (
    api("POST", "/login", "anyone", _log_in, "Log in", body=Login),
    api("POST", "/logout", "viewer", _log_out, "Log out"),
    api("POST", "/account/password", "viewer", _own_password, "Change the own password", body=OwnPassword),
    api("GET", "/account/sessions", "viewer", _sessions, "The browsers that are logged in", answer=SessionsValue),
    api("DELETE", "/account/sessions/{id:int}", "viewer", _end_session, "End a session"),
    api("GET", "/account/tokens", "viewer", _tokens, "The own tokens", answer=TokensValue),
    api("POST", "/account/tokens", "viewer", _add_token, "Make a token", body=NewToken, answer=MadeToken),
    api("DELETE", "/account/tokens/{id:int}", "viewer", _remove_token, "Remove a token"),
    api("GET", "/users", "admin", _users, "All users", answer=UsersValue),
    api("POST", "/users", "admin", _add_user, "Add a user", body=NewUser),
    api("POST", "/users/{id:int}/role", "admin", _set_role, "Change the role of a user", body=NewRole),
    api("POST", "/users/{id:int}/password", "admin", _set_password, "Set the password of a user", body=NewPassword),
    api("DELETE", "/users/{id:int}", "admin", _remove_user, "Remove a user"),
    api("GET", "/audit", "operator", _audit, "The audit log", query=AuditRowsQuery, answer=AuditValue),
)
