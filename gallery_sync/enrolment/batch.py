"""Enrolments for a batch of devices, made on the server.

    <folder>/<device id>.json     everything that the device needs: keep it secret
    <folder>/devices.csv          for each device its file, the text for its QR code and its claim token: keep it secret
    <folder>/mosquitto.passwd     the accounts for the broker, hashed, with that of the fleet's server
    <folder>/mosquitto.acl        what they may do
    fleet.env                     the account of the fleet's server, beside the folder: keep it secret
    <repository>/enrolments/      what the claim tokens open, sealed

Rules this module keeps:
1. Nothing is overwritten: a batch goes into a new folder, and no device id is there twice.
2. `devices.csv` is written last. A batch without it was interrupted; make it again in another folder.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import Field, ValidationError

from edge.durable import fsync_folder, fsync_tree, write_durably
from edge.errors import SyncError, first_validation_error
from gallery_sync.enrolment.broker_accounts import SERVER, Account, access_file, password_file, server_account
from gallery_sync.enrolment.document import Text, write_text
from gallery_sync.enrolment.sealed import FOLDER, new_token, seal, sealed_path
from gallery_sync.formats.enrolment import Broker, Enrolment, Policy
from gallery_sync.formats.fields import Document, Name, canonical_json, parse
from gallery_sync.formats.reports import PREFIX
from gallery_sync.formats.rollouts import RESERVED_LABELS
from gallery_sync.trust.root_file import LARGEST_ROOT_BYTES, check_root

MOST_DEVICES = 20_000
LIST_NAME = "devices.csv"
_ROOT = re.compile(r"([1-9][0-9]{0,9})\.root\.json")
_COLUMNS = ("device_id", "file", "text", "claim", "username")


class _About(Document):
    """What `repository.json` says."""

    kind: ClassVar[str] = "description of a repository"

    line: Name
    policy: Policy = Field(default="online")


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """The broker of all devices of a batch."""

    host: str
    port: int
    tls: bool
    topic_root: str = "finesight"
    prefix: str = PREFIX  # of the fleet's topics
    server_file: Path | None = None  # the account of the fleet's server; None: it gets none


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch is for."""

    url: str  # of the repository, as devices reach it
    device_ids: list[str]
    group: str | None = None
    broker: BrokerAddress | None = None
    accounts: Mapping[str, Account] = field(default_factory=dict)  # given ones; the others are made
    claims: bool = False  # whether to publish sealed enrolments
    labels: Mapping[str, str] = field(default_factory=dict)  # of every device, such as site


@dataclass(frozen=True, slots=True)
class Repository:
    """What a batch needs to know of a repository."""

    folder: Path
    line: str
    policy: Policy
    root: bytes
    root_version: int


def read_repository(folder: Path) -> Repository:
    """Read the line and the newest root of trust of a repository.

    Raises:
        SyncError: it is no signed repository.
    """
    about_path = folder / "repository.json"
    try:
        about = parse(_About, about_path.read_bytes(), str(about_path))
        versions = [int(match[1]) for path in (folder / "metadata").iterdir() if (match := _ROOT.fullmatch(path.name))]
        if not versions:
            raise SyncError(f"{folder}: has no root of trust; publish something first")
        path = folder / "metadata" / f"{max(versions)}.root.json"
        with path.open("rb") as file:
            root = file.read(LARGEST_ROOT_BYTES + 1)
    except OSError as error:
        raise SyncError(
            f"{error.filename or folder}: cannot read: {error.strerror}; edge-sync init makes a signed repository"
        ) from error
    return Repository(folder, about.line, about.policy, root, check_root(root, str(path)))


def numbered(prefix: str, count: int, start: int = 1) -> list[str]:
    """Return device ids such as cam-001 to cam-500.

    Raises:
        SyncError: there are too many, or none.
    """
    if not 1 <= count <= MOST_DEVICES or start < 0:
        raise SyncError(
            f"found {count} devices from number {start} on, expected 1 to {MOST_DEVICES}, from 0 on or above"
        )
    width = max(3, len(str(start + count - 1)))
    return [f"{prefix}{number:0{width}}" for number in range(start, start + count)]


def make_batch(
    repository: Repository, batch: Batch, folder: Path, account: Callable[[str], Account]
) -> list[dict[str, str]]:
    """Write the enrolments of a batch, and return the rows of `devices.csv`.

    Args:
        repository: of the devices.
        batch: the devices.
        folder: a new folder.
        account: makes an account for a device id.

    Raises:
        SyncError: the folder exists, a device id or an address is wrong, a text is too long, or the disk failed.
    """
    if repeated := [device_id for device_id, count in Counter(batch.device_ids).items() if count > 1]:
        raise SyncError(f"device {repeated[0][:80]!r} is there twice; each needs an id of its own")
    if reserved := sorted(RESERVED_LABELS & batch.labels.keys()):
        raise SyncError(f"the label {reserved[0]} is one that every device has; choose another name")
    if batch.broker and batch.broker.topic_root == batch.broker.prefix.partition("/")[0]:
        # a device named as a level of the fleet's topics could write them all
        topic_root = batch.broker.topic_root
        raise SyncError(f"--topic-root {topic_root}: the topics of the fleet begin alike; choose another word")
    made = [_make(repository, batch, device_id, account) for device_id in batch.device_ids]
    accounts, server = _accounts(batch.broker, [one for one, _ in made])
    try:
        folder.mkdir(parents=True, mode=0o700)
        for enrolment, text in made:
            _write(folder / f"{enrolment.device_id}.json", canonical_json(enrolment) + b"\n")
            if text.claim:
                _publish(repository.folder, text.claim, enrolment)
        if batch.broker and accounts:
            _write(folder / "mosquitto.passwd", password_file(accounts))
            _write(folder / "mosquitto.acl", access_file(batch.broker.topic_root, batch.broker.prefix, server))
        if batch.claims:
            fsync_folder(repository.folder / FOLDER)
        fsync_tree(folder)
        rows = [_row(enrolment, text) for enrolment, text in made]
        write_durably(folder / LIST_NAME, _csv(rows), mode=0o600)
    except FileExistsError as error:
        raise SyncError(f"{folder} already exists; choose another folder: enrolments are never overwritten") from error
    except OSError as error:
        raise SyncError(f"{folder}: cannot write: {error.strerror or error}") from error
    return rows


def retire(repository: Path, tokens: Iterable[str]) -> int:
    """Delete what some tokens open; return how many there were.

    Raises:
        SyncError: one is no token, or the disk failed.
    """
    return _delete(repository, [repository / sealed_path(token) for token in tokens])


def retire_all(repository: Path) -> int:
    """Delete what all tokens open; return how many there were.

    Raises:
        SyncError: the disk failed.
    """
    folder = repository / FOLDER
    return _delete(repository, sorted(folder.iterdir()) if folder.is_dir() else [])


def read_tokens(path: Path, device_ids: Iterable[str]) -> list[str]:
    """Read the claim tokens of some devices, or of all, from a `devices.csv`.

    Raises:
        SyncError: it cannot be read, or a device has none.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = {row["device_id"]: row["claim"] for row in csv.DictReader(file) if row["claim"]}
    except OSError as error:
        raise SyncError(f"{path}: cannot read: {error.strerror}") from error
    except (UnicodeError, csv.Error, KeyError) as error:
        raise SyncError(f"{path}: is no {LIST_NAME} of edge-sync enrolment new") from error
    wanted = list(device_ids) or list(found)
    if missing := [device_id for device_id in wanted if device_id not in found]:
        raise SyncError(f"{path}: device {missing[0][:80]!r} has no claim in it")
    return [found[device_id] for device_id in wanted]


def _make(
    repository: Repository, batch: Batch, device_id: str, account: Callable[[str], Account]
) -> tuple[Enrolment, Text]:
    root_sha256 = hashlib.sha256(repository.root).hexdigest()
    try:
        broker = None
        if batch.broker:
            username, password = batch.accounts.get(device_id) or account(device_id)
            broker = Broker(
                host=batch.broker.host,
                port=batch.broker.port,
                tls=batch.broker.tls,
                username=username,
                password=password,
            )
        enrolment = Enrolment(
            device_id=device_id,
            line=repository.line,
            group=batch.group,
            labels=dict(batch.labels),
            repository=batch.url,
            policy=repository.policy,
            root=repository.root.decode(),
            root_sha256=root_sha256,
            broker=broker,
        )
        text = Text(
            repository=batch.url,
            root_version=repository.root_version,
            root_sha256=root_sha256,
            device_id=device_id,
            line=repository.line,
            group=batch.group,
            labels=dict(batch.labels),
            policy=repository.policy,
            claim=new_token() if batch.claims else None,
        )
    except ValidationError as error:
        raise SyncError(f"device {device_id[:80]!r}: {first_validation_error(error)}") from error
    write_text(text)
    return enrolment, text


def _accounts(broker: BrokerAddress | None, enrolments: list[Enrolment]) -> tuple[list[Account], str]:
    """Return the accounts of a batch with that of the fleet's server, and the user name of the server."""
    accounts = [(one.broker.username, one.broker.password) for one in enrolments if one.broker]
    if broker is None or broker.server_file is None:
        return accounts, SERVER
    server = server_account(broker.server_file, broker.host, broker.port, tls=broker.tls)
    if server[0] in [username for username, _ in accounts]:
        raise SyncError(f"{server[0]!r} is the user name of the fleet's server; give the device another id or account")
    return [*accounts, server], server[0]


def _publish(repository: Path, token: str, enrolment: Enrolment) -> None:
    path = repository / sealed_path(token)
    path.parent.mkdir(exist_ok=True)
    _write(path, seal(canonical_json(enrolment), token), mode=0o644)


def _row(enrolment: Enrolment, text: Text) -> dict[str, str]:
    username = enrolment.broker.username if enrolment.broker else ""
    values = (enrolment.device_id, f"{enrolment.device_id}.json", write_text(text), text.claim or "", username)
    return dict(zip(_COLUMNS, values, strict=True))


def _csv(rows: list[dict[str, str]]) -> bytes:
    written = io.StringIO()
    writer = csv.DictWriter(written, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue().encode()


def _write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a new file; whoever made the folder flushes it."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(data)
        if mode != 0o600:  # a file of the repository, whose folder is flushed alone
            file.flush()
            os.fsync(file.fileno())


def _delete(repository: Path, paths: list[Path]) -> int:
    count = 0
    try:
        for path in paths:
            if path.exists():
                path.unlink()
                count += 1
        if count:
            fsync_folder(repository / FOLDER)
    except OSError as error:
        raise SyncError(f"{repository / FOLDER}: cannot delete: {error.strerror}") from error
    return count
