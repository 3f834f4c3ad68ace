"""The changes of a repository's metadata that wait for a commit, over what is published. It reads and writes no file.

Rules this module keeps:
1. No role is ever dropped. A change of a role is a change of a copy: what is published stays as it was verified.
2. What a draft decided does not change until it is published.
3. A role whose published metadata is not signed by the keys that it has now is signed again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from edge.errors import SyncError
from gallery_sync.formats.fields import LARGEST_DOCUMENT_BYTES
from gallery_sync.repository.roles.delegations import check_path, role_of
from gallery_sync.repository.roles.draft import Draft
from gallery_sync.repository.roles.signing import Versions
from gallery_sync.repository.roles.state import DELEGATED_ROLES, TOP_ROLES, State, verifies


@dataclass(frozen=True)
class SignedTarget:
    """A target as a role lists it."""

    sha256: str
    size: int  # bytes


class Changes:
    """What a commit publishes: the metadata that is published, with changes.

    Args:
        repo: the repository folder, for messages.
        line: product line of the repository.
        state: what is published; None: nothing.
    """

    def __init__(self, repo: Path, line: str, state: State | None) -> None:
        self.repo, self.line, self.state = repo, line, state
        self.root: Metadata[Root] | None = None  # changed or new
        self.roles: dict[str, Metadata[Targets]] = {}  # likewise; targets, models, rollout and gallery
        self.puts: dict[str, dict[str, bytes | None]] = {}  # by role and path; None: removed
        self.above: dict[str, int] = {}  # versions that are taken, see `number_above`
        self._fixed: set[str] = set()  # roles whose new metadata comes from a draft: nothing may change in it

    def begin(
        self, root: Metadata[Root], roles: dict[str, Metadata[Targets]], above: Mapping[str, int], *, fixed: bool
    ) -> None:
        """Take the metadata of a new repository.

        Args:
            root: its root.
            roles: the other roles that list targets or keys.
            above: versions that devices may have seen, by role; new ones are larger.
            fixed: the root was published already, and stays as it is.
        """
        self.root, self.roles, self.above = root, roles, dict(above)
        if fixed:
            self._fixed.add("root")

    # Reading

    def version(self, role: str) -> int:
        """Return the published version of a role; 0 if there is none."""
        return self.state.of(role).signed.version if self.state else 0

    def versions(self) -> Versions:
        """Return what gives each role its next version."""
        return Versions(self.state, self.current("root").signed, self.above)

    def current(self, role: str) -> Metadata[Any]:
        """Return the metadata of a role, changed or as published.

        Raises:
            SyncError: the role has none yet.
        """
        staged = self.root if role == "root" else self.roles.get(role)
        if staged is not None:
            return staged
        if self.state is None:
            raise SyncError(f"{self.repo}: has no metadata of {role} yet")
        return self.state.of(role)

    def delegator(self, role: str) -> Root | Targets:
        """Return what lists the keys of a role."""
        signed: Root | Targets = self.current("root" if role in TOP_ROLES else "targets").signed
        return signed

    def targets(self, role: str) -> dict[str, SignedTarget]:
        """Return what a role lists, with changes."""
        listed = {path: _signed_target(one) for path, one in self.current(role).signed.targets.items()}
        for path, data in self.puts.get(role, {}).items():
            if data is None:
                listed.pop(path, None)
            else:
                listed[path] = _signed_target(TargetFile.from_data(path, data, ["sha256"]))
        return listed

    def documents(self) -> dict[str, Metadata[Any]]:
        """Return the metadata of every role that changed."""
        return {**({"root": self.root} if self.root else {}), **self.roles}

    def is_fixed(self, role: str) -> bool:
        """Return whether a draft decided the metadata of a role."""
        return role in self._fixed

    # Changing

    def put(self, role: str, path: str, data: bytes) -> None:
        """Add or replace a target.

        Raises:
            SyncError: the role may not list this path, or the content is too large or not text.
        """
        check_path(self.line, role, path)
        if len(data) > LARGEST_DOCUMENT_BYTES:
            raise SyncError(f"{path}: found {len(data)} bytes, expected at most {LARGEST_DOCUMENT_BYTES}")
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise SyncError(f"{path}: found bytes that are not UTF-8; a target is a JSON document") from error
        self.puts.setdefault(role, {})[path] = data

    def remove(self, role: str, path: str) -> None:
        """Remove a target; nothing happens if the role does not list it.

        Raises:
            SyncError: the role may not list this path.
        """
        check_path(self.line, role, path)
        self.puts.setdefault(role, {})[path] = None

    def edit(self, role: str) -> Metadata[Targets]:
        """Return the metadata of a role to be changed; the next commit signs it again.

        Raises:
            SyncError: a draft decided it.
        """
        if role in self._fixed:
            raise SyncError(f"{self.repo}: the draft decides what {role} lists; publish it first")
        if role not in self.roles:
            self.roles[role] = copy.deepcopy(self.current(role))
        return self.roles[role]

    def edit_root(self) -> Metadata[Root]:
        """Return the root to be changed; the next commit signs it again."""
        if self.root is None:
            self.root = copy.deepcopy(self.current("root"))
        return self.root

    def number_above(self, versions: Mapping[str, int]) -> None:
        """Give roles new versions above those that devices may have seen, and sign them again."""
        self.above = dict(versions)
        for role in ("targets", *DELEGATED_ROLES):
            if role in versions:
                self.edit(role)

    def adopt(self, draft: Draft) -> None:
        """Take the documents of a signed draft.

        Raises:
            SyncError: it is of another repository, or the repository changed since it was made.
        """
        if draft.about.line != self.line:
            raise SyncError(f"{self.repo}: found a draft of line {draft.about.line!r}, expected {self.line!r}")
        self.above = dict(draft.above)
        if "root" in draft.documents:
            self.root = draft.documents["root"]
        versions = self.versions()
        for role, md in draft.documents.items():
            if self.state is not None and md.signed.version != versions.after(role):
                raise SyncError(
                    f"{self.repo}: the draft makes version {md.signed.version} of {role}, and version "
                    f"{self.version(role)} is published; make a new draft"
                )
            if role != "root":
                self.roles[role] = md
            self._fixed.add(role)
        if self.state is None:
            for role in DELEGATED_ROLES:
                self.roles.setdefault(role, Metadata(Targets()))
        for path, data in draft.files.items():
            self.puts.setdefault(role_of(path), {})[path] = data
        self._adopt_puts(draft)

    def _adopt_puts(self, draft: Draft) -> None:
        for role, puts in draft.then.items():
            for path, put in puts.items():
                listed = self.current(role).signed.targets.get(path)
                if self.state is not None and (listed.hashes["sha256"] if listed else None) != put.before:
                    raise SyncError(f"{self.repo}: {path} changed since the draft was made; make a new draft")
                check_path(self.line, role, path)
                self.puts.setdefault(role, {})[path] = None if put.text is None else put.text.encode()

    # Parts of a commit

    def apply_puts(self) -> None:
        """Let each role list its targets that were put, and no longer those that were removed."""
        for role, puts in self.puts.items():
            for path, data in puts.items():
                listed = self.current(role).signed.targets.get(path)
                new = None if data is None else TargetFile.from_data(path, data, ["sha256"])
                if listed == new:
                    continue
                signed = self.edit(role).signed
                if new is None:
                    del signed.targets[path]
                else:
                    signed.targets[path] = new

    def edit_what_lost_its_keys(self) -> None:
        """Edit every role whose published metadata is not signed by the keys that it has now."""
        if self.state is None:
            return
        root = self.current("root").signed
        if "targets" not in self.roles and not verifies(root, "targets", self.state.targets["targets"]):
            self.edit("targets")
        targets = self.current("targets").signed
        for role in DELEGATED_ROLES:
            if role not in self.roles and not verifies(targets, role, self.state.targets[role]):
                self.edit(role)

    def drop_documents(self) -> None:
        """Forget the changed metadata, and keep the targets that were put."""
        self.root, self.roles = None, {}


def _signed_target(listed: TargetFile) -> SignedTarget:
    return SignedTarget(listed.hashes["sha256"], listed.length)
