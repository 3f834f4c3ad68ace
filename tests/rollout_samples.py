"""Rollouts as documents, and signed into a small repository."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from gallery_sync.enrolment.device_files import enrol
from gallery_sync.formats.documents import Release
from gallery_sync.formats.enrolment import Enrolment
from gallery_sync.formats.rollouts import GroupRelease, Pin, Plan, Rollouts, Wave, parse_selector
from gallery_sync.repository.folder import locked
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.published import put_rollouts, read_published
from tests.sync_samples import keys_of, time_now, trusted_root

AT = "2026-11-28T12:00:00Z"
SALT = "0123456789abcdef"


def release(sequence: int, **other: Any) -> Release:
    """Return a release of line demo."""
    known = {"line": "demo", "bundle_id": f"bundle-{sequence}", "bundle_head": "a" * 64, "gallery_sequence": sequence}
    return Release.model_validate({"sequence": sequence, "created_at": AT} | known | other)


def plan(candidate: Release | int, **other: Any) -> Plan:
    """Return a plan in two waves, of which the second one has all devices; the first one is open."""
    known = {
        "id": "spring",
        "release": candidate if isinstance(candidate, Release) else release(candidate),
        "salt": SALT,
        "waves": [Wave(buckets=2000), Wave(buckets=10_000)],
        "open_waves": 1,
        "planned_by": "Ada",
        "planned_at": AT,
        "approved_by": "Grace",
        "approved_at": AT,
    }
    return Plan.model_validate(known | other)


def pin(selector: str, to: Release | int) -> Pin:
    """Return a pin."""
    to = to if isinstance(to, Release) else release(to)
    return Pin(selector=parse_selector(selector), release=to, by="Ada", at=AT)


def group(selector: str, to: Release | int, *exclude: str) -> GroupRelease:
    """Return a release of a part of the devices."""
    to = to if isinstance(to, Release) else release(to)
    excluded = [parse_selector(one) for one in exclude]
    return GroupRelease(selector=parse_selector(selector), exclude=excluded, release=to, plan="winter")


def rollouts(**content: Any) -> Rollouts:
    """Return the rollouts of line demo."""
    return Rollouts.model_validate({"line": "demo", "revision": 1} | content)


def sign_rollouts(repo: Path, content: Rollouts) -> None:
    """Sign rollouts with the keys of a repository."""
    now = time_now()
    with locked(repo):
        metadata = SignedMetadata.open(repo, keys_of(repo), now)
        put_rollouts(metadata, read_published(repo, metadata), content)
        metadata.commit(now)


def device_in(wave: int, salt: str = SALT) -> str:
    """Return the id of a device of a wave of `plan`."""
    found = plan(1, salt=salt, open_waves=0)
    return next(name for n in range(10_000) if found.wave_of(name := f"shelf-{n}") == wave)


def bucket(device_id: str, salt: str = SALT) -> int:
    """Return the bucket of a device, computed by itself."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{device_id}".encode()).digest()[:8], "big") % 10_000


def enrol_device(state_dir: Path, repo: Path, device_id: str, **labels: str) -> None:
    """Enrol a device of a repository."""
    root = trusted_root(repo)
    enrolment = Enrolment(
        device_id=device_id,
        line="demo",
        labels=labels,
        repository="https://example.com/repo",
        root=root.decode(),
        root_sha256=hashlib.sha256(root).hexdigest(),
    )
    enrol(state_dir, enrolment)
