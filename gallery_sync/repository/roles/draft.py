"""A draft: metadata that waits for signatures, as one file that people carry from machine to machine.

    about       line and policy of the repository
    base        the published metadata that it changes: always root and targets, if there are any
    documents   the new metadata of each role, with the signatures that it has so far
    files       the content of new targets, so that whoever signs can read what it is
    then        targets of other roles that are published together with it, and their hashes before
    above       versions of roles that devices may have seen, if the repository was lost

Rules this module keeps:
1. A draft is public: it holds no private key. It is complete: nothing else is needed to read, sign and publish it.
2. Who must sign a document is derived from `base` and `documents`: a new root needs the keys of both roots.
3. Signing never changes what is signed: a signature is added, or the draft is left as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError
from tuf.api.metadata import Key, Metadata, Root, Targets, VerificationResult

from edge.durable import make_folder, write_durably
from edge.errors import SyncError, first_validation_error, one_line
from edge.strict_json import parse_json
from gallery_sync.formats.fields import Count, Document, Time
from gallery_sync.repository.files import read_file
from gallery_sync.repository.keys import KeyRing
from gallery_sync.repository.private_keys import sign
from gallery_sync.repository.public_keys import key_label
from gallery_sync.repository.roles.state import About, State, read_metadata

LARGEST_DRAFT_BYTES = 64 << 20
_KINDS: dict[str, Any] = {"root": Root}


class Put(Document):
    """A target that is published together with a draft."""

    text: str | None = None  # None: it is removed
    before: str | None = None  # the SHA-256 that it replaces


class _DraftFile(Document):
    kind: ClassVar[str] = "draft"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    about: About
    made_at: Time
    base: Annotated[dict[str, dict[str, Any]], Field(max_length=8)]
    documents: Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=8)]
    files: Annotated[dict[str, str], Field(default_factory=dict)]
    then: Annotated[dict[str, dict[str, Put]], Field(default_factory=dict)]
    above: Annotated[dict[str, Count], Field(default_factory=dict)]


@dataclass(frozen=True)
class Draft:
    """Metadata that waits for signatures; see the top of this module."""

    about: About
    made_at: str
    base: Mapping[str, Metadata[Any]]
    documents: Mapping[str, Metadata[Any]]
    files: Mapping[str, bytes]
    then: Mapping[str, Mapping[str, Put]]
    above: Mapping[str, int]

    def needs(self, role: str) -> list[VerificationResult]:
        """Return who signed the document of a role and who did not, for each list of keys that must agree."""
        md = self.documents[role]
        return [by.get_verification_result(role, md.signed_bytes, md.signatures) for by in self._delegators(role)]

    def missing(self) -> dict[str, str]:
        """Return for each document that is not complete whose signatures it lacks."""
        found = {}
        for role in self.documents:
            told = [_lack(result) for result in self.needs(role) if not result.verified]
            if told:
                found[role] = "; ".join(dict.fromkeys(told))
        return found

    def _delegators(self, role: str) -> Iterator[Root | Targets]:
        if role == "root":
            if "root" in self.base:
                yield self.base["root"].signed
            yield self.documents["root"].signed
            return
        by = "root" if role in {"targets", "snapshot", "timestamp"} else "targets"
        yield (self.documents.get(by) or self.base[by]).signed

    def candidates(self) -> list[Key]:
        """Return the keys whose signatures the draft lacks."""
        found: dict[str, Key] = {}
        for role in self.documents:
            found |= self._lacking(role)
        return list(found.values())

    def _lacking(self, role: str) -> dict[str, Key]:
        found: dict[str, Key] = {}
        for result in self.needs(role):
            found |= {} if result.verified else result.unsigned
        return found

    def signed_with(self, ring: KeyRing) -> Draft:
        """Return the draft with the signatures of every key that a ring holds."""
        draft = self
        for public in self.candidates():
            signer = ring.signer(public)
            if signer is not None:
                draft = draft.signed_by(public, signer, ring.uri_of(public.keyid) or "")
        return draft

    def signed_by(self, public: Key, signer: Any, uri: str) -> Draft:
        """Return the draft with the signatures of one key on every document that lacks it.

        Raises:
            SyncError: it cannot sign.
        """
        documents = dict(self.documents)
        for role, md in self.documents.items():
            if public.keyid in self._lacking(role):
                signatures = {**md.signatures, public.keyid: sign(signer, md.signed_bytes, uri)}
                documents[role] = Metadata(md.signed, signatures, md.unrecognized_fields)
        return replace(self, documents=documents)


def read_draft(path: Path) -> Draft:
    """Read a draft.

    Raises:
        SyncError: it is missing, damaged or no draft.
    """
    data = read_file(path, LARGEST_DRAFT_BYTES)
    try:
        read = _DraftFile.model_validate(parse_json(data, LARGEST_DRAFT_BYTES))
    except ValidationError as error:
        raise SyncError(f"{path}: not a draft: {first_validation_error(error)}") from error
    except ValueError as error:
        raise SyncError(f"{path}: not a draft: {one_line(str(error))}; copy it again") from error

    def parsed(documents: Mapping[str, dict[str, Any]]) -> dict[str, Metadata[Any]]:
        return {
            role: read_metadata(_KINDS.get(role, Targets), json.dumps(one).encode(), f"{path}: {one_line(role)}")
            for role, one in documents.items()
        }

    files = {name: text.encode() for name, text in read.files.items()}
    draft = Draft(read.about, read.made_at, parsed(read.base), parsed(read.documents), files, read.then, read.above)
    try:
        draft.missing()
    except (ValueError, KeyError) as error:
        raise SyncError(f"{path}: not a draft: it lacks who must sign: {one_line(str(error))}") from error
    return draft


def write_draft(path: Path, draft: Draft) -> None:
    """Write a draft.

    Raises:
        SyncError: the disk failed.
    """
    document = {
        "schema": 1,
        "about": draft.about.model_dump(by_alias=True),
        "made_at": draft.made_at,
        "base": {role: md.to_dict() for role, md in draft.base.items()},
        "documents": {role: md.to_dict() for role, md in draft.documents.items()},
        "files": {name: data.decode() for name, data in draft.files.items()},
        "then": {
            role: {name: put.model_dump(exclude_none=True) for name, put in puts.items()}
            for role, puts in draft.then.items()
        },
        "above": dict(draft.above),
    }
    try:
        make_folder(path.parent)
        write_durably(path, (json.dumps(document, indent=1) + "\n").encode())
    except OSError as error:
        raise SyncError(f"{path}: cannot write: {error.strerror}") from error


def is_same(md: Metadata[Any], data: bytes) -> bool:
    """Return whether metadata says the same as some bytes, whoever signed them.

    Raises:
        SyncError: the bytes are no root.
    """
    return bool(md.signed_bytes == read_metadata(Root, data, "your root").signed_bytes)


def leave_draft(
    folder: Path, draft: Draft, state: State | None, puts: Mapping[str, Mapping[str, bytes | None]]
) -> Path:
    """Write what lacks signatures as a draft; what this machine can sign alone waits unsigned in `then`.

    Raises:
        SyncError: a draft of the same versions waits already, or the disk failed.
    """
    missing = draft.missing()
    kept = {role: md for role, md in draft.documents.items() if role in missing or role in {"root", "targets"}}
    then = {
        role: {
            path: Put(text=None if data is None else data.decode(), before=_listed_hash(state, role, path))
            for path, data in one.items()
        }
        for role, one in puts.items()
        if role not in kept and state is not None
    }
    files = {path: data for role in kept for path, data in puts.get(role, {}).items() if data is not None}
    name = "-".join(f"{role}-{kept[role].signed.version}" for role in sorted(kept))
    path = folder / f"{name}.json"
    if path.exists():
        raise SyncError(f"{path}: waits for signatures; publish it with edge-sync sign, or delete it, and try again")
    write_draft(path, replace(draft, documents=kept, files=files, then=then))
    return path


def _listed_hash(state: State, role: str, path: str) -> str | None:
    listed = state.targets[role].signed.targets.get(path)
    return listed.hashes["sha256"] if listed else None


def _lack(result: VerificationResult) -> str:
    names = ", ".join(sorted(map(key_label, result.unsigned.values())))
    return f"{result.missing} more of: {names}" if names else f"{result.missing} more, and no other key may sign"
