"""Seals an enrolment, so that a static file on a public web server gives it to nobody but the holder of a token.

Rules this module keeps:
1. A token has 128 random bits. HKDF makes two values of it: the name of the file and the key. Who sees the names of all
   files, or a file, learns neither token nor key.
2. ChaCha20-Poly1305 seals: a changed file, or one under another name, opens nothing.
3. `cryptography` is imported here alone, and only where something is sealed or opened.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Any

from edge.errors import SyncError

FOLDER = "enrolments"  # in the repository
LARGEST_SEALED_BYTES = 1 << 20
_TOKEN_BYTES, _NONCE_BYTES = 16, 12
_SALT = b"finesight enrolment 1"


def new_token() -> str:
    """Return a new claim token: 26 letters and digits that a person can type."""
    return base64.b32encode(secrets.token_bytes(_TOKEN_BYTES)).decode().rstrip("=")


def sealed_path(token: str) -> str:
    """Return the path in the repository of what a token opens.

    Raises:
        SyncError: it is no token.
    """
    return f"{FOLDER}/{_derive(token, b'name', 16).hex()}"


def seal(data: bytes, token: str) -> bytes:
    """Seal some bytes.

    Raises:
        SyncError: `cryptography` is not installed.
    """
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed: bytes = _cipher(token).encrypt(nonce, data, sealed_path(token).encode())
    return nonce + sealed


def unseal(sealed: bytes, token: str) -> bytes:
    """Open what was sealed.

    Raises:
        SyncError: the token is another one, or the bytes were changed.
    """
    cipher = _cipher(token)
    from cryptography.exceptions import InvalidTag

    try:
        opened: bytes = cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], sealed_path(token).encode())
    except (InvalidTag, ValueError) as error:
        raise SyncError("the claim does not open: it was changed on its way, or the server has another file") from error
    return opened


def _cipher(token: str) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    except ImportError as error:
        raise SyncError("claims need a library: pip install cryptography; or enrol from a file") from error
    return ChaCha20Poly1305(_derive(token, b"key", 32))


def _derive(token: str, purpose: bytes, size: int) -> bytes:
    """Derive a value of at most 32 bytes: HKDF-SHA256 (RFC 5869) with one block."""
    secret = _decode(token)
    extracted = hmac.digest(_SALT, secret, hashlib.sha256)
    return hmac.digest(extracted, purpose + b"\x01", hashlib.sha256)[:size]


def _decode(token: str) -> bytes:
    cleaned = token.strip().upper().replace("-", "").replace(" ", "").replace("0", "O").replace("1", "I")
    try:
        decoded = base64.b32decode(cleaned + "=" * (-len(cleaned) % 8))
    except ValueError:
        decoded = b""
    if len(decoded) != _TOKEN_BYTES:
        raise SyncError("this is no claim token: it has 26 letters and digits; copy it again")
    return decoded
