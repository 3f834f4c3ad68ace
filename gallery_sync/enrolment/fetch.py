"""Gets an enrolment for a device: from a file, or with the text of a QR code or a claim token from the repository."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edge.errors import SyncError
from gallery_sync.enrolment.document import Text
from gallery_sync.enrolment.sealed import LARGEST_SEALED_BYTES, sealed_path, unseal
from gallery_sync.formats.enrolment import Enrolment
from gallery_sync.formats.fields import parse
from gallery_sync.fresh_files import read_regular
from gallery_sync.transport.download import Fetcher
from gallery_sync.transport.errors import TransferError
from gallery_sync.trust.enrolment_file import LARGEST_BYTES
from gallery_sync.trust.root_file import LARGEST_ROOT_BYTES

_GONE = (403, 404, 410)


def from_file(path: Path) -> Enrolment:
    """Read an enrolment file.

    Raises:
        SyncError: it cannot be read, or is none.
    """
    try:
        return parse(Enrolment, read_regular(path, LARGEST_BYTES), str(path))
    except OSError as error:
        raise SyncError(f"{path}: cannot read: {error.strerror}") from error


def from_text(text: Text, fetcher: Fetcher) -> Enrolment:
    """Get what the text of a QR code names. The text is the root of trust: the server can only give what it hashes.

    Raises:
        SyncError: the server has another root, another claim or none, or the network failed.
    """
    if text.claim:
        claimed = from_claim(text.claim, fetcher)
        told = (text.device_id, text.line, text.root_sha256)
        if claimed.identity != told:
            raise SyncError(f"the claim is for device {claimed.device_id}, expected {text.device_id}; make a new one")
        return claimed
    path = f"metadata/{text.root_version}.root.json"
    root = fetcher.get_small(path, LARGEST_ROOT_BYTES)
    if (found := hashlib.sha256(root).hexdigest()) != text.root_sha256:
        raise SyncError(
            f"{path}: found a root of trust with SHA-256 {found}, expected {text.root_sha256}: do not enrol from this "
            "server; check the URL and the network"
        )
    return Enrolment(
        device_id=text.device_id,
        line=text.line,
        group=text.group,
        labels=text.labels,
        repository=text.repository,
        policy=text.policy,
        root=root.decode(),
        root_sha256=text.root_sha256,
    )


def from_claim(token: str, fetcher: Fetcher) -> Enrolment:
    """Get the sealed enrolment that a token opens.

    Raises:
        SyncError: there is none, it was changed, or the network failed.
    """
    path = sealed_path(token)
    try:
        sealed = fetcher.get_small(path, LARGEST_SEALED_BYTES)
    except SyncError as error:
        status = error.status if isinstance(error, TransferError) else None
        if status in _GONE or isinstance(error.__cause__, FileNotFoundError):
            raise SyncError("the repository has nothing for this claim token: it is retired, or mistyped") from error
        raise
    return parse(Enrolment, unseal(sealed, token), "the claim")
