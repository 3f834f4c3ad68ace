"""Changes of the signed rollouts of a line: approve, open, pause, resume, complete, abort, pin and unpin.

Rules this module keeps:
1. A change reads the document again under the lock of the repository. One that was decided for an older revision is
   refused: what an operator did meanwhile wins.
2. One commit makes a change visible as a whole, also where it gives all devices another release.
3. Each change is in the audit log before it is made, see gallery_sync.rollouts.audit.
4. Who plans a rollout does not approve it, except with the option --alone.
5. Whoever aborts a rollout gives all devices a newer release of an earlier pair: devices that took the candidate go
   back by it. Devices with a release of their own get that pair again, under a number above it. Nobody aborts to the
   candidate's pair, or to a release that is held: all devices would get at once what waves were to try.
6. Where signatures of people are missing, the change waits as a draft, and is not begun a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from edge.errors import SyncError
from gallery_sync.formats.documents import Release, release_target
from gallery_sync.formats.fields import canonical_json
from gallery_sync.formats.rollouts import BUCKETS, Gates, Pin, Plan, Rollouts, Selector
from gallery_sync.repository.folder import locked, write_history
from gallery_sync.repository.keys import DRAFTS_NAME, KeyRing
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.published import Published, first_rollouts, put_rollouts, read_published, with_held
from gallery_sync.repository.releases import find_release, rollback_problem
from gallery_sync.rollouts import audit
from gallery_sync.rollouts.endings import again, groups_again, with_base, with_group
from gallery_sync.rollouts.plans import PlanDraft, candidate
from gallery_sync.trust.clock import write_time


class ChangedError(SyncError):
    """The rollouts changed since they were read; look again."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where and by whom rollouts are changed."""

    repo: Path
    keys: KeyRing
    by: str
    now: datetime  # UTC


@dataclass(frozen=True, slots=True)
class Changed:
    """What a change did."""

    what: str
    revision: int
    draft: Path | None = None  # waits for `edge-sync sign`; until then devices see nothing of it
    waits_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Edit:
    """A change before it is signed."""

    rollouts: Rollouts
    details: Mapping[str, Any]  # for the audit log
    releases: tuple[Release, ...] = ()  # that are new, for the history
    base: Release | None = None  # that all devices run from now on; None: as before


_Make = Callable[[Published, Rollouts], _Edit]


def approve(desk: Desk, draft: PlanDraft, *, alone: bool = False) -> Changed:
    """Sign a plan that somebody else made, and open its first wave.

    Raises:
        SyncError: who planned it approves it, another rollout is under way, its release cannot be used, or signing
            failed.
    """
    if not alone and desk.by.strip().casefold() == draft.planned_by.strip().casefold():
        raise SyncError(
            f"rollout {draft.id} was planned by {draft.planned_by}; another person must approve it; if there is "
            "nobody else, give --alone"
        )
    if draft.waves[-1].buckets != BUCKETS:
        raise SyncError(f"rollout {draft.id}: its last wave has not all devices; make another draft")

    def make(published: Published, rollouts: Rollouts) -> _Edit:
        if draft.digest() in approved_digests(audit.read_history(desk.repo, rollouts)[0]):
            raise SyncError(f"{desk.repo}: rollout {draft.id} was approved before; plan another one")
        plan = draft.approved(_check_candidate(published, draft, desk.now), desk.by, desk.now)
        plan = plan.model_copy(update={"open_waves": 1, "opened_at": write_time(desk.now)})
        held = [one for one in rollouts.held if one.sequence != draft.release]
        details = {"release": draft.release, "planned_by": draft.planned_by, "digest": draft.digest(), "alone": alone}
        return _Edit(rollouts.model_copy(update={"plan": plan, "held": held}), {"rollout": draft.id, **details})

    return _change(desk, "approve", make)


def approved_digests(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the digests of the plans that were approved, from the rows of the audit log."""
    return {str(row.get("digest")) for row in rows if (row.get("what"), row["state"]) == ("approve", "done")}


def _check_candidate(published: Published, draft: PlanDraft, now: datetime) -> Release:
    """Return the release of a draft; devices must be able to take it, and to come back from it."""
    if draft.line != published.line:
        raise SyncError(f"{published.repo}: found a draft of line {draft.line!r}, expected {published.line!r}")
    if published.plan is not None:
        raise SyncError(f"{published.repo}: rollout {published.plan.id} is under way; it ends before another begins")
    release = candidate(published, draft.release)
    head, base = published.heads.get(release.bundle_id), published.head
    if head is None or published.head_hashes[head.bundle_id] != release.bundle_head or base is None:
        raise SyncError(f"{published.repo}: release {release.sequence} names no signed bundle; publish it again")
    if head.security_floor > base.sequence:
        raise SyncError(
            f"{published.repo}: devices that confirm release {release.sequence} never run a bundle below "
            f"{head.security_floor} again, and could not go back to bundle {base.bundle_id}; raise the "
            "security floor when a rollout is complete"
        )
    if draft.abort_to is not None:
        _check_abort_target(published, draft.abort_to, release, now)
    return release


def open_next(desk: Desk, *, expected: int | None = None, reason: str | None = None) -> Changed:
    """Open the next wave.

    Args:
        desk: where, and by whom.
        expected: the revision for which this was decided; None: whatever there is.
        reason: why, for the audit log.

    Raises:
        ChangedError: the rollouts have another revision.
        SyncError: there is no next wave, or signing failed.
    """

    def make(_: Published, rollouts: Rollouts) -> _Edit:
        plan = _plan(desk, rollouts)
        if plan.state == "paused":
            raise SyncError(f"{desk.repo}: rollout {plan.id} is paused; edge-sync rollout resume comes first")
        if plan.open_waves >= len(plan.waves):
            raise SyncError(f"{desk.repo}: all waves of rollout {plan.id} are open; edge-sync rollout complete ends it")
        update = {"open_waves": plan.open_waves + 1, "opened_at": write_time(desk.now)}
        details = {"rollout": plan.id, "wave": plan.open_waves + 1, "reason": reason}
        return _Edit(rollouts.model_copy(update={"plan": plan.model_copy(update=update)}), details)

    return _change(desk, "open", make, expected)


def pause(desk: Desk, reason: str | None = None, *, expected: int | None = None) -> Changed:
    """Pause a rollout: no device begins any more.

    Raises:
        ChangedError: the rollouts have another revision than the expected one.
        SyncError: none is under way, it is paused already, or signing failed.
    """

    def make(_: Published, rollouts: Rollouts) -> _Edit:
        plan = _plan(desk, rollouts)
        if plan.state == "paused":
            raise SyncError(f"{desk.repo}: rollout {plan.id} is paused already: {plan.reason or 'no reason was given'}")
        changed = plan.model_copy(update={"state": "paused", "reason": reason[:400] if reason else None})
        return _Edit(rollouts.model_copy(update={"plan": changed}), {"rollout": plan.id, "reason": reason})

    return _change(desk, "pause", make, expected)


def resume(
    desk: Desk, gates: Mapping[str, float], deadline_s: float | None = None, *, expected: int | None = None
) -> Changed:
    """Go on with a paused rollout.

    Args:
        desk: where, and by whom.
        gates: fields of `Gates` that change; the controller pauses again where a gate does not hold.
        deadline_s: from now; None: as before.
        expected: the revision for which this was decided; None: whatever there is.

    Raises:
        SyncError: none is under way or it is not paused, its deadline is over, or signing failed.
    """

    def make(_: Published, rollouts: Rollouts) -> _Edit:
        plan = _plan(desk, rollouts)
        if plan.state != "paused":
            raise SyncError(f"{desk.repo}: rollout {plan.id} is not paused")
        deadline = plan.deadline if deadline_s is None else write_time(desk.now + timedelta(seconds=deadline_s))
        if deadline is not None and deadline <= write_time(desk.now):
            raise SyncError(f"{desk.repo}: the deadline of rollout {plan.id} is over; give another one: --deadline 7d")
        try:
            changed_gates = Gates.model_validate({**plan.gates.model_dump(), **gates})
        except ValueError as error:
            raise SyncError(f"found the gates {dict(gates)}, expected percentages from 0 to 100") from error
        update = {"state": "running", "reason": None, "deadline": deadline, "gates": changed_gates}
        details = {"rollout": plan.id, "gates": dict(gates), "deadline": deadline}
        return _Edit(rollouts.model_copy(update={"plan": plan.model_copy(update=update)}), details)

    return _change(desk, "resume", make, expected)


def complete(desk: Desk, *, expected: int | None = None, reason: str | None = None) -> Changed:
    """Make the candidate what all devices that the plan selects run.

    Raises:
        ChangedError: the rollouts have another revision than the expected one.
        SyncError: none is under way, a wave is not open yet, or signing failed.
    """

    def make(published: Published, rollouts: Rollouts) -> _Edit:
        plan = _plan(desk, rollouts)
        if plan.open_waves < len(plan.waves):
            raise SyncError(
                f"{desk.repo}: rollout {plan.id} has opened {plan.open_waves} of {len(plan.waves)} waves; open "
                "the others first: edge-sync rollout next"
            )
        details = {"rollout": plan.id, "release": plan.release.sequence, "reason": reason}
        if plan.selector.terms:
            return _Edit(with_group(rollouts, plan), details)
        base = plan.release.model_copy(update={"created_at": desk.now.isoformat(timespec="seconds")})
        return _Edit(with_base(published, rollouts, plan, desk.now), details, (base,), base)

    return _change(desk, "complete", make, expected)


def abort(desk: Desk, to: int | None = None, *, reason: str | None = None, expected: int | None = None) -> Changed:
    """End a rollout, and give all devices a newer release of an earlier pair.

    Args:
        desk: where, and by whom.
        to: the release whose pair they get; None: as the plan says, or the one that all other devices run.
        reason: why, for the audit log.
        expected: the revision for which this was decided; None: whatever there is.

    Raises:
        SyncError: none is under way, devices would refuse the pair, or signing failed.
    """

    def make(published: Published, rollouts: Rollouts) -> _Edit:
        plan, base = _plan(desk, rollouts), published.release
        target = base.sequence if to is None and plan.abort_to is None and base is not None else to or plan.abort_to
        if plan.open_waves == 0 and to is None:  # no device could take it
            held = with_held(rollouts, plan.release)
            return _Edit(held.model_copy(update={"plan": None}), {"rollout": plan.id, "reason": reason})
        if base is None or target is None:
            raise SyncError(f"{desk.repo}: has no release to which devices could go back; publish one first")
        earlier = _check_abort_target(published, target, plan.release, desk.now)
        new = again(published, earlier, published.newest_sequence + 1, desk.now)
        groups = groups_again(published, rollouts, base, new, desk.now)
        releases = (new, *(one.release for one in groups if one.release.sequence > new.sequence))
        details = {"rollout": plan.id, "release": new.sequence, "rollback_to": target, "reason": reason}
        return _Edit(rollouts.model_copy(update={"plan": None, "groups": groups}), details, releases, new)

    return _change(desk, "abort", make, expected)


def _check_abort_target(published: Published, number: int, candidate: Release, now: datetime) -> Release:
    """Return the release that all devices get if a rollout is aborted; it is none that waits for its own rollout."""
    release = _check_target(published, number, now)
    pair = (release.bundle_id, release.gallery_sequence)
    is_new = published.release is None or pair != (published.release.bundle_id, published.release.gallery_sequence)
    if is_new and pair == (candidate.bundle_id, candidate.gallery_sequence):
        raise SyncError(
            f"{published.repo}: release {number} is what the rollout brings, and aborting to it would send it to all "
            "devices at once; name an earlier release"
        )
    if is_new and published.rollouts is not None and any(one.sequence == number for one in published.rollouts.held):
        raise SyncError(f"{published.repo}: release {number} is held back; only a rollout brings it to devices")
    return release


def _check_target(published: Published, number: int, now: datetime) -> Release:
    release = find_release(published, number)
    is_base = published.release is not None and published.release.sequence == number
    problem = None if is_base else rollback_problem(published, release, now)
    if problem or release.bundle_id not in published.heads:
        raise SyncError(f"{published.repo}: release {number} {problem or 'has a bundle that was withdrawn'}")
    return release


def pin(
    desk: Desk, selector: Selector, number: int, reason: str | None = None, *, expected: int | None = None
) -> Changed:
    """Keep devices at a release until they are unpinned.

    Raises:
        SyncError: it selects all devices, they are pinned, devices would refuse the release, or signing failed.
    """
    if not selector.terms:
        raise SyncError("a pin for all devices would stop the line; give --select, such as --select device=cam-001")

    def make(published: Published, rollouts: Rollouts) -> _Edit:
        if any(str(one.selector) == str(selector) for one in rollouts.pins):
            raise SyncError(f"{desk.repo}: {selector} is pinned already; edge-sync rollout unpin comes first")
        release = _check_target(published, number, desk.now)
        current = release.model_copy(update={"bundle_head": published.head_hashes[release.bundle_id]})
        new = Pin(selector=selector, release=current, by=desk.by, at=write_time(desk.now), reason=reason)
        details = {"select": str(selector), "release": number, "reason": reason}
        return _Edit(rollouts.model_copy(update={"pins": [*rollouts.pins, new]}), details)

    return _change(desk, "pin", make, expected)


def unpin(desk: Desk, selector: Selector, *, expected: int | None = None) -> Changed:
    """Let pinned devices go on.

    Raises:
        SyncError: there is no pin with this selector, or signing failed.
    """

    def make(_: Published, rollouts: Rollouts) -> _Edit:
        kept = [one for one in rollouts.pins if str(one.selector) != str(selector)]
        if len(kept) == len(rollouts.pins):
            raise SyncError(f"{desk.repo}: found no pin for {selector}; see edge-sync rollout pins")
        return _Edit(rollouts.model_copy(update={"pins": kept}), {"select": str(selector)})

    return _change(desk, "unpin", make, expected)


def _plan(desk: Desk, rollouts: Rollouts) -> Plan:
    if rollouts.plan is None:
        raise SyncError(f"{desk.repo}: no rollout is under way; see edge-sync rollout history")
    return rollouts.plan


def _change(desk: Desk, what: str, make: _Make, expected: int | None = None) -> Changed:
    """Read the rollouts under the lock, change them, and sign them."""
    with locked(desk.repo):
        metadata = SignedMetadata.open(desk.repo, desk.keys, desk.now)
        published = read_published(desk.repo, metadata)
        found = published.rollouts.revision if published.rollouts else 0
        if expected is not None and found != expected:
            raise ChangedError(f"{desk.repo}: the rollouts changed meanwhile: revision {found}, not {expected}")
        edit = make(published, published.rollouts or first_rollouts(published.line))
        refuse_waiting(metadata, desk)
        return _commit(desk, metadata, published, what, edit)


def _commit(desk: Desk, metadata: SignedMetadata, published: Published, what: str, edit: _Edit) -> Changed:
    anchor, at = published.rollouts.audit if published.rollouts else None, write_time(desk.now)
    audit.settle(desk.repo, audit.read_log(desk.repo), anchor, at)
    new = put_rollouts(metadata, published, edit.rollouts)  # checks the limits before anything is logged
    details = {key: value for key, value in edit.details.items() if value not in (None, False, {})}
    begun = {"at": at, "by": desk.by, "what": what, "revision": new.revision, "state": "begun", **details}
    sha256 = audit.append(desk.repo, begun)
    put_rollouts(metadata, published, edit.rollouts.model_copy(update={"audit": sha256}))
    for release in edit.releases:
        write_history(desk.repo, release, published.heads[release.bundle_id])
    if edit.base is not None:
        metadata.put("rollout", release_target(published.line), canonical_json(edit.base))
    committed = metadata.commit(desk.now)
    audit.finish(desk.repo, sha256, at, committed.draft)
    return Changed(what, new.revision, committed.draft, tuple(committed.missing.values()))


def refuse_waiting(metadata: SignedMetadata, desk: Desk) -> None:
    """Refuse to change what waits for signatures: nobody would know which of two drafts to sign.

    Raises:
        SyncError: a draft waits.
    """
    if metadata.can_sign("rollout"):
        return
    path = desk.keys.folder / DRAFTS_NAME / f"rollout-{metadata.version('rollout') + 1}.json"
    if path.exists():
        raise SyncError(f"{path}: waits for signatures; publish it with edge-sync sign, or delete it, and try again")
