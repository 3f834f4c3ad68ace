"""What a rollout leaves behind: the releases, groups and pins after it is complete or aborted. Pure.

Rules this module keeps:
1. Nobody goes to a release that a rollout excluded: excluded devices are pinned where they were.
2. No group loses its release because another rollout is aborted.
"""

from __future__ import annotations

from datetime import datetime

from gallery_sync.formats.documents import Release
from gallery_sync.formats.rollouts import GroupRelease, Pin, Plan, Rollouts
from gallery_sync.repository.published import Published
from gallery_sync.trust.clock import write_time


def with_group(rollouts: Rollouts, plan: Plan) -> Rollouts:
    """Return the rollouts after one that was for a part of the devices."""
    new = GroupRelease(selector=plan.selector, exclude=plan.exclude, release=plan.release, plan=plan.id)
    kept = [one for one in rollouts.groups if (one.selector, one.exclude) != (new.selector, new.exclude)]
    return rollouts.model_copy(update={"plan": None, "groups": [*kept, new]})


def with_base(published: Published, rollouts: Rollouts, plan: Plan, now: datetime) -> Rollouts:
    """Return the rollouts after one that was for all devices; those that it excluded stay where they are."""
    old, number = published.release, plan.release.sequence
    known = {str(one.selector) for one in rollouts.pins}
    reason = f"excluded from rollout {plan.id}"
    pins = [
        Pin(selector=one, release=old, by=plan.approved_by, at=write_time(now), reason=reason)
        for one in plan.exclude
        if old is not None and str(one) not in known
    ]
    update = {
        "plan": None,
        "pins": [*rollouts.pins, *pins],
        "groups": [one for one in rollouts.groups if one.release.sequence > number],
        "held": [one for one in rollouts.held if one.sequence > number],
    }
    return rollouts.model_copy(update=update)


def again(published: Published, release: Release, number: int, now: datetime) -> Release:
    """Return a newer release of the pair of a release."""
    return Release(
        line=published.line,
        sequence=number,
        created_at=now.isoformat(timespec="seconds"),
        bundle_id=release.bundle_id,
        bundle_head=published.head_hashes[release.bundle_id],
        gallery_sequence=release.gallery_sequence,
        gallery_created_at=release.gallery_created_at,
        rollback_to=release.sequence,
    )


def groups_again(
    published: Published, rollouts: Rollouts, base: Release, new: Release, now: datetime
) -> list[GroupRelease]:
    """Return the groups that have a release of their own, each with a newer one of the same pair."""
    found, number = list[GroupRelease](), new.sequence
    for one in sorted(rollouts.groups, key=lambda one: one.release.sequence):
        if one.release.sequence > base.sequence and one.release.bundle_id in published.heads:
            number += 1
            found.append(one.model_copy(update={"release": again(published, one.release, number, now)}))
    return found
