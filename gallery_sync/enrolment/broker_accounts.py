"""Accounts of devices at an MQTT broker: passwords, and the files of mosquitto that let them in.

Rules this module keeps:
1. Each device has a user name and a password of its own, so that a stolen device is shut out alone.
2. The password file holds salted hashes (PBKDF2-SHA512, mosquitto's format `$7$`), never a password.
3. A device may use the topics below its own name and no others.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path

from edge.errors import SyncError

_ITERATIONS = 101  # mosquitto's own number; a password of 144 random bits needs no more
_PASSWORD_BYTES, _SALT_BYTES = 18, 12
_LARGEST_BYTES = 16 << 20

Account = tuple[str, str]  # user name, password


def new_account(device_id: str) -> Account:
    """Return a new account for a device."""
    return device_id, secrets.token_urlsafe(_PASSWORD_BYTES)


def read_accounts(path: Path) -> dict[str, Account]:
    """Read the accounts of devices from a CSV file with the columns device_id, username and password.

    Raises:
        SyncError: it cannot be read, or a column is missing.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise SyncError(f"{path}: larger than the limit of {_LARGEST_BYTES} bytes")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise SyncError(f"{path}: cannot read: {error.strerror}") from error
    except (UnicodeError, csv.Error) as error:
        raise SyncError(f"{path}: not a CSV file in UTF-8") from error
    accounts: dict[str, Account] = {}
    for line, row in enumerate(rows, 2):
        values = [row.get(name) for name in ("device_id", "username", "password")]
        device_id, username, password = (value or "" for value in values)
        if not (device_id and username and password):
            raise SyncError(f"{path}:{line}: expected the columns device_id, username and password, all filled in")
        if device_id in accounts:
            raise SyncError(f"{path}:{line}: device {device_id[:80]!r} is there twice")
        accounts[device_id] = (username, password)
    return accounts


def password_file(accounts: Iterable[Account]) -> bytes:
    """Return a password file of mosquitto."""
    return "".join(f"{username}:{_hash(password)}\n" for username, password in accounts).encode()


def access_file(topic_root: str) -> bytes:
    """Return an access file of mosquitto for devices whose user name is their device id."""
    return (
        "# Each device may use the topics below its own name: <root>/<site>/<device>/...\n"
        f"pattern readwrite {topic_root}/+/%u/#\n"
    ).encode()


def _hash(password: str) -> str:
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
