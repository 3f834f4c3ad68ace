"""The keys of each role, and the folder that lists which of them this machine can use.

    keys.json        the keys of each role: public key, and the address of the private one if it is here
    root.json        the newest root of trust that was published; a device enrols with a copy of it
    roots/           every root that was published, so that a lost repository can be made again
    published.json   the version of each role that was published last, so that an old copy of the repository is noticed
    drafts/          metadata that waits for signatures of other people, see `gallery_sync.repository.ceremonies`
    <name>.pem       private keys that are files (PKCS#8), mode 0600, see `gallery_sync.repository.private_keys`
    <name>.pub       public keys, to be given to others

A private key is opened only when something is signed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError
from securesystemslib.signer import Key, Signer

from edge.errors import SyncError, first_validation_error, one_line
from edge.strict_json import parse_json
from gallery_sync.formats.fields import Document
from gallery_sync.repository.files import read_file, write_file
from gallery_sync.repository.private_keys import HeldKey, make_key, open_signer
from gallery_sync.repository.public_keys import PublicKey, public_dict, to_key

KEYS_NAME, ROOT_NAME, PUBLISHED_NAME = "keys.json", "root.json", "published.json"
ROOTS_NAME, DRAFTS_NAME = "roots", "drafts"  # folders
ROLES = ("root", "targets", "snapshot", "timestamp", "models", "gallery", "rollout")
_LARGEST_KEYS_BYTES = 1 << 20


class _HeldKey(Document):
    public: PublicKey
    uri: Annotated[str, Field(max_length=1000)] | None = None


class _RoleKeys(Document):
    threshold: Annotated[int, Field(strict=True, ge=1, le=16)]
    keys: Annotated[list[_HeldKey], Field(max_length=64)]


class _KeysFile(Document):
    kind: ClassVar[str] = "list of keys"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    development: bool = False
    roles: dict[Literal["root", "targets", "snapshot", "timestamp", "models", "gallery", "rollout"], _RoleKeys]
    coming: Annotated[list[_HeldKey], Field(default_factory=list, max_length=64)]


@dataclass(frozen=True)
class RoleKeys:
    """The keys of a role, and how many of them must sign."""

    threshold: int
    keys: tuple[HeldKey, ...]


@dataclass(frozen=True)
class KeyRing:
    """The keys of a repository, as far as this machine knows them."""

    folder: Path
    roles: Mapping[str, RoleKeys]
    is_development: bool = False
    coming: tuple[HeldKey, ...] = ()  # that are here, and belong to a role as soon as a draft is published
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False, compare=False)

    @classmethod
    def development(cls, folder: Path) -> KeyRing:
        """Open the folder, or make one file key per role with threshold 1: for tests and demos, never for production.

        Raises:
            SyncError: it cannot be made or read.
        """
        if (folder / KEYS_NAME).exists():
            return cls.open(folder)
        roles = {role: RoleKeys(1, (make_key(folder, role),)) for role in ROLES}
        ring = cls(folder, roles, is_development=True)
        ring.write()
        return ring

    @classmethod
    def open_or_empty(cls, folder: Path) -> KeyRing:
        """Read the list of keys of a folder, or begin one: for a machine that gets new keys.

        Raises:
            SyncError: it is damaged.
        """
        return cls.open(folder) if (folder / KEYS_NAME).exists() else cls(folder, {})

    @classmethod
    def open(cls, folder: Path) -> KeyRing:
        """Read the list of keys of a folder; no private key is read yet.

        Raises:
            SyncError: there is none, or it is damaged.
        """
        path = folder / KEYS_NAME
        try:
            read = _KeysFile.model_validate(parse_json(read_file(path, _LARGEST_KEYS_BYTES), _LARGEST_KEYS_BYTES))
        except ValidationError as error:
            raise SyncError(f"{path}: {first_validation_error(error)}; restore it from your copy") from error
        except ValueError as error:
            raise SyncError(f"{path}: {one_line(str(error))}; restore it from your copy") from error

        def held(keys: list[_HeldKey]) -> tuple[HeldKey, ...]:
            return tuple(HeldKey(to_key(key.public, path), key.uri) for key in keys)

        roles: dict[str, RoleKeys] = {role: RoleKeys(one.threshold, held(one.keys)) for role, one in read.roles.items()}
        return cls(folder, roles, read.development, held(read.coming))

    def write(self) -> None:
        """Write the list of keys.

        Raises:
            SyncError: the disk failed.
        """
        roles = {role: {"threshold": one.threshold, "keys": _key_dicts(one.keys)} for role, one in self.roles.items()}
        document = {"schema": 1, "development": self.is_development, "roles": roles, "coming": _key_dicts(self.coming)}
        write_file(self.folder / KEYS_NAME, (json.dumps(document, indent=1) + "\n").encode())

    def with_coming(self, keys: Iterable[HeldKey]) -> KeyRing:
        """Return a ring that can also sign with some keys; it is not written yet."""
        return replace(
            self, coming=(*self.coming, *(key for key in keys if self.uri_of(key.keyid) is None and key.uri))
        )

    def as_published(self, roles: Mapping[str, RoleKeys]) -> KeyRing:
        """Return a ring with the published keys of every role; it forgets those that were revoked."""
        published = {key.keyid for one in roles.values() for key in one.keys}
        return replace(self, roles=roles, coming=tuple(key for key in self.coming if key.keyid not in published))

    def uri_of(self, keyid: str) -> str | None:
        """Return the address of a private key; None if it is not here."""
        held = (*self.coming, *(key for one in self.roles.values() for key in one.keys))
        return next((key.uri for key in held if key.keyid == keyid and key.uri), None)

    def signer(self, public: Key) -> Signer | None:
        """Return what signs with a key; None if its private key is not here.

        Raises:
            SyncError: it should be here and cannot be used; the message says why.
        """
        uri = self.uri_of(public.keyid)
        return None if uri is None else open_signer(uri, public, self.folder, self.environment)

    def trusted_root(self) -> bytes | None:
        """Return the newest root of trust that was published from here; None if there is none.

        Raises:
            SyncError: it cannot be read.
        """
        path = self.folder / ROOT_NAME
        return read_file(path, 1 << 20) if path.exists() else None

    def roots(self) -> dict[int, bytes]:
        """Return every root that was published from here, by its version.

        Raises:
            SyncError: one cannot be read.
        """
        found = {}
        for path in (self.folder / ROOTS_NAME).glob("*.root.json"):
            version = path.name.removesuffix(".root.json")
            if version.isascii() and version.isdecimal() and len(version) < 11:
                found[int(version)] = read_file(path, 1 << 20)
        return found

    def published(self) -> dict[str, int]:
        """Return the version of each role that was published from here last; empty if none was, or if it is damaged."""
        path = self.folder / PUBLISHED_NAME
        try:
            read = parse_json(read_file(path, 64 << 10), 64 << 10) if path.exists() else {}
        except ValueError:
            return {}
        return {role: one for role, one in read.items() if isinstance(one, int)} if isinstance(read, dict) else {}

    def keep_published(
        self, roots: Mapping[int, Path], versions: Mapping[str, int], roles: Mapping[str, RoleKeys]
    ) -> KeyRing:
        """Keep beside the keys what was published: every root, and the version and keys of each role.

        Raises:
            SyncError: the disk failed.
        """
        for version, path in roots.items():
            kept = self.folder / ROOTS_NAME / f"{version}.root.json"
            if not kept.exists():
                write_file(kept, read_file(path, 1 << 20))
        root = read_file(roots[versions["root"]], 1 << 20)
        if self.trusted_root() != root:
            write_file(self.folder / ROOT_NAME, root)
        write_file(self.folder / PUBLISHED_NAME, (json.dumps(versions) + "\n").encode())
        ring = self.as_published(roles)
        if ring != self:
            ring.write()
        return ring


def keys_beside(repo: Path) -> Path:
    """Return where the keys of a repository are unless you say otherwise: beside it, for a web server serves it."""
    return repo.parent / f"{repo.name}.keys"


def _key_dicts(keys: Iterable[HeldKey]) -> list[dict[str, Any]]:
    return [{"public": public_dict(key.public), **({"uri": key.uri} if key.uri else {})} for key in keys]
