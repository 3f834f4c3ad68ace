"""Reads the tokens of the fleet's HTTP API, and the server's account at the broker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge.errors import SyncError
from edge.telemetry.known_secrets import remember
from gallery_sync.fresh_files import read_regular

USER, PASSWORD = "FINESIGHT_MQTT_USERNAME", "FINESIGHT_MQTT_PASSWORD"
_LARGEST_BYTES = 16_384


def read_token(path: Path | None) -> str | None:
    """Read a token from the first line of a file; None without one.

    Raises:
        SyncError: it cannot be read, or is too short to be a secret.
    """
    if path is None:
        return None
    token = (_text(path).splitlines() or [""])[0].strip()
    if len(token) < 16 or not (token.isascii() and token.isprintable()) or " " in token:
        raise SyncError(f"{path}: expected a token of 16 or more letters and digits; openssl rand -hex 16 makes one")
    remember([token])
    return token


def read_account(path: Path | None, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return user name and password at the broker, from a file as `broker.env` or from the environment.

    Args:
        path: the file; None: the environment.
        environment: of the process.

    Raises:
        SyncError: the file cannot be read, or one of the two is missing.
    """
    values = dict(environment)
    if path is not None:
        pairs = (line.strip().removeprefix("export ").partition("=") for line in _text(path).splitlines())
        values = {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}
    user, password = values.get(USER), values.get(PASSWORD)
    if path is None and user is None:
        return None
    if not user or not password:
        raise SyncError(f"{path or 'the environment'}: expected both {USER} and {PASSWORD}")
    remember([password])
    return user, password


def _text(path: Path) -> str:
    try:
        return read_regular(path, _LARGEST_BYTES).decode()
    except OSError as error:
        raise SyncError(f"{path}: cannot read: {error.strerror or error}") from error
    except UnicodeError as error:
        raise SyncError(f"{path}: is not text") from error
