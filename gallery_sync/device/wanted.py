"""What a device should run: the signed documents of the newest release, judged before anything large is fetched.

Rules this module keeps:
1. A release names its bundle head by hash, and the head must be the signed target of that bundle: a mix of two releases
   is refused.
2. A release is refused, with a reason that programs can read, unless it is of the device's line, follows the newest
   release that the device had, keeps the security floor, and can run with this version of finesight.
3. Each category is taken in the embedding space of its embedder, or in one that the bundle declares compatible. Equal
   length of the vectors is not enough.
4. Only small documents are read here, each with a limit; the sizes of everything else are added up first.
5. The base and the rollouts of a line are read from the same verified metadata. That neither goes back is kept by the
   version floors of gallery_sync.trust. What is chosen of them passes every check of rule 2, whoever chose it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

import edge
from edge.errors import one_line
from edge.manifest.embedder import EmbedderModel
from edge.manifest.manifest import Manifest
from gallery_sync.command_line import utc_now
from gallery_sync.device.choice import Choice, choose
from gallery_sync.device.identity import NOBODY, Identity
from gallery_sync.formats.documents import (
    BundleHead,
    GalleryLog,
    Release,
    SpaceLog,
    bundle_target,
    gallery_targets,
    release_target,
)
from gallery_sync.formats.fields import (
    LARGEST_DOCUMENT_BYTES,
    LARGEST_RELEASE_BYTES,
    ObjectRef,
    parse,
    parse_bundle_manifest,
)
from gallery_sync.formats.rollouts import Plan, Rollouts, rollouts_target
from gallery_sync.gallery_log.segment_file import MOST_BYTES as LARGEST_SEGMENT_BYTES
from gallery_sync.transport.errors import ReleaseError
from gallery_sync.trust.floors import MOST_AHEAD

LARGEST_LOGS_BYTES = 64 << 20  # the gallery logs of all categories
LARGEST_RELEASE_JSON_BYTES = 64 << 10
Reason = Literal[
    "absent",
    "mixed",
    "line",
    "older",
    "ahead",
    "security_floor",
    "needs",
    "runtime",
    "gallery",
    "space",
    "change",
    "stays",
]


class RefusedError(ReleaseError):
    """A release is signed, but this device must not run it. Another attempt gives the same."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason: Reason = reason
        self.choice: Choice | None = None  # that is refused; None: it came to none


class SignedFile(Protocol):
    """A small signed document."""

    @property
    def data(self) -> bytes:
        """Its content, verified."""
        ...

    @property
    def sha256(self) -> str:
        """The hash of its content."""
        ...


class SignedFiles(Protocol):
    """The signed documents of a repository, as gallery_sync.trust.client.TrustedClient gives them."""

    def target(self, path: str, limit_bytes: int) -> SignedFile | None:
        """Return a verified document; None if nobody signed one of this name."""
        ...


class Objects(Protocol):
    """The immutable objects of a repository, as gallery_sync.transport.download.Fetcher gives them."""

    def get_document(self, ref: ObjectRef, name: str) -> bytes:
        """Return a small verified object."""
        ...


@dataclass(frozen=True, slots=True)
class Known:
    """What the device had, and below which it does not go."""

    line: str
    sequence: int = 0  # of the newest release that it had; 0: none
    security_floor: int = 0  # the smallest sequence number that a bundle may have
    runs: int = 0  # sequence of the release that is active; 0: none
    begun: int = 0  # of the release that it is preparing; 0: none
    identity: Identity = NOBODY
    now: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A release that this device may run, with its signed documents."""

    release: Release
    head: BundleHead
    manifest_json: bytes
    manifest: Manifest
    logs: dict[str, GalleryLog]  # by category, of those that the bundle embeds
    plan: Plan | None = None  # that brings the release, and is under way
    waits: str | None = None  # why it is not what other devices take

    @property
    def what(self) -> str:
        """Its name in messages."""
        return f"release {self.release.sequence}"

    def files(self) -> dict[str, ObjectRef]:
        """Return the files of the bundle by their path in it, without the manifest."""
        return {file.path: ObjectRef(sha256=file.sha256, size=file.size) for file in self.manifest.files}

    def spaces(self) -> dict[str, SpaceLog]:
        """Return the states of each category in the embedding space that the bundle searches.

        A category that has no gallery at this release is left out.
        """
        found = {}
        for embedder in self.manifest.embedders:
            for category in embedder.categories:
                if log := self.logs.get(category):
                    space = choose_space(embedder, log, self.release.gallery_sequence)
                    if space is not None:
                        found[category] = space
        return found

    @property
    def may_change_much(self) -> bool:
        """Whether the signers of the bundle allow its gallery to change by more than the device's limit."""
        return 0 < self.release.gallery_sequence <= self.head.big_change_to


def read_wanted(client: SignedFiles, objects: Objects, known: Known) -> Wanted:
    """Read which release this device takes, and judge whether it may run it.

    Args:
        client: gives the signed documents, from metadata that was refreshed.
        objects: gives the bundle manifest.
        known: what the device had.

    Raises:
        RefusedError: the release is signed, but not for this device; `stays`: the device stays at the one that it has.
        ReleaseError: a document is wrong.
        SyncError: the network failed.
    """
    choice = read_choice(client, known)
    if choice.release is None:
        raise RefusedError("stays", f"this device stays at release {known.runs}: {choice.reason}")
    try:
        return _judge(client, objects, known, choice, choice.release)
    except RefusedError as error:
        error.choice = choice
        raise


def _judge(client: SignedFiles, objects: Objects, known: Known, choice: Choice, release: Release) -> Wanted:
    head, manifest_json, manifest = _read_bundle(client, objects, release)
    check_bundle(release, head, manifest, known)
    categories = [category for embedder in manifest.embedders for category in embedder.categories]
    logs = read_logs(client, known.line, categories)
    wanted = Wanted(release, head, manifest_json, manifest, logs, choice.plan, choice.reason)
    _check_logs(wanted)
    check_sizes(wanted)
    return wanted


def read_choice(client: SignedFiles, known: Known) -> Choice:
    """Read the base and the rollouts of a line, and choose the release that this device takes.

    Raises:
        RefusedError: there is none, one is of another line, or all are older or one is far newer than what it had.
    """
    line, path = known.line, release_target(known.line)
    signed, listed = client.target(path, LARGEST_RELEASE_JSON_BYTES), _read_rollouts(client, line)
    base = parse(Release, signed.data, path) if signed else None
    releases = [*([base] if base else []), *(listed.releases() if listed else [])]
    for release in releases:
        if release.line != line:
            raise RefusedError("line", f"found a release of line {release.line!r}, expected {line!r}")
    newest = max((release.sequence for release in releases), default=0)
    if releases and newest < known.sequence:
        raise RefusedError(
            "older",
            f"release {newest} is older than release {known.sequence}, which this device had; publish a "
            "newer one: to go back, edge-sync rollback makes one of an earlier pair",
        )
    choice = choose(base, listed, known.identity.labels, known.identity.device_id, known.runs, known.now, known.begun)
    if choice.release is None and known.runs == 0:
        which = f"line {line!r}" + (" for this device yet" if releases else "")
        raise RefusedError(
            "absent", f"the repository has no release of {which}; check the device's line, or publish a release"
        )
    _check_not_ahead(choice, base, known)
    return choice


def _read_rollouts(client: SignedFiles, line: str) -> Rollouts | None:
    path = rollouts_target(line)
    if (signed := client.target(path, LARGEST_DOCUMENT_BYTES)) is None:
        return None
    rollouts = parse(Rollouts, signed.data, path)
    if rollouts.line != line:
        raise RefusedError("line", f"found the rollouts of line {rollouts.line!r}, expected {line!r}")
    return rollouts


def _check_not_ahead(choice: Choice, base: Release | None, known: Known) -> None:
    had = known.sequence
    if base is not None and choice.release != base:
        had = max(had, base.sequence)
    if choice.release is not None and had and choice.release.sequence > had + MOST_AHEAD:
        raise RefusedError(
            "ahead",
            f"release {choice.release.sequence} is more than {MOST_AHEAD} above release {had}, which this device "
            "had; somebody may use the rollout key: rotate it, and publish again",
        )


def _read_bundle(client: SignedFiles, objects: Objects, release: Release) -> tuple[BundleHead, bytes, Manifest]:
    """Read the head and the manifest of a release's bundle; all three name each other."""
    what, path = f"release {release.sequence}", bundle_target(release.line, release.bundle_id)
    signed = client.target(path, LARGEST_DOCUMENT_BYTES)
    if signed is None or signed.sha256 != release.bundle_head:
        found = "no signed head" if signed is None else f"head {signed.sha256}"
        raise RefusedError(
            "mixed",
            f"{what}: found {found} of bundle {release.bundle_id}, expected {release.bundle_head}; publish again",
        )
    head = parse(BundleHead, signed.data, path)
    if (head.line, head.bundle_id) != (release.line, release.bundle_id):
        raise RefusedError(
            "mixed",
            f"{what}: found the head of bundle {head.bundle_id} of line {head.line!r}, expected that of "
            f"{release.bundle_id} of {release.line!r}",
        )
    if head.manifest.size > LARGEST_DOCUMENT_BYTES:
        raise ReleaseError(
            f"{what}: bundle manifest: found {head.manifest.size} bytes, expected at most {LARGEST_DOCUMENT_BYTES}"
        )
    manifest_json = objects.get_document(head.manifest, "bundle manifest")
    manifest = parse_bundle_manifest(manifest_json, f"{what}: bundle {head.bundle_id}")
    if (manifest.bundle_id, manifest.sequence) != (head.bundle_id, head.sequence):
        raise RefusedError(
            "mixed",
            f"{what}: found the manifest of {manifest.bundle_id}, sequence {manifest.sequence}; expected that of "
            f"{head.bundle_id}, sequence {head.sequence}",
        )
    return head, manifest_json, manifest


def check_bundle(release: Release, head: BundleHead, manifest: Manifest, known: Known) -> None:
    """Check that this device may run a bundle with the release's gallery.

    Raises:
        RefusedError: it may not; the message says what to do.
    """
    what = f"release {release.sequence}: bundle {head.bundle_id}"
    if head.sequence < known.security_floor:
        raise RefusedError(
            "security_floor",
            f"{what} has sequence {head.sequence}, and this device runs none below {known.security_floor}; publish a "
            "release of a newer bundle",
        )
    if not runs_with(edge.__version__, head.needs):
        raise RefusedError(
            "needs",
            f"this device runs finesight {edge.__version__}; {what} needs {one_line(head.needs)}; update the package",
        )
    if not manifest.runtimes:
        raise RefusedError(
            "runtime", f"{what}: no form of its models runs with finesight {edge.__version__}; update the package"
        )
    if release.gallery_sequence < head.gallery_from:
        raise RefusedError(
            "gallery",
            f"{what} needs gallery {head.gallery_from} or newer, and the release has {release.gallery_sequence}; "
            "publish a release of a newer gallery",
        )


def runs_with(version: str, needs: str) -> bool:
    """Return whether a version of finesight is at least the one that is needed; a text that is no version never is."""
    needed = re.fullmatch(r"(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?", needs)
    found = re.match(r"(\d+)\.?(\d+)?\.?(\d+)?", version)
    if needed is None or found is None:
        return False
    return [int(part or 0) for part in found.groups()] >= [int(part or 0) for part in needed.groups()]


def read_logs(client: SignedFiles, line: str, categories: Iterable[str]) -> dict[str, GalleryLog]:
    """Read the gallery logs of some categories, by category; of those that have one.

    Raises:
        ReleaseError: a log is wrong, or all of them are too large.
    """
    logs, total = {}, 0
    for category, path in gallery_targets(line, categories).items():
        signed = client.target(path, LARGEST_DOCUMENT_BYTES)
        if signed is None:
            continue
        if (total := total + len(signed.data)) > LARGEST_LOGS_BYTES:
            raise ReleaseError(f"found gallery logs of more than {LARGEST_LOGS_BYTES} bytes; compact the galleries")
        log = parse(GalleryLog, signed.data, path)
        if log.category != category:
            raise RefusedError("mixed", f"{path}: found the log of category {log.category[:80]!r}")
        check_log(log, line, path)
        logs[category] = log
    return logs


def check_log(log: GalleryLog, line: str, where: str) -> None:
    """Check that the states of a log are in order, and that each leads to another.

    Raises:
        RefusedError: they are not.
    """

    def refuse(text: str) -> RefusedError:
        return RefusedError("gallery", f"{where}: {text}; write the log again")

    if log.line != line:
        raise refuse(f"found a gallery log of line {log.line!r}, expected {line!r}")
    spaces = Counter(space.space_id for space in log.spaces)
    if twice := next((space_id for space_id, count in spaces.items() if count > 1), None):
        raise refuse(f"found embedding space {twice} twice")
    for space in log.spaces:
        bases = [base.sequence for base in space.bases]
        results = [segment.sequence for segment in space.segments]
        if bases != sorted(set(bases)) or results != sorted(set(results)):
            raise refuse("found states that are not in order")
        if max([*bases, *results]) > log.sequence:
            raise refuse(f"found state {max([*bases, *results])}, which is newer than the log's {log.sequence}")
        if (size := max((segment.object.size for segment in space.segments), default=0)) > LARGEST_SEGMENT_BYTES:
            raise refuse(f"found a segment of {size} bytes, expected at most {LARGEST_SEGMENT_BYTES}")


def choose_space(embedder: EmbedderModel, log: GalleryLog, gallery_sequence: int) -> SpaceLog | None:
    """Return the states of a category that a release's bundle searches; None if it had no gallery at that sequence.

    Raises:
        RefusedError: it has one, but in other embedding spaces alone.
    """
    declared = [one.space_id for one in embedder.compatible if one.category == log.category]
    found = [space for space_id in (embedder.space_id, *declared) if (space := log.space(space_id))]
    for space in found:
        if (dim := sum(head.dim for head in space.heads)) != embedder.dim:
            raise RefusedError(
                "space",
                f"category {log.category[:80]!r}: found vectors of {dim} numbers, expected {embedder.dim} in embedding "
                f"space {space.space_id}",
            )
        if space.bases[0].sequence <= gallery_sequence:
            return space
    others = [space for space in log.spaces if space.bases[0].sequence <= gallery_sequence]
    if others:
        raise RefusedError(
            "space",
            f"category {log.category[:80]!r}: found its gallery in embedding space {others[0].space_id}, expected "
            f"{embedder.space_id}; embed it with this bundle's embedder, also if the vectors have one length",
        )
    return None


def _check_logs(wanted: Wanted) -> None:
    try:
        wanted.spaces()
    except RefusedError as error:
        raise RefusedError(error.reason, f"{wanted.what} cannot be used: {error}") from error


def check_sizes(wanted: Wanted) -> None:
    """Check how much a device would write for a release.

    Raises:
        ReleaseError: an object has two sizes, or all are too large.
    """
    sizes: dict[str, int] = {}
    for ref in (*wanted.files().values(), *_newest_bases(wanted)):
        if sizes.setdefault(ref.sha256, ref.size) != ref.size:
            raise ReleaseError(f"{wanted.what}: object {ref.sha256} is listed with two sizes")
    if (total := sum(sizes.values())) > LARGEST_RELEASE_BYTES:
        raise ReleaseError(f"{wanted.what}: found {total} bytes, expected at most {LARGEST_RELEASE_BYTES}")


def _newest_bases(wanted: Wanted) -> Iterator[ObjectRef]:
    for space in wanted.spaces().values():
        yield [base for base in space.bases if base.sequence <= wanted.release.gallery_sequence][-1].object
