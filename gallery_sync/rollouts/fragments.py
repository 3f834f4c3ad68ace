"""Configuration fragments of a line, on the server: keys of `device.yaml` that an operator signs for some devices.

Rules this module keeps:
1. A fragment sets only what edge.config.overlay_keys allows, to values that some device takes.
2. Its revision is above every one that its name ever had, also after it was removed: revisions begin at the version of
   the signed list of the role rollout, which never goes back.
3. A change is in the audit log before it is made, see gallery_sync.rollouts.audit.
4. Publishing the same values for the same devices again changes nothing.
5. A fragment changes no device by itself: a device takes it on trial, on command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edge.config.overlay import Overlay, check_alone
from edge.errors import SyncError, first_validation_error, one_line
from gallery_sync.formats.config import ConfigFragment, config_target, is_config
from gallery_sync.formats.fields import canonical_json, parse
from gallery_sync.formats.rollouts import Selector
from gallery_sync.repository.folder import locked
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.rollouts import audit
from gallery_sync.rollouts.changes import Desk, refuse_waiting
from gallery_sync.trust.clock import write_time

LARGEST_FRAGMENT_BYTES = 64 << 10  # devices take twice as much
_ROLE = "rollout"


@dataclass(frozen=True, slots=True)
class FragmentChange:
    """What a change of a fragment did."""

    name: str
    revision: int
    changed: bool  # False: it was so already
    draft: Path | None = None  # waits for `edge-sync sign`; until then devices see nothing of it
    waits_for: tuple[str, ...] = ()


def publish_fragment(desk: Desk, name: str, values: Mapping[str, Any], selector: Selector) -> FragmentChange:
    """Sign a fragment.

    Args:
        desk: where, and by whom.
        name: of the fragment.
        values: keys of device.yaml.
        selector: the devices that may take it.

    Raises:
        ConfigError: a key may not be set from afar, or has a value that no device takes.
        SyncError: the name is wrong, the fragment is too large, a key is wrong, or the disk failed.
    """
    if not values:
        raise SyncError(f"fragment {one_line(name)!r} sets nothing; name keys of device.yaml in its file")
    check_alone(Overlay(name, 0, values))
    with locked(desk.repo):
        metadata = SignedMetadata.open(desk.repo, desk.keys, desk.now)
        line = metadata.about.line
        old = _read_or_none(metadata, line, name)
        revision = old.revision + 1 if old else metadata.version(_ROLE) + 1
        new = _fragment(desk, line, name, revision, values, selector)
        if old is not None and (old.values, str(old.selector)) == (new.values, str(new.selector)):
            return FragmentChange(name, old.revision, changed=False)
        data = canonical_json(new)
        if len(data) > LARGEST_FRAGMENT_BYTES:
            raise SyncError(f"fragment {name}: found {len(data)} bytes, expected at most {LARGEST_FRAGMENT_BYTES}")
        metadata.put(_ROLE, config_target(line, name), data)
        details = {"select": str(selector), "keys": _key_paths(values)}
        return _commit(desk, metadata, "config publish", new.name, revision, details)


def remove_fragment(desk: Desk, name: str) -> FragmentChange:
    """Take a fragment out of the signed list. Devices that have it keep it until another command.

    Raises:
        SyncError: there is none, a key is wrong, or the disk failed.
    """
    with locked(desk.repo):
        metadata = SignedMetadata.open(desk.repo, desk.keys, desk.now)
        line = metadata.about.line
        if config_target(line, name) not in metadata.targets(_ROLE):
            raise SyncError(f"{desk.repo}: has no fragment {one_line(name)!r}; see edge-sync config list")
        old = _read_or_none(metadata, line, name)
        metadata.remove(_ROLE, config_target(line, name))
        return _commit(desk, metadata, "config remove", name, old.revision if old else 0, {})


def list_fragments(repo: Path) -> list[ConfigFragment | str]:
    """Return the fragments of a repository by name; of one that is damaged, what is wrong with it.

    Raises:
        SyncError: it is no repository, or damaged.
    """
    metadata = SignedMetadata.open(repo)
    line = metadata.about.line
    found: list[ConfigFragment | str] = []
    for path in sorted(path for path in metadata.targets(_ROLE) if is_config(line, path)):
        try:
            found.append(_read(metadata, path))
        except SyncError as error:
            found.append(str(error))
    return found


def show_fragment(repo: Path, name: str) -> ConfigFragment:
    """Return a fragment of a repository.

    Raises:
        SyncError: there is none, or it is damaged.
    """
    metadata = SignedMetadata.open(repo)
    path = config_target(metadata.about.line, name)
    if path not in metadata.targets(_ROLE):
        raise SyncError(f"{repo}: has no fragment {one_line(name)!r}; see edge-sync config list")
    return _read(metadata, path)


def _read(metadata: SignedMetadata, path: str) -> ConfigFragment:
    return parse(ConfigFragment, metadata.read_target(path) or b"", path)


def _read_or_none(metadata: SignedMetadata, line: str, name: str) -> ConfigFragment | None:
    """Return a fragment as it is signed; None if there is none. A damaged one is replaced, with a larger revision."""
    path = config_target(line, name)
    if path not in metadata.targets(_ROLE):
        return None
    try:
        return _read(metadata, path)
    except SyncError:
        return None


def _fragment(
    desk: Desk, line: str, name: str, revision: int, values: Mapping[str, Any], selector: Selector
) -> ConfigFragment:
    fields = {"line": line, "name": name, "revision": revision, "selector": selector, "values": dict(values)}
    try:
        return ConfigFragment.model_validate({**fields, "by": desk.by, "at": write_time(desk.now)})
    except ValidationError as error:
        raise SyncError(f"fragment {one_line(name)!r}: {first_validation_error(error)}") from None


def _key_paths(values: Mapping[str, Any], above: str = "") -> list[str]:
    """Return the key paths that a fragment sets, for the audit log."""
    found = []
    for key, value in values.items():
        path = f"{above}{key}"
        found += _key_paths(value, f"{path}.") if isinstance(value, Mapping) and value else [path]
    return found


def _commit(
    desk: Desk, metadata: SignedMetadata, what: str, name: str, revision: int, details: Mapping[str, Any]
) -> FragmentChange:
    refuse_waiting(metadata, desk)
    at = write_time(desk.now)
    about = {"what": what, "config": name, "config_revision": revision, **details}
    begun = audit.append(desk.repo, {"at": at, "by": desk.by, "state": "begun", **about})
    done = metadata.commit(desk.now)
    audit.finish(desk.repo, begun, at, done.draft)
    return FragmentChange(name, revision, changed=True, draft=done.draft, waits_for=tuple(done.missing.values()))
