"""A ceremony: people sign a draft in turns, on machines of their own, and the server publishes it.

Rules this module keeps:
1. Nothing is signed before it was shown: what changes, and the keys and targets that result. What it changes is as the
   draft says; who keeps a root of the ceremony before can have that checked.
2. A draft that lacks signatures is never published. Devices see all of it or nothing.
3. A draft that was published is removed where the drafts are; copies of it are refused, for their versions are taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from edge.errors import SyncError
from gallery_sync.repository.folder import locked
from gallery_sync.repository.keys import DRAFTS_NAME, KeyRing
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.private_keys import first_that_signs
from gallery_sync.repository.public_keys import key_label
from gallery_sync.repository.roles.commit import Committed
from gallery_sync.repository.roles.draft import Draft, is_same, read_draft, write_draft

_SHOWN_TARGETS = 20
_SHOWN_CHARACTERS = 2000  # of a new target


@dataclass(frozen=True)
class Signed:
    """What signing a draft did."""

    signed_by: str  # the name of the key
    roles: tuple[str, ...]  # that it signed
    missing: Mapping[str, str]  # whose signatures the draft still lacks, by role


def sign_draft(path: Path, uri: str, root: bytes | None = None) -> Signed:
    """Sign every document of a draft that a key may sign, and write the draft back.

    Args:
        path: of the draft.
        uri: the address of a private key, see `gallery_sync.repository.private_keys`; or the path of its file.
        root: your own copy of the newest root, from which the draft must start; None: it is not checked.

    Raises:
        SyncError: the draft is damaged, the key cannot be used, or the draft does not wait for it.
    """
    draft = read_draft(path)
    if root is not None and (base := draft.base.get("root")) is not None and not is_same(base, root):
        raise SyncError(
            f"{path}: starts from another root than yours; somebody changed it, or there was a newer ceremony"
        )
    address = uri if ":" in uri else f"file2:{Path(uri).absolute()}"
    found = first_that_signs(address, draft.candidates(), Path.cwd())
    if found is None:
        waits = "; ".join(f"{role}: {lacks}" for role, lacks in draft.missing().items()) or "for nobody, publish it"
        raise SyncError(f"{address}: {path} does not wait for this key; it waits for {waits}")
    public, signer = found
    signed = draft.signed_by(public, signer, address)
    roles = tuple(role for role, md in signed.documents.items() if md.signatures != draft.documents[role].signatures)
    write_draft(path, signed)
    return Signed(key_label(public), roles, signed.missing())


def publish_draft(path: Path, repo: Path, keys: KeyRing, now: datetime) -> Committed:
    """Publish a draft that has all its signatures; keys that are here sign first.

    Raises:
        SyncError: signatures are missing, the repository changed since the draft was made, or the disk failed.
    """
    draft = read_draft(path).signed_with(keys)
    if missing := draft.missing():
        told = "; ".join(f"{role}: {lacks}" for role, lacks in missing.items())
        raise SyncError(f"{path}: signatures are missing: {told}")
    repo.mkdir(parents=True, exist_ok=True)
    with locked(repo):
        done = SignedMetadata.for_draft(repo, keys, draft).commit(now)
    if not done.is_published:
        raise SyncError(f"{repo}: publishing the draft needs more signatures: {done.draft}")
    for copy in (path, keys.folder / DRAFTS_NAME / path.name):
        copy.unlink(missing_ok=True)
    return done


def describe(draft: Draft) -> Iterator[str]:
    """Yield lines that say what a draft changes, for whoever signs it."""
    yield f"line {draft.about.line}, policy {draft.about.policy}, made at {draft.made_at}"
    for role, md in draft.documents.items():
        before = draft.base.get(role)
        old = before.signed if before else None
        version = f"version {old.version} -> {md.signed.version}" if old else f"version {md.signed.version}, the first"
        yield f"{role}: {version}, expires {md.signed.expires:%Y-%m-%d}"
        yield from _key_lines(old, md.signed)
        yield from _target_lines(old, md.signed, draft.files)
    for role, puts in draft.then.items():
        for path, put in puts.items():
            yield f"  published with it, by {role}: {'removes ' if put.text is None else ''}{path}"
            yield from _text_lines(put.text or "")
    for role, lacks in draft.missing().items():
        yield f"{role} waits for {lacks}"


def _key_lines(old: Any, new: Any) -> Iterator[str]:
    """Yield the keys that result, each marked if it is new, and those that are revoked."""
    for name, threshold, labels in _keys_of(new):
        before = next(((number, found) for other, number, found in _keys_of(old) if other == name), (0, {}))
        change = f" (before: {before[0]})" if before[0] not in {0, threshold} else ""
        yield f"  {name}: {threshold} of {len(labels)} keys{change}"
        for keyid, label in labels.items():
            yield f"    {'  ' if keyid in before[1] else '+ '}{label} {keyid}"
        for keyid in before[1].keys() - labels.keys():
            yield f"    - {before[1][keyid]} {keyid}"


def _keys_of(signed: Any) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Yield each role whose keys a document lists, with its threshold and the names of the keys by their ids."""
    delegations = getattr(signed, "delegations", None)
    roles, keys = (delegations.roles, delegations.keys) if delegations else (getattr(signed, "roles", {}), {})
    for name, role in (roles or {}).items():
        found = keys or signed.keys
        yield name, role.threshold, {keyid: key_label(found[keyid]) for keyid in role.keyids}


def _target_lines(old: Any, new: Any, files: Mapping[str, bytes]) -> Iterator[str]:
    before, after = getattr(old, "targets", None) or {}, getattr(new, "targets", None) or {}
    changed = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
    if after or before:
        yield f"  {len(after)} targets, {len(changed)} of them changed or removed"
    for path in changed[:_SHOWN_TARGETS]:
        mark = "+" if path not in before else "-" if path not in after else "~"
        yield f"    {mark} {path}" + (f" {after[path].hashes['sha256']}" if path in after else "")
        yield from _text_lines(files.get(path, b"").decode())
    if len(changed) > _SHOWN_TARGETS:
        yield f"    and {len(changed) - _SHOWN_TARGETS} more"


def _text_lines(text: str) -> Iterator[str]:
    if text:
        shown = text[:_SHOWN_CHARACTERS] + ("…" if len(text) > _SHOWN_CHARACTERS else "")
        yield "      " + "".join(one if one.isprintable() else ascii(one)[1:-1] for one in shown)
