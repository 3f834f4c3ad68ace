"""Reads a root of trust before a device is given it."""

from __future__ import annotations

from edge.errors import first_line, one_line
from gallery_sync.trust.errors import MetadataError, SignatureError

LARGEST_ROOT_BYTES = 512_000  # as python-tuf reads it


def check_root(data: bytes, where: str) -> int:
    """Check that some bytes are a root of trust that its own keys signed, and return its version.

    Raises:
        MetadataError: they are not a root.
        SignatureError: too few of its own keys signed it.
    """
    from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
    from tuf.api.metadata import Metadata, Root

    if len(data) > LARGEST_ROOT_BYTES:
        raise MetadataError(
            f"{where}: found {len(data)} bytes, expected a root of trust of {LARGEST_ROOT_BYTES} at most"
        )
    try:
        metadata = Metadata[Root].from_bytes(data)
        if not isinstance(metadata.signed, Root):
            raise MetadataError(f"{where}: found signed {metadata.signed.type}, expected a root of trust")
        metadata.signed.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
    except UnsignedMetadataError as error:
        raise SignatureError(f"{where}: the root of trust is not signed by its own keys") from error
    except (RepositoryError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise MetadataError(f"{where}: not a root of trust: {one_line(first_line(error))}") from error
    return int(metadata.signed.version)
