"""Keys that sign a repository, and the folder that lists which of them this machine can use.

    keys.json        the keys of each role: public key, and the address of the private one if it is here
    root.json        the newest root of trust that was published; a device enrols with a copy of it
    roots/           every root that was published, so that a lost repository can be made again
    published.json   the version of each role that was published last, so that an old copy of the repository is noticed
    drafts/          metadata that waits for signatures of other people, see `gallery_sync.repository.ceremonies`
    <name>.pem       private keys that are files (PKCS#8), mode 0600
    <name>.pub       public keys, to be given to others

Rules this module keeps:
1. A private key has an address: `file2:PATH` (relative to the folder), `envvar:NAME` (the variable holds the PEM), or
   `awskms:`, `gcpkms:`, `azurekms:`, `hsm:`, `hv:` (Vault), `gnupg:` as securesystemslib defines them. The PIN of a
   hardware module comes from $EDGE_SYNC_PIN or a prompt.
2. A key file that other users can read is refused. A key is made with O_EXCL: none is ever overwritten.
3. No message names more of a key than its address and its id.
"""

from __future__ import annotations

import functools
import getpass
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import unquote

from pydantic import Field, ValidationError
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, Signer

from edge.durable import make_folder, write_durably
from edge.errors import SyncError, first_line, first_validation_error, one_line
from edge.strict_json import parse_json
from gallery_sync.formats.fields import Document
from gallery_sync.fresh_files import create_new
from gallery_sync.repository.files import read_file, write_file

KEYS_NAME, ROOT_NAME, ROOTS_NAME, DRAFTS_NAME, PUBLISHED_NAME = (
    "keys.json",
    "root.json",
    "roots",
    "drafts",
    "published.json",
)
ROLES = ("root", "targets", "snapshot", "timestamp", "models", "gallery", "rollout")
_LARGEST_KEYS_BYTES = 1 << 20
_LARGEST_KEY_BYTES = 64 << 10
_EXTRAS = {"awskms": "awskms", "gcpkms": "gcpkms", "azurekms": "azurekms", "hsm": "hsm", "hv": "vault", "tkey": "tkey"}
PIN_VARIABLE = "EDGE_SYNC_PIN"
_NAME_FIELD = "x-name"  # of a public key: whose it is, for people
_SCHEMES = ("envvar", *sorted(SIGNER_FOR_URI_SCHEME))


class _PublicKey(Document):
    """A public key as The Update Framework writes it, with its id."""

    kind: ClassVar[str] = "public key"

    keyid: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
    keytype: Annotated[str, Field(max_length=64)]
    scheme: Annotated[str, Field(max_length=64)]
    keyval: dict[str, Any]
    name: Annotated[str, Field(max_length=80)] | None = Field(default=None, alias="x-name")


class _HeldKey(Document):
    public: _PublicKey
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
class HeldKey:
    """A key of a role."""

    public: Key
    uri: str | None = None  # of the private key; None: it is not here

    @property
    def keyid(self) -> str:
        """Return the id of the key."""
        return self.public.keyid


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
            return tuple(HeldKey(_to_key(key.public, path), key.uri) for key in keys)

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


def make_key(folder: Path, name: str) -> HeldKey:
    """Make an Ed25519 key: `<name>.pem` that only you can read, and `<name>.pub` to be given to others.

    Raises:
        SyncError: a key of this name exists, or the disk failed.
    """
    if not name or "/" in name or name.startswith("."):
        raise SyncError(f"found {one_line(name)!r} as the name of a key, expected a file name without folders")
    signer: CryptoSigner = _map_library("file2:", CryptoSigner.generate_ed25519)
    signer.public_key.unrecognized_fields[_NAME_FIELD] = name
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    try:
        make_folder(folder)
        with create_new(private) as file:
            file.write(signer.private_bytes)
            file.flush()
            os.fsync(file.fileno())
        write_durably(public, public_file(signer.public_key))
    except FileExistsError as error:
        raise SyncError(f"{private}: exists; keys are never overwritten, choose another name or folder") from error
    except OSError as error:
        raise SyncError(f"{private}: cannot write: {error.strerror}") from error
    return HeldKey(signer.public_key, f"file2:{name}.pem")


def key_label(public: Key) -> str:
    """Return a key for people: its name, if it has one, and the first digits of its id."""
    name = public.unrecognized_fields.get(_NAME_FIELD)
    return one_line(f"{name} ({public.keyid[:8]})" if isinstance(name, str) else public.keyid[:16])


def public_file(public: Key) -> bytes:
    """Return the content of the file of a public key."""
    return (json.dumps(_public_dict(public)) + "\n").encode()


def save_public(path: Path, public: Key) -> None:
    """Write the file of a public key.

    Raises:
        SyncError: the disk failed.
    """
    write_file(path, public_file(public))


def read_public(path: Path) -> Key:
    """Read the file of a public key.

    Raises:
        SyncError: it is missing, damaged or a private key.
    """
    data = read_file(path, _LARGEST_KEY_BYTES)
    if b"PRIVATE KEY" in data:
        raise SyncError(f"{path}: is a private key; give the .pub file beside it, and never send this one to anybody")
    try:
        return _to_key(_PublicKey.model_validate(parse_json(data, _LARGEST_KEY_BYTES)), path)
    except ValidationError as error:
        raise SyncError(f"{path}: not a public key: {first_validation_error(error)}") from error
    except ValueError as error:
        raise SyncError(f"{path}: not a public key: {one_line(str(error))}") from error


def open_signer(uri: str, public: Key, folder: Path, environment: Mapping[str, str] | None = None) -> Signer:
    """Open a private key.

    Args:
        uri: its address, see rule 1.
        public: its public key.
        folder: relative paths of files start here.
        environment: of `envvar:`; None: that of the process.

    Raises:
        SyncError: it is missing, readable by others, another key, or its library is not installed.
    """
    scheme, _, rest = uri.partition(":")
    if scheme not in _SCHEMES:
        raise SyncError(f"found {one_line(uri)!r}, expected the address of a key: one of {', '.join(_SCHEMES)}")
    if scheme == "envvar":
        pem = (os.environ if environment is None else environment).get(rest)
        if not pem:
            raise SyncError(f"{uri}: the variable is not set; put the private key (PEM) into it")
        return _from_pem(pem.encode(), public, uri)
    if scheme == "file2":
        return _from_pem(_read_private(folder / unquote(rest)), public, uri)
    signer: Signer = _map_library(uri, lambda: Signer.from_priv_key_uri(uri, public, _secret))
    return signer


def sign(signer: Signer, payload: bytes, uri: str) -> Any:
    """Sign some bytes and verify the signature.

    Raises:
        SyncError: the key cannot sign, or it is not the key that it should be.
    """

    def act() -> Any:
        signature = signer.sign(payload)
        signer.public_key.verify_signature(signature, payload)
        return signature

    return _map_library(uri, act)


def public_of(uri: str) -> Key:
    """Ask a key management service or a hardware module for a public key.

    Raises:
        SyncError: it has none, or its library is not installed.
    """
    scheme, _, rest = uri.partition(":")
    arguments = {"awskms": (rest,), "gcpkms": (rest,), "hv": (rest,), "hsm": ()}.get(scheme)
    if arguments is None:
        raise SyncError(f"found {one_line(uri)!r}, expected awskms:, gcpkms:, hv: or hsm:; others have a .pub file")
    found: Key = _map_library(uri, lambda: SIGNER_FOR_URI_SCHEME[scheme].import_(*arguments))[1]  # type: ignore[attr-defined]
    return found


def first_that_signs(uri: str, candidates: Iterable[Key], folder: Path) -> tuple[Key, Signer] | None:
    """Return which of some public keys an address belongs to; None if it is none of them.

    Raises:
        SyncError: the private key cannot be read.
    """
    for public in candidates:
        try:
            signer = open_signer(uri, public, folder)
            sign(signer, b"finesight", uri)
        except _OtherKeyError:
            continue
        return public, signer
    return None


@functools.lru_cache
def _secret(name: str) -> str:
    """Return the PIN of a hardware module; the prompt appears once."""
    if pin := os.environ.get(PIN_VARIABLE):
        return pin
    if not sys.stdin.isatty():
        raise SyncError(f"the key needs a {one_line(name)}; put it into ${PIN_VARIABLE}")
    return getpass.getpass(f"{one_line(name)}: ")


class _OtherKeyError(SyncError):
    """The private key is another one than the public key says."""


def _from_pem(pem: bytes, public: Key, uri: str) -> Signer:
    """Open a PEM through an anonymous file, so that securesystemslib reads it and no other process does."""
    descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        path = f"/proc/self/fd/{descriptor}"
        signer: Signer = _map_library(uri, lambda: CryptoSigner.from_priv_key_uri(f"file2:{path}", public))
        return signer
    finally:
        os.close(descriptor)


def _read_private(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SyncError(f"{path}: cannot read the private key: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o007:
        raise SyncError(f"{path}: every user of this machine can read this private key; run chmod 600 on it")
    return read_file(path, _LARGEST_KEY_BYTES)


def _map_library(uri: str, act: Callable[[], Any]) -> Any:
    """Run something of securesystemslib, and map its errors to one line."""
    scheme = uri.partition(":")[0]
    extra = _EXTRAS.get(scheme, "crypto")
    try:
        return act()
    except (UnsupportedLibraryError, ImportError) as error:
        raise SyncError(
            f"{uri}: signing with this key needs a library: pip install 'securesystemslib[{extra}]'"
        ) from error
    except SyncError:
        raise
    except Exception as error:
        if type(error).__name__ in {"KeyMismatchError", "UnverifiedSignatureError"}:
            raise _OtherKeyError(f"{uri}: is the private key of another public key") from error
        if isinstance(error, ValueError) and scheme in {"file2", "envvar"}:
            raise SyncError(f"{uri}: not a private key in PEM (PKCS#8) without a password") from error
        raise SyncError(f"{uri}: cannot sign with this key: {one_line(first_line(error))}") from error


def _to_key(public: _PublicKey, path: Path) -> Key:
    try:
        fields = public.model_dump(by_alias=True, exclude={"keyid"}, exclude_none=True)
        return Key.from_dict(public.keyid, fields)
    except (ValueError, KeyError, TypeError) as error:
        raise SyncError(f"{path}: not a public key: {one_line(first_line(error))}") from error


def _key_dicts(keys: Iterable[HeldKey]) -> list[dict[str, Any]]:
    return [{"public": _public_dict(key.public), **({"uri": key.uri} if key.uri else {})} for key in keys]


def _public_dict(public: Key) -> dict[str, Any]:
    return {"keyid": public.keyid, **public.to_dict()}
