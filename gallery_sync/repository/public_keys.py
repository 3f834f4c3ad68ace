"""Public keys: as documents have them, and the files in which people give them to each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError
from securesystemslib.signer import Key

from edge.errors import SyncError, first_line, first_validation_error, one_line
from edge.strict_json import parse_json
from gallery_sync.formats.fields import Document
from gallery_sync.repository.files import read_file, write_file

LARGEST_KEY_BYTES = 64 << 10
NAME_FIELD = "x-name"  # of a public key: whose it is, for people


class PublicKey(Document):
    """A public key as The Update Framework writes it, with its id."""

    kind: ClassVar[str] = "public key"

    keyid: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
    keytype: Annotated[str, Field(max_length=64)]
    scheme: Annotated[str, Field(max_length=64)]
    keyval: dict[str, Any]
    name: Annotated[str, Field(max_length=80)] | None = Field(default=None, alias="x-name")


def key_label(public: Key) -> str:
    """Return a key for people: its name, if it has one, and the first digits of its id."""
    name = public.unrecognized_fields.get(NAME_FIELD)
    return one_line(f"{name} ({public.keyid[:8]})" if isinstance(name, str) else public.keyid[:16])


def public_file(public: Key) -> bytes:
    """Return the content of the file of a public key."""
    return (json.dumps(public_dict(public)) + "\n").encode()


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
    data = read_file(path, LARGEST_KEY_BYTES)
    if b"PRIVATE KEY" in data:
        raise SyncError(f"{path}: is a private key; give the .pub file beside it, and never send this one to anybody")
    try:
        return to_key(PublicKey.model_validate(parse_json(data, LARGEST_KEY_BYTES)), path)
    except ValidationError as error:
        raise SyncError(f"{path}: not a public key: {first_validation_error(error)}") from error
    except ValueError as error:
        raise SyncError(f"{path}: not a public key: {one_line(str(error))}") from error


def to_key(public: PublicKey, path: Path) -> Key:
    """Return a public key as securesystemslib has it.

    Raises:
        SyncError: it is of no known kind.
    """
    try:
        fields = public.model_dump(by_alias=True, exclude={"keyid"}, exclude_none=True)
        return Key.from_dict(public.keyid, fields)
    except (ValueError, KeyError, TypeError) as error:
        raise SyncError(f"{path}: not a public key: {one_line(first_line(error))}") from error


def public_dict(public: Key) -> dict[str, Any]:
    """Return a public key as a document has it."""
    return {"keyid": public.keyid, **public.to_dict()}
