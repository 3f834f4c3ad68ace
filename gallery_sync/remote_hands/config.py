"""The command config: a signed part of the configuration, taken on trial.

    config {"name": "night-mode", "revision": 3}     take it; without a revision: the newest
    config {"name": null}                            return to the device's own file

Rules this module keeps:
1. A fragment is taken only if it is signed for this line and device, not older than what the device had, sets only keys
   that may be set from afar, and fits the device's own file, which a child process checks.
2. One trial at a time, and none while a release is on trial.
3. The device returns to the overlay before by itself: when its cameras do not come back, edge refuses the overlay, or
   the end of the trial was not watched. No network is needed.
4. The device takes nothing by itself: a published fragment waits for the command.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.bundle.pairs import read_pointer_or_none
from edge.config.overlay import Overlay, overlay_bytes
from edge.config.overlay_keys import key_problems
from edge.errors import SyncError, first_validation_error, one_line
from edge.telemetry.vital_signs import VitalSigns, fresh_vital_signs, machine_boot_id, monotonic_s
from gallery_sync.formats.config import ConfigFragment, config_target
from gallery_sync.formats.fields import Name, Sequence, parse
from gallery_sync.formats.reports import MOST_CAMERAS, Request
from gallery_sync.remote_hands.commands import Command, Context, Outcome
from gallery_sync.remote_hands.config_files import ConfigFiles, Trial, why_busy
from gallery_sync.remote_hands.config_trial import Watch, judge, look, resumed
from gallery_sync.transport.errors import StorageError

log = logging.getLogger(__name__)

LARGEST_FRAGMENT_BYTES = 128 << 10
_CHECK_LIMIT_S, _LOOK_S = 60.0, 1.0
_OWN = Overlay("the-device-own-file", 0, {})  # sets nothing


class RefusedFragmentError(SyncError):
    """A fragment is not for this device, or cannot be taken now. The text says why."""


class Signed(Protocol):
    """The signed documents of a repository, as of a refresh just now."""

    def __call__(self, path: str, limit_bytes: int) -> bytes | None:
        """Return a verified document; None if nobody signed one of this name."""
        ...


class Wanted(BaseModel):
    """What a command asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name | None  # of the fragment; None: the device's own file alone
    revision: Sequence | None = None  # None: the one that is signed now


def wanted_of(request: Request) -> Wanted:
    """Return what a command asks for.

    Raises:
        RefusedFragmentError: its arguments are wrong.
    """
    try:
        return Wanted.model_validate(request.arguments)
    except ValidationError as error:
        told = first_validation_error(error)
        raise RefusedFragmentError(f'{told}; expected arguments such as {{"name": "night-mode"}}') from None


@dataclass(frozen=True, slots=True)
class World:
    """What a trial knows of the machine."""

    signs: Callable[[], VitalSigns | None]  # fresh ones; None: the device does not run
    check: Callable[[Path], str | None]  # why an overlay does not fit the device's own file; None: it does
    now_s: Callable[[], float] = monotonic_s
    sleep: Callable[[float], None] = time.sleep
    boot_id: str = "unknown"  # of this boot of the machine


def real_world(state_dir: Path, device_config: Path | None) -> World:
    """Return the machine.

    Args:
        state_dir: of the device.
        device_config: the device's own file; None: it is not known, and every overlay is refused.
    """
    return World(
        lambda: fresh_vital_signs(state_dir, monotonic_s()),
        lambda overlay: why_not_fit(overlay, state_dir, device_config),
        boot_id=machine_boot_id() or "unknown",
    )


class ConfigTrials:
    """Takes overlays of one device, watches them, and takes them back. One thread at a time uses it."""

    def __init__(self, state_dir: Path, world: World) -> None:
        """Use a state folder; nothing is read yet.

        Args:
            state_dir: of the device.
            world: clocks, vital signs and the check.
        """
        self._files, self._state_dir, self._world = ConfigFiles(state_dir), state_dir, world

    def begin(self, overlay: Overlay | None, request: str, seconds: float) -> Trial | None:
        """Take an overlay on trial; None if the device has it already.

        Args:
            overlay: to take; None: the device's own file alone.
            request: id of the command.
            seconds: that the trial takes.

        Raises:
            RefusedFragmentError: it cannot be taken now, or does not fit the device's own file.
            StorageError: the disk failed, and nothing was changed.
        """
        if why := why_busy(self._state_dir) or why_release_on_trial(self._state_dir):
            raise RefusedFragmentError(why)
        now = self._files.overlay()
        if overlay is not None and now is not None and str(overlay) == str(now) and overlay != now:
            raise RefusedFragmentError(f"the device has {now} with other values; publish a newer revision")
        signs = self._world.signs()
        if signs is None:
            raise RefusedFragmentError("edge is not running, and a trial needs it; start it: systemctl start edge")
        if signs.config is None:
            raise RefusedFragmentError("edge is of an earlier version, which knows no overlays; restart it")
        has_it = overlay == now and (now is not None or self._files.sha256() is None)
        if has_it and signs.config.overlay == (str(overlay) if overlay else None):
            return None
        try:
            return self._begin(overlay, signs, request, seconds)
        except OSError as error:
            raise StorageError(f"{self._files.folder}: cannot write: {error.strerror or error}") from error

    def _begin(self, overlay: Overlay | None, signs: VitalSigns, request: str, seconds: float) -> Trial:
        sha256 = self._files.propose(overlay or _OWN)
        if why := self._world.check(self._files.candidate_path):
            self._files.tidy()
            raise RefusedFragmentError(why)
        online = [name for name, camera in sorted(signs.cameras.items()) if camera.state == "online"]
        trial = Trial(
            overlay=str(overlay) if overlay else None,
            sha256=sha256 if overlay else None,
            previous_sha256=self._files.sha256(),
            cameras=online[:MOST_CAMERAS],
            seconds=seconds,
            began_s=self._world.now_s(),
            boot_id=self._world.boot_id,
            request=request,
        )
        try:
            self._files.begin(trial)
            self._files.take(trial)
        except OSError as error:
            if not self._files.is_on_trial:
                raise
            log.warning("%s: cannot take a configuration: %s", self._files.folder, error.strerror or error)
            return trial  # whoever watches it sees that it is not in use, and takes it back
        log.info("configuration %s is on trial for %.0f s", name_of(trial), seconds)
        return trial

    def watch(self, trial: Trial) -> Outcome:
        """Watch a trial to its end, confirm the overlay or return to the one before, and say which."""
        watch = Watch()
        while True:
            now_s = self._world.now_s()
            watch = look(watch, trial, self._world.signs(), now_s)
            verdict = judge(watch, trial, now_s)
            if verdict.kind != "waiting":
                break
            self._world.sleep(_LOOK_S)
        cameras = dict(watch.states)
        if verdict.kind == "good":
            self._until_written(self._files.confirm)
            log.info("configuration %s is confirmed", name_of(trial))
            return Outcome("done", f"{name_of(trial)} is in use, and all cameras are back", {"cameras": cameras})
        return self._take_back(trial, verdict.reason or "it failed", cameras)

    def resume(self) -> Trial | None:
        """Go on with what an earlier process left; None if no trial is to be watched. What failed is undone."""
        try:
            trial = self._files.trial()
        except SyncError as error:
            log.warning("%s; the overlay before returns", error)
            self._until_written(lambda: self._files.revert(self._files.mend()))
            return None
        if trial is None:
            self._files.tidy()
            return None
        found = resumed(trial, self._files.sha256(), self._world.boot_id, self._world.now_s())
        if isinstance(found, Trial):
            if found != trial:
                self._until_written(lambda: self._files.note(found))
            return found
        self._take_back(trial, found, {})
        return None

    def _take_back(self, trial: Trial, reason: str, cameras: Mapping[str, str]) -> Outcome:
        self._until_written(lambda: self._files.revert(trial))
        before = self._files.overlay()
        text = f"{reason}; the device is back at {before or 'its own file'}"
        log.warning("configuration %s is taken back: %s", name_of(trial), text)
        return Outcome("failed", f"{name_of(trial)}: {text}", {"cameras": dict(cameras)})

    def _until_written(self, write: Callable[[], None]) -> None:
        """Write, however often the disk fails: a trial must end."""
        is_first = True
        while True:
            try:
                write()
            except OSError as error:
                log.log(
                    logging.WARNING if is_first else logging.DEBUG,
                    "%s: cannot end a trial: %s; it is tried again",
                    self._files.folder,
                    error.strerror or error,
                )
                is_first = False
                self._world.sleep(_LOOK_S)
            else:
                return


def name_of(trial: Trial) -> str:
    """Return what a trial tries, in words."""
    return trial.overlay or "the device's own file"


def why_release_on_trial(state_dir: Path) -> str | None:
    """Return why no configuration may be tried on a device: a release is on trial; None if none is."""
    active, _ = read_pointer_or_none(state_dir)
    if active is None or active.trial is None:
        return None
    return "a release is on trial; send the command again when it has ended"


def read_fragment(signed: Signed, line: str, wanted: Wanted, labels: Mapping[str, str]) -> Overlay:
    """Read a fragment, and judge whether this device takes it.

    Args:
        signed: returns signed documents; none that is older than what the device had.
        line: of the device.
        wanted: names it.
        labels: of the device.

    Raises:
        RefusedFragmentError: it is not for this device.
        SyncError: it is no fragment, or cannot be read.
    """
    name = wanted.name or ""
    path = config_target(line, name)
    data = signed(path, LARGEST_FRAGMENT_BYTES)
    if data is None:
        raise RefusedFragmentError(f"the repository has no fragment {name!r}; publish it: edge-sync config publish")
    fragment = parse(ConfigFragment, data, path)
    what = f"fragment {fragment.name} {fragment.revision}"
    if (fragment.line, fragment.name) != (line, name):
        raise RefusedFragmentError(f"{path}: found {what} of line {fragment.line!r}; publish it again")
    if wanted.revision is not None and wanted.revision != fragment.revision:
        raise RefusedFragmentError(f"{what} is signed, and revision {wanted.revision} was asked for")
    if not fragment.selector.matches(labels):
        raise RefusedFragmentError(f"{what} is for {fragment.selector}, and this device is not selected")
    if problems := key_problems(fragment.values):
        raise RefusedFragmentError(f"{what}: {one_line(problems[0])}")
    overlay = Overlay(fragment.name, fragment.revision, fragment.values)
    if len(overlay_bytes(overlay)) > LARGEST_FRAGMENT_BYTES:
        raise RefusedFragmentError(f"{what} is too large")
    return overlay


def why_not_fit(overlay: Path, state_dir: Path, device_config: Path | None) -> str | None:
    """Return why an overlay does not fit the device's own file, as a child process finds it; None if it does."""
    if device_config is None:
        return "the agent does not know the device's own file; start it with --device-config"
    command = [sys.executable, "-m", "edge", "check", "--config-only", "--config", str(device_config)]
    command += ["--state-dir", str(state_dir), "--overlay", str(overlay)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHECK_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it cannot be checked: {one_line(str(error))}"
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    told = "; ".join(lines[-3:]) or f"edge check ended with {done.returncode}"
    return one_line(told.removeprefix("edge: "))


def config(request: Request, context: Context) -> Outcome:
    """Take a fragment on trial, or return to the device's own file.

    Raises:
        SyncError: the repository, the network or the disk failed.
    """
    trials = ConfigTrials(context.state_dir, real_world(context.state_dir, context.device_config))
    try:
        wanted = wanted_of(request)
        overlay = None if wanted.name is None else read_fragment(_signed(context), context.line, wanted, context.labels)
        trial = trials.begin(overlay, request.id, context.commands.config_trial_s)
    except RefusedFragmentError as error:
        return Outcome("refused", str(error))
    if trial is None:
        return Outcome("done", f"the device has {overlay or 'its own file alone'} already")
    return Outcome("done", watch=lambda: trials.watch(trial))


def _signed(context: Context) -> Signed:
    source = context.source
    if source is None:
        raise RefusedFragmentError("the agent has no repository to read the fragment from")
    source.client.refresh()
    context.ring()  # what else is new there is read by the agent itself

    def read(path: str, limit_bytes: int) -> bytes | None:
        found = source.client.target(path, limit_bytes)
        return None if found is None else found.data

    return read


def left_over(state_dir: Path, device_config: Path | None) -> tuple[str, Callable[[], Outcome]] | None:
    """Go on with what an earlier process left: return the id of its command and what watches it; None: no trial.

    Args:
        state_dir: of the device.
        device_config: the device's own file; None: it is not known.
    """
    trials = ConfigTrials(state_dir, real_world(state_dir, device_config))
    trial = trials.resume()
    return None if trial is None else (trial.request, lambda: trials.watch(trial))


CONFIG_COMMANDS = (Command("config", config, is_long=True, in_loop=True),)
