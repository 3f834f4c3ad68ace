"""Signs the metadata of a repository with python-tuf: the only module that writes `metadata/` and `targets/`.

Rules this module keeps:
1. A commit writes its files in the order of `gallery_sync.repository.metadata_signing`, each durably before the next
   one. Half a commit is invisible, and the next commit writes it again.
2. Snapshot lists every role with its hash. No role is ever dropped, and no version goes back.
3. A role whose keys are not here is never left out: the whole commit becomes a draft, and nothing is written.
4. What was changed on the server since it was signed is never signed again: everything is verified when it is read.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

from tuf.api.metadata import Key, Metadata, Root, TargetFile, Targets

from edge.durable import file_mismatch
from edge.errors import SyncError, one_line
from gallery_sync.formats.fields import LARGEST_DOCUMENT_BYTES
from gallery_sync.repository.files import read_file, write_file
from gallery_sync.repository.keys import DRAFTS_NAME, HeldKey, KeyRing, RoleKeys
from gallery_sync.repository.metadata_draft import Draft, leave_draft
from gallery_sync.repository.metadata_roles import check_path, first_metadata, role_of, set_keys
from gallery_sync.repository.metadata_signing import Signing, Versions, check_clock, target_writes, writes
from gallery_sync.repository.metadata_state import (
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
    read_about,
    read_metadata,
    root_versions,
    target_file,
    verifies,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SignedTarget:
    """A target as a role lists it."""

    sha256: str
    size: int  # bytes


@dataclass(frozen=True)
class Committed:
    """What a commit did."""

    versions: Mapping[str, int] = field(default_factory=dict)  # of the roles that were written; empty: nothing changed
    draft: Path | None = None  # waits for signatures; nothing was written
    missing: Mapping[str, str] = field(default_factory=dict)  # of the draft: whose signatures, by role
    warnings: tuple[str, ...] = ()

    @property
    def is_published(self) -> bool:
        """Return whether devices see the result."""
        return self.draft is None


@dataclass(frozen=True)
class Expiry:
    """How fresh the metadata of a role is."""

    role: str
    version: int
    expires_at: datetime
    warn_at: datetime  # half of its life is over

    def state(self, now: datetime) -> str:
        """Return `fresh`, `half` (sign it soon) or `expired` (devices take nothing new)."""
        return "expired" if now >= self.expires_at else "half" if now >= self.warn_at else "fresh"


class SignedMetadata:
    """The metadata of one repository, with changes that wait for `commit`. Hold its lock while you use it."""

    def __init__(self, repo: Path, about: About, keys: KeyRing | None, state: State | None) -> None:
        self.repo, self.about = repo, about
        self._keys, self._state = keys, state
        self._root: Metadata[Root] | None = None  # changed or new
        self._roles: dict[str, Metadata[Targets]] = {}  # likewise; targets, models, rollout and gallery
        self._fixed: set[str] = set()  # roles whose new metadata comes from a draft: nothing may change in it
        self._puts: dict[str, dict[str, bytes | None]] = {}  # by role and path; None: removed
        self._above: dict[str, int] = {}  # versions that are taken, see `number_above`

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
        about = _new_about(line, policy, offline_days)
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
        made._above = dict(above or {})
        made._root, made._roles = first_metadata(keys)
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
        made._above = dict(above)
        _, made._roles = first_metadata(keys)
        made._root = read_metadata(Root, root, "root.json beside the keys")
        made._fixed.add("root")
        return made

    def check_clock(self, now: datetime | None) -> None:
        """Refuse a clock that is wrong; None: no matter.

        Raises:
            SyncError: it is before the last signature, or years after it.
        """
        if now is not None:
            check_clock(self._state, now)

    # Reading

    def version(self, role: str) -> int:
        """Return the published version of a role; 0 if there is none."""
        return self._state.of(role).signed.version if self._state else 0

    def root_bytes(self) -> bytes:
        """Return the newest published root: what a device enrols with.

        Raises:
            SyncError: it cannot be read.
        """
        path = self.repo / "metadata" / file_name("root", self.version("root"))
        return read_file(path, LARGEST_BYTES["root"], WAY_OUT)

    def targets(self, role: str) -> dict[str, SignedTarget]:
        """Return what a role lists, with changes that wait for `commit`."""
        listed = {path: _signed_target(one) for path, one in self._current(role).signed.targets.items()}
        for path, data in self._puts.get(role, {}).items():
            if data is None:
                listed.pop(path, None)
            else:
                listed[path] = _signed_target(TargetFile.from_data(path, data, ["sha256"]))
        return listed

    def read_target(self, path: str) -> bytes | None:
        """Return the content of a target, verified; None if no role lists it.

        Raises:
            SyncError: a role lists it, and its file is missing or damaged.
        """
        for role in DELEGATED_ROLES:
            if path in self._puts.get(role, {}):
                return self._puts[role][path]
        for role in DELEGATED_ROLES:
            listed = self._current(role).signed.targets.get(path)
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
        by = self._delegator(role)
        one = by.get_delegated_role(role)
        return RoleKeys(one.threshold, tuple(self._held(by.get_key(keyid)) for keyid in one.keyids))

    def expiry(self) -> list[Expiry]:
        """Return how fresh each role is."""
        found = []
        for role in (*TOP_ROLES, *DELEGATED_ROLES):
            signed = self._current(role).signed
            half = self.about.lifetime(role) / 2
            found.append(Expiry(role, signed.version, signed.expires, signed.expires - half))
        return found

    # Changes

    def put(self, role: str, path: str, data: bytes) -> None:
        """Add or replace a target; `commit` publishes it.

        Raises:
            SyncError: the role may not list this path, or the content is too large or not text.
        """
        check_path(self.about.line, role, path)
        if len(data) > LARGEST_DOCUMENT_BYTES:
            raise SyncError(f"{path}: found {len(data)} bytes, expected at most {LARGEST_DOCUMENT_BYTES}")
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise SyncError(f"{path}: found bytes that are not UTF-8; a target is a JSON document") from error
        self._puts.setdefault(role, {})[path] = data

    def remove(self, role: str, path: str) -> None:
        """Remove a target; nothing happens if the role does not list it.

        Raises:
            SyncError: the role may not list this path.
        """
        check_path(self.about.line, role, path)
        self._puts.setdefault(role, {})[path] = None

    def set_role(self, role: str, threshold: int, keys: Sequence[HeldKey]) -> None:
        """Give a role other keys; `commit` signs everything again that needs it.

        Raises:
            SyncError: the keys and the threshold do not fit, or the role is unknown.
        """
        by = self._edit_root() if role in TOP_ROLES else self._edit("targets")
        set_keys(by.signed, role, threshold, keys)

    def use(self, keys: KeyRing) -> None:
        """Sign with other keys than those it was opened with."""
        self._keys = keys

    def renew(self, role: str) -> None:
        """Sign a role again without other changes, so that it expires later."""
        if role == "root":
            self._edit_root()
        elif role in {"targets", *DELEGATED_ROLES}:
            self._edit(role)

    def set_policy(self, policy: str, offline_days: int = MOST_OFFLINE_DAYS) -> None:
        """Change how long metadata lives, and sign everything again.

        Raises:
            SyncError: a value is wrong.
        """
        self.about = _new_about(self.about.line, policy, offline_days)
        for role in DELEGATED_ROLES:
            self._edit(role)

    def number_above(self, versions: Mapping[str, int]) -> None:
        """Give roles new versions above those that devices may have seen, and sign them again.

        Args:
            versions: by role, all of which are signed again.
        """
        self._above = dict(versions)
        for role in ("targets", *DELEGATED_ROLES):
            if role in versions:
                self._edit(role)

    def adopt(self, draft: Draft) -> None:
        """Take the documents of a signed draft; `commit` publishes them.

        Raises:
            SyncError: it is of another repository, or the repository changed since it was made.
        """
        if draft.about.line != self.about.line:
            raise SyncError(f"{self.repo}: found a draft of line {draft.about.line!r}, expected {self.about.line!r}")
        self._above = dict(draft.above)
        if "root" in draft.documents:
            self._root = draft.documents["root"]
        versions = self._versions()
        for role, md in draft.documents.items():
            if self._state is not None and md.signed.version != versions.after(role):
                raise SyncError(
                    f"{self.repo}: the draft makes version {md.signed.version} of {role}, and version "
                    f"{self.version(role)} is published; make a new draft"
                )
            if role != "root":
                self._roles[role] = md
            self._fixed.add(role)
        self.about = draft.about
        if self._state is None:
            for role in DELEGATED_ROLES:
                self._roles.setdefault(role, Metadata(Targets()))
        for path, data in draft.files.items():
            self._puts.setdefault(role_of(path), {})[path] = data
        self._adopt_puts(draft)

    def _adopt_puts(self, draft: Draft) -> None:
        for role, puts in draft.then.items():
            for path, put in puts.items():
                listed = self._current(role).signed.targets.get(path)
                if self._state is not None and (listed.hashes["sha256"] if listed else None) != put.before:
                    raise SyncError(f"{self.repo}: {path} changed since the draft was made; make a new draft")
                check_path(self.about.line, role, path)
                self._puts.setdefault(role, {})[path] = None if put.text is None else put.text.encode()

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
                state = "has expired" if one.state(now) == "expired" else "is past half of its life"
                until = one.expires_at.strftime("%Y-%m-%d")
                warnings.append(f"{one.role} {state} ({until}), and its keys are not here: edge-sync rotate --renew")
        try:
            done = self._commit(now, force=True)
        except SyncError as error:  # such as a key service that is down: devices need a fresh timestamp all the same
            if self._root is None and not self._roles:
                raise
            self._root, self._roles = None, {}
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
        keys, now = self._keys, now.astimezone(timezone.utc)
        if keys is None:
            raise SyncError(f"{self.repo}: opened without keys; give the folder of the keys")
        check_clock(self._state, now)
        self._apply_puts()
        self._sign_again_what_needs_it()
        changed: dict[str, Metadata[Any]] = {**({"root": self._root} if self._root else {}), **self._roles}
        stale = self._state.stale if self._state else frozenset({"snapshot", "timestamp"})
        if not changed and not stale and not force:
            self._repair_targets()
            return Committed()
        versions = self._versions()
        for role, md in changed.items():
            if role not in self._fixed:
                md.signed.version = versions.after(role)
                md.signed.expires = now + self.about.lifetime(role)
                md.signatures.clear()
        base = {role: self._state.of(role) for role in {"root", "targets", *changed}} if self._state else {}
        made_at = now.isoformat(timespec="seconds")
        draft = Draft(self.about, made_at, base, changed, {}, {}, self._above).signed_with(keys)
        if missing := draft.missing():
            path = leave_draft(keys.folder / DRAFTS_NAME, draft, self._state, self._puts)
            return Committed(draft=path, missing=missing)
        self._check_expired(now)
        return self._publish(draft.documents, Signing(self.repo, self.about, keys, versions, now))

    def _publish(self, changed: Mapping[str, Metadata[Any]], signing: Signing) -> Committed:
        every, documents = signing.sign(changed)
        self._check_unchanged()
        if self._state is None or self.about != read_about(self.repo):
            write_file(self.repo / REPOSITORY_NAME, about_bytes(self.about))
        for path, data in writes(self._state, every, documents, self._puts):
            write_file(self.repo / path, data)
        self._settle(signing.keys)
        versions = {role: md.signed.version for role, md in every.items()}
        log.info("%s: published %s", self.repo, ", ".join(f"{role} {number}" for role, number in versions.items()))
        return Committed(versions)

    def _repair_targets(self) -> None:
        """Write the files of targets that are listed as they are, and are missing or damaged."""
        for path, data in target_writes(self._puts):
            if file_mismatch(self.repo / path, len(data), sha256(data).hexdigest()) is not None:
                write_file(self.repo / path, data)
        self._puts = {}

    def _versions(self) -> Versions:
        return Versions(self._state, self._current("root").signed, self._above)

    def _settle(self, keys: KeyRing) -> None:
        """Forget the changes: they are published."""
        self._root, self._roles, self._fixed, self._puts, self._above = None, {}, set(), {}, {}
        self._state = load(self.repo, keys.trusted_root())
        every = (*TOP_ROLES, *DELEGATED_ROLES)
        versions, roles = {role: self.version(role) for role in every}, {role: self.role_keys(role) for role in every}
        folder = self.repo / "metadata"
        roots = {version: folder / file_name("root", version) for version in root_versions(folder)}
        self._keys = keys.keep_published(roots, versions, roles)

    # Parts of a commit

    def _apply_puts(self) -> None:
        for role, puts in self._puts.items():
            for path, data in puts.items():
                listed = self._current(role).signed.targets.get(path)
                new = None if data is None else TargetFile.from_data(path, data, ["sha256"])
                if listed == new:
                    continue
                signed = self._edit(role).signed
                if new is None:
                    del signed.targets[path]
                else:
                    signed.targets[path] = new

    def _sign_again_what_needs_it(self) -> None:
        """Stage every role whose published metadata is not signed by the keys that it has now."""
        if self._state is None:
            return
        root = self._current("root").signed
        if "targets" not in self._roles and not verifies(root, "targets", self._state.targets["targets"]):
            self._edit("targets")
        targets = self._current("targets").signed
        for role in DELEGATED_ROLES:
            if role not in self._roles and not verifies(targets, role, self._state.targets[role]):
                self._edit(role)

    def can_sign(self, role: str) -> bool:
        """Return whether enough keys of a role are here."""
        one = self.role_keys(role)
        return sum(key.uri is not None for key in one.keys) >= one.threshold

    def _check_expired(self, now: datetime) -> None:
        for role in ("root", "targets"):
            if self._current(role).signed.is_expired(now):
                raise SyncError(
                    f"{self.repo}: {role} expired at {self._current(role).signed.expires:%Y-%m-%d}, and devices take "
                    f"nothing new; its holders sign it again: edge-sync rotate {self.repo} --renew {role}"
                )

    def _check_unchanged(self) -> None:
        path = self.repo / "metadata/timestamp.json"
        found = path.read_bytes() if path.exists() else None
        if found != (self._state.timestamp_bytes if self._state else None):
            raise SyncError(f"{path}: changed since it was read; another command published; try again")

    def _current(self, role: str) -> Metadata[Any]:
        staged = self._root if role == "root" else self._roles.get(role)
        if staged is not None:
            return staged
        if self._state is None:
            raise SyncError(f"{self.repo}: has no metadata of {role} yet")
        return self._state.of(role)

    def _edit(self, role: str) -> Metadata[Targets]:
        if role in self._fixed:
            raise SyncError(f"{self.repo}: the draft decides what {role} lists; publish it first")
        if role not in self._roles:
            self._roles[role] = copy.deepcopy(self._current(role))
        return self._roles[role]

    def _edit_root(self) -> Metadata[Root]:
        if self._root is None:
            self._root = copy.deepcopy(self._current("root"))
        return self._root

    def _delegator(self, role: str) -> Root | Targets:
        signed: Root | Targets = self._current("root" if role in TOP_ROLES else "targets").signed
        return signed

    def _held(self, public: Key) -> HeldKey:
        return HeldKey(public, self._keys.uri_of(public.keyid) if self._keys else None)


def expiry_report(repo: Path, now: datetime) -> list[tuple[Expiry, str]]:
    """Return how fresh each role of a repository is: its versions and times, and `fresh`, `half` or `expired`.

    Raises:
        SyncError: the metadata cannot be read or verified.
    """
    return [(one, one.state(now)) for one in SignedMetadata.open(repo).expiry()]


def _new_about(line: str, policy: str, offline_days: int) -> About:
    try:
        return About.model_validate({"line": line, "policy": policy, "offline_days": offline_days})
    except ValueError as error:
        raise SyncError(
            f"found line {one_line(line)!r}, policy {one_line(policy)!r} and {offline_days} days; expected a line of "
            "letters, digits, '.', '_' and '-', the policy online or offline, and 90 to 365 days"
        ) from error


def _signed_target(listed: TargetFile) -> SignedTarget:
    return SignedTarget(listed.hashes["sha256"], listed.length)
