"""Private keys: each has an address, and signs without leaving the place where it is.

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
import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, Signer

from edge.durable import make_folder, write_durably
from edge.errors import SyncError, first_line, one_line
from gallery_sync.fresh_files import create_new
from gallery_sync.repository.files import read_file
from gallery_sync.repository.public_keys import LARGEST_KEY_BYTES, NAME_FIELD, public_file

PIN_VARIABLE = "EDGE_SYNC_PIN"
_EXTRAS = {"awskms": "awskms", "gcpkms": "gcpkms", "azurekms": "azurekms", "hsm": "hsm", "hv": "vault", "tkey": "tkey"}
_SCHEMES = ("envvar", *sorted(SIGNER_FOR_URI_SCHEME))


@dataclass(frozen=True)
class HeldKey:
    """A key of a role."""

    public: Key
    uri: str | None = None  # of the private key; None: it is not here

    @property
    def keyid(self) -> str:
        """Return the id of the key."""
        return self.public.keyid


def make_key(folder: Path, name: str) -> HeldKey:
    """Make an Ed25519 key: `<name>.pem` that only you can read, and `<name>.pub` to be given to others.

    Raises:
        SyncError: a key of this name exists, or the disk failed.
    """
    if not name or "/" in name or name.startswith("."):
        raise SyncError(f"found {one_line(name)!r} as the name of a key, expected a file name without folders")
    signer: CryptoSigner = _map_library("file2:", CryptoSigner.generate_ed25519)
    signer.public_key.unrecognized_fields[NAME_FIELD] = name
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
    return read_file(path, LARGEST_KEY_BYTES)


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
