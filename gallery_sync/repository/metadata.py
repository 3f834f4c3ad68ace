"""The signed metadata of a repository: opened, read, changed, and published by a commit.

Rules this module keeps:
1. What was changed on the server since it was signed is never signed again: everything is verified when it is read.
2. A repository that came back from an old copy is not used: what was published last is kept beside the keys.
3. A change is in memory until `commit`; gallery_sync.repository.roles.commit writes it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from tuf.api.metadata import Key, Root

from edge.errors import SyncError
from gallery_sync.formats.fields import LARGEST_DOCUMENT_BYTES
from gallery_sync.repository.files import read_file, write_file
from gallery_sync.repository.keys import KeyRing, RoleKeys
from gallery_sync.repository.private_keys import HeldKey
from gallery_sync.repository.roles.changes import Changes, SignedTarget
from gallery_sync.repository.roles.commit import Committed, commit
from gallery_sync.repository.roles.delegations import first_metadata, set_keys
from gallery_sync.repository.roles.draft import Draft
from gallery_sync.repository.roles.expiry import Expiry, expiry_of
from gallery_sync.repository.roles.signing import check_clock
from gallery_sync.repository.roles.state import (
    DELEGATED_ROLES,
    LARGEST_BYTES,
    MOST_OFFLINE_DAYS,
    REPOSITORY_NAME,
    TOP_ROLES,
    WAY_OUT,
    About,
    State,
    about_bytes,
    file_name,
    load,
    make_about,
    read_about,
    read_metadata,
    root_versions,
    target_file,
)

log = logging.getLogger(__name__)


class SignedMetadata:
    """The metadata of one repository, with changes that wait for `commit`. Hold its lock while you use it."""

    def __init__(self, repo: Path, about: About, keys: KeyRing | None, state: State | None) -> None:
        self.repo, self.about = repo, about
        self._keys = keys
        self._changes = Changes(repo, about.line, state)

    @classmethod
    def create(
        cls,
        repo: Path,
        line: str,
        policy: str,
        keys: KeyRing,
        now: datetime,
        *,
        offline_days: int = MOST_OFFLINE_DAYS,
    ) -> SignedMetadata:
        """Make the metadata of a new repository, signed with keys that are all here.

        Raises:
            SyncError: there is a repository, a value or key is wrong, a key is not here, or the disk failed.
        """
        made, done = cls.begin(repo, line, policy, keys, now, offline_days=offline_days)
        if not done.is_published:
            raise SyncError(f"{repo}: {done.draft} waits for signatures; sign and publish it first")
        return made

    @classmethod
    def begin(
        cls,
        repo: Path,
        line: str,
        policy: str,
        keys: KeyRing,
        now: datetime,
        *,
        offline_days: int = MOST_OFFLINE_DAYS,
        above: Mapping[str, int] | None = None,
    ) -> tuple[SignedMetadata, Committed]:
        """Make the metadata of a new repository; where keys are not here, a draft that waits for them.

        Args:
            repo: the folder; made if it is not there.
            line: product line; a repository has one.
            policy: `online` or `offline`.
            keys: every role with its threshold and public keys.
            now: UTC.
            offline_days: of an offline line: how long devices trust what they have.
            above: versions that devices may have seen, by role; new ones are larger.

        Raises:
            SyncError: there is a repository, a value or key is wrong, or the disk failed.
        """
        about = make_about(line, policy, offline_days)
        if keys.trusted_root() is not None and not (repo / "metadata/timestamp.json").exists():
            raise SyncError(
                f"{keys.folder}: holds the keys of a repository; if that is lost, run edge-sync recover; for another "
                "repository give another folder of keys"
            )
        versions = list(root_versions(repo / "metadata"))
        if versions not in ([], [1]) or (repo / "metadata/timestamp.json").exists():
            raise SyncError(f"{repo}: is a repository already; give another folder, or run edge-sync rotate or recover")
        write_file(repo / REPOSITORY_NAME, about_bytes(about))
        made = cls(repo, about, keys, None)
        root, roles = first_metadata(keys)
        made._changes.begin(root, roles, above or {}, fixed=False)
        done = made.commit(now)
        return made, done

    @classmethod
    def open(cls, repo: Path, keys: KeyRing | None = None, now: datetime | None = None) -> SignedMetadata:
        """Read and verify the metadata of a repository.

        Args:
            repo: the repository folder.
            keys: with which to sign; None: only to read.
            now: UTC; refused if the clock is wrong; None: no matter, `commit` looks again.

        Raises:
            SyncError: it is no repository, nothing is published yet, or metadata is damaged or not signed.
        """
        made = cls.open_older(repo, keys)
        behind = (keys.published() if keys else {}).get("timestamp", 0)
        if made.version("timestamp") < behind:
            raise SyncError(
                f"{repo}: found version {made.version('timestamp')} of timestamp, and version {behind} was published; "
                "it was restored from an old copy? run edge-sync recover"
            )
        made.check_clock(now)
        return made

    @classmethod
    def open_older(cls, repo: Path, keys: KeyRing | None) -> SignedMetadata:
        """Read and verify the metadata of a repository that may be older than what was published.

        Raises:
            SyncError: as `open`.
        """
        about = read_about(repo)
        state = load(repo, keys.trusted_root() if keys else None)
        if state is None:
            raise SyncError(
                f"{repo}: has no metadata/timestamp.json; publish its first draft with edge-sync sign --publish; "
                "if there was one, run edge-sync recover"
            )
        return cls(repo, about, keys, state)

    @classmethod
    def for_draft(cls, repo: Path, keys: KeyRing, draft: Draft) -> SignedMetadata:
        """Open a repository, also a new or a recovered one, with the documents of a draft; `commit` publishes them.

        Raises:
            SyncError: as `open` and `adopt`.
        """
        is_new = not (repo / "metadata/timestamp.json").exists()
        if is_new and "root" not in draft.documents:
            raise SyncError(f"{repo}: nothing is published here, and the draft has no root; give the right repository")
        made = cls(repo, draft.about, keys, None) if is_new else cls.open(repo, keys)
        made.adopt(draft)
        return made

    @classmethod
    def again(cls, repo: Path, keys: KeyRing, about: About, root: bytes, above: Mapping[str, int]) -> SignedMetadata:
        """Begin the metadata of a repository that was lost but for its root; `commit` publishes it.

        Args:
            repo: the folder.
            keys: with which to sign.
            about: line and policy.
            root: the newest root.
            above: versions that devices may have seen, by role; new ones are larger.

        Raises:
            SyncError: the root is damaged, or a role has no keys.
        """
        made = cls(repo, about, keys, None)
        _, roles = first_metadata(keys)
        made._changes.begin(read_metadata(Root, root, "root.json beside the keys"), roles, above, fixed=True)
        return made

    def check_clock(self, now: datetime | None) -> None:
        """Refuse a clock that is wrong; None: no matter.

        Raises:
            SyncError: it is before the last signature, or years after it.
        """
        if now is not None:
            check_clock(self._changes.state, now)

    # Reading

    def version(self, role: str) -> int:
        """Return the published version of a role; 0 if there is none."""
        return self._changes.version(role)

    def root_bytes(self) -> bytes:
        """Return the newest published root: what a device enrols with.

        Raises:
            SyncError: it cannot be read.
        """
        path = self.repo / "metadata" / file_name("root", self.version("root"))
        return read_file(path, LARGEST_BYTES["root"], WAY_OUT)

    def targets(self, role: str) -> dict[str, SignedTarget]:
        """Return what a role lists, with changes that wait for `commit`."""
        return self._changes.targets(role)

    def read_target(self, path: str) -> bytes | None:
        """Return the content of a target, verified; None if no role lists it.

        Raises:
            SyncError: a role lists it, and its file is missing or damaged.
        """
        for role in DELEGATED_ROLES:
            if path in self._changes.puts.get(role, {}):
                return self._changes.puts[role][path]
        for role in DELEGATED_ROLES:
            listed = self._changes.current(role).signed.targets.get(path)
            if listed is not None:
                where = self.repo / target_file(path, listed.hashes["sha256"])
                data = read_file(where, LARGEST_DOCUMENT_BYTES, WAY_OUT)
                try:
                    listed.verify_length_and_hashes(data)
                except Exception as error:
                    raise SyncError(f"{where}: differs from what the role {role} signed; restore it") from error
                return data
        return None

    def role_keys(self, role: str) -> RoleKeys:
        """Return the published keys of a role, with the addresses of those that are here."""
        by = self._changes.delegator(role)
        one = by.get_delegated_role(role)
        return RoleKeys(one.threshold, tuple(self._held(by.get_key(keyid)) for keyid in one.keyids))

    def expiry(self) -> list[Expiry]:
        """Return how fresh each role is."""
        return expiry_of(self._changes, self.about)

    # Changes

    def put(self, role: str, path: str, data: bytes) -> None:
        """Add or replace a target; `commit` publishes it.

        Raises:
            SyncError: the role may not list this path, or the content is too large or not text.
        """
        self._changes.put(role, path, data)

    def remove(self, role: str, path: str) -> None:
        """Remove a target; nothing happens if the role does not list it.

        Raises:
            SyncError: the role may not list this path.
        """
        self._changes.remove(role, path)

    def set_role(self, role: str, threshold: int, keys: Sequence[HeldKey]) -> None:
        """Give a role other keys; `commit` signs everything again that needs it.

        Raises:
            SyncError: the keys and the threshold do not fit, or the role is unknown.
        """
        by = self._changes.edit_root() if role in TOP_ROLES else self._changes.edit("targets")
        set_keys(by.signed, role, threshold, keys)

    def use(self, keys: KeyRing) -> None:
        """Sign with other keys than those it was opened with."""
        self._keys = keys

    def renew(self, role: str) -> None:
        """Sign a role again without other changes, so that it expires later."""
        if role == "root":
            self._changes.edit_root()
        elif role in {"targets", *DELEGATED_ROLES}:
            self._changes.edit(role)

    def set_policy(self, policy: str, offline_days: int = MOST_OFFLINE_DAYS) -> None:
        """Change how long metadata lives, and sign everything again.

        Raises:
            SyncError: a value is wrong.
        """
        self.about = make_about(self.about.line, policy, offline_days)
        for role in DELEGATED_ROLES:
            self._changes.edit(role)

    def number_above(self, versions: Mapping[str, int]) -> None:
        """Give roles new versions above those that devices may have seen, and sign them again.

        Args:
            versions: by role, all of which are signed again.
        """
        self._changes.number_above(versions)

    def adopt(self, draft: Draft) -> None:
        """Take the documents of a signed draft; `commit` publishes them.

        Raises:
            SyncError: it is of another repository, or the repository changed since it was made.
        """
        self._changes.adopt(draft)
        self.about = draft.about

    # Signing

    def refresh(self, now: datetime) -> Committed:
        """Sign snapshot and timestamp again, and every role past half of its life whose keys are here.

        Raises:
            SyncError: the clock is wrong, a key cannot be used, or the disk failed.
        """
        warnings = []
        for one in self.expiry():
            if one.role in {"snapshot", "timestamp"} or one.state(now) == "fresh":
                continue
            if self.can_sign(one.role):
                self.renew(one.role)
            else:
                warnings.append(one.warning(now))
        try:
            done = self._commit(now, force=True)
        except SyncError as error:  # such as a key service that is down: devices need a fresh timestamp all the same
            if not self._changes.documents():
                raise
            self._changes.drop_documents()
            warnings.append(f"only snapshot and timestamp were signed again: {error}")
            done = self._commit(now, force=True)
        return Committed(done.versions, done.draft, done.missing, (*warnings, *done.warnings))

    def commit(self, now: datetime) -> Committed:
        """Sign and publish what was changed; nothing is written if nothing was.

        Args:
            now: UTC.

        Raises:
            SyncError: the clock is wrong, a key cannot be used, the repository changed meanwhile, or the disk failed.
        """
        return self._commit(now, force=False)

    def _commit(self, now: datetime, *, force: bool) -> Committed:
        if self._keys is None:
            raise SyncError(f"{self.repo}: opened without keys; give the folder of the keys")
        done = commit(self._changes, self.about, self._keys, now, force=force)
        if done.versions:
            self._settle(self._keys)
            log.info("%s: published %s", self.repo, ", ".join(f"{role} {one}" for role, one in done.versions.items()))
        return done

    def _settle(self, keys: KeyRing) -> None:
        """Forget the changes: they are published."""
        self._changes = Changes(self.repo, self.about.line, load(self.repo, keys.trusted_root()))
        every = (*TOP_ROLES, *DELEGATED_ROLES)
        versions, roles = {role: self.version(role) for role in every}, {role: self.role_keys(role) for role in every}
        folder = self.repo / "metadata"
        roots = {version: folder / file_name("root", version) for version in root_versions(folder)}
        self._keys = keys.keep_published(roots, versions, roles)

    def can_sign(self, role: str) -> bool:
        """Return whether enough keys of a role are here."""
        one = self.role_keys(role)
        return sum(key.uri is not None for key in one.keys) >= one.threshold

    def _held(self, public: Key) -> HeldKey:
        return HeldKey(public, self._keys.uri_of(public.keyid) if self._keys else None)


def expiry_report(repo: Path, now: datetime) -> list[tuple[Expiry, str]]:
    """Return how fresh each role of a repository is: its versions and times, and `fresh`, `half` or `expired`.

    Raises:
        SyncError: the metadata cannot be read or verified.
    """
    return [(one, one.state(now)) for one in SignedMetadata.open(repo).expiry()]
