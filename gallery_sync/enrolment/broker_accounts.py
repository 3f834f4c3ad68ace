"""Accounts of devices at an MQTT broker: passwords, and the files of mosquitto that let them in.

Rules this module keeps:
1. Each device has a user name and a password of its own, so that a stolen device is shut out alone.
2. The password file holds salted hashes (PBKDF2-SHA512, mosquitto's format `$7$`), never a password.
3. A device may use the topics below its own name and no others. Of its fleet's topics, it reads what is meant for it
   and writes what it says of itself.
4. The fleet's server has one account, which stays the same from batch to batch. It reads what devices say, and writes
   what is meant for them.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from edge.durable import make_folder, write_durably
from edge.errors import SyncError
from gallery_sync.formats.enrolment import Broker
from gallery_sync.formats.reports import PREFIX
from gallery_sync.fresh_files import read_regular

_ITERATIONS = 101  # mosquitto's own number; a password of 144 random bits needs no more
_PASSWORD_BYTES, _SALT_BYTES = 18, 12
_LARGEST_BYTES = 16 << 20
SERVER = "fleet"  # user name of the fleet's server
SERVER_FILE = "fleet.env"  # its account, beside the folders of batches

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


def access_file(topic_root: str, prefix: str = PREFIX, server: str = SERVER) -> bytes:
    """Return an access file of mosquitto, for devices whose user name is their device id.

    The user name is that of a password or, with `use_identity_as_username true`, the name in a client certificate.

    Args:
        topic_root: first level of the topics of `edge run`.
        prefix: of the fleet's topics.
        server: user name of the fleet's server.
    """
    return (
        f"# The server of the fleet: reads what devices say, writes what is meant for them\n"
        f"user {server}\n"
        f"topic read {prefix}/device/+/reported\n"
        f"topic read {prefix}/device/+/available\n"
        f"topic read {prefix}/device/+/answer\n"
        f"topic write {prefix}/line/+/desired\n"
        f"topic write {prefix}/device/+/desired\n"
        f"topic write {prefix}/device/+/cmd/+\n"
        f"topic write {topic_root}/+/+/cmd/restart_camera\n"
        f"topic read {topic_root}/+/+/cmd/reply\n"
        f"topic read {topic_root}/+/+/cmd/reply/#\n"
        "\n"
        "# Each device may use the topics below its own name: <root>/<site>/<device>/...\n"
        f"pattern readwrite {topic_root}/+/%u/#\n"
        "# Of the fleet's topics, it reads what is meant for it, and writes what it says of itself\n"
        f"pattern read {prefix}/line/+/desired\n"
        f"pattern read {prefix}/device/%u/desired\n"
        f"pattern read {prefix}/device/%u/cmd/+\n"
        f"pattern write {prefix}/device/%u/reported\n"
        f"pattern write {prefix}/device/%u/available\n"
        f"pattern write {prefix}/device/%u/answer\n"
    ).encode()


def server_account(path: Path, host: str, port: int, *, tls: bool) -> Account:
    """Return the account of the fleet's server, from its file; the first batch makes it.

    Args:
        path: of the file, which the server reads as its environment.
        host: of the broker.
        port: of the broker.
        tls: whether the broker speaks TLS.

    Raises:
        SyncError: the file is damaged, or cannot be written.
    """
    try:
        text = read_regular(path, _LARGEST_BYTES).decode()
    except FileNotFoundError:
        password = new_account(SERVER)[1]
        account = Broker(host=host, port=port, tls=tls, username=SERVER, password=password)
        try:
            make_folder(path.parent)
            write_durably(path, environment_file(account), 0o600)
        except OSError as error:
            raise SyncError(f"{path}: cannot write the account of the fleet's server: {error.strerror}") from error
        return SERVER, password
    except (OSError, UnicodeError) as error:
        raise SyncError(f"{path}: cannot read the account of the fleet's server: {error}") from error
    found = dict(re.findall(r"(?m)^FINESIGHT_MQTT_([A-Z]+)='([^'\n]+)'$", text))
    if "USERNAME" not in found or "PASSWORD" not in found:
        raise SyncError(f"{path}: holds no account of the fleet's server; move it away, and a new one is made")
    return found["USERNAME"], found["PASSWORD"]


def environment_file(broker: Broker) -> bytes:
    """Return an account as a file that systemd and shells read."""
    values = {
        "FINESIGHT_MQTT_HOST": broker.host,
        "FINESIGHT_MQTT_PORT": broker.port,
        "FINESIGHT_MQTT_TLS": json.dumps(broker.tls),
        "FINESIGHT_MQTT_USERNAME": broker.username,
        "FINESIGHT_MQTT_PASSWORD": broker.password,
    }
    return "".join(f"{name}='{value}'\n" for name, value in values.items()).encode()


def _hash(password: str) -> str:
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS)
    return f"$7${_ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
