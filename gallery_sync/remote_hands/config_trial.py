"""Judges a configuration overlay on trial by the vital signs of the device. Pure.

Rules this module keeps:
1. It is confirmed only at the end of the trial: a camera may fail long after it opened. At the end, the device must use
   the overlay, and every camera that was online before must have been online for a while.
2. A camera that the configuration no longer has, or that is switched off, is not waited for.
3. A device that refuses the overlay, or restarts again and again, fails at once.
4. Time is the machine's monotonic clock. A trial goes on after one restart of the machine, from its start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from edge.telemetry.vital_signs import VitalSigns
from gallery_sync.remote_hands.config_files import Trial

SETTLE_S = 15.0  # that all cameras must be online at the end of a trial; a quarter of a short one
MOST_BOOTS = 1  # of the machine during a trial
_MOST_RESTARTS = 2  # of `edge run`
_READ_S = 5.0  # after which edge has read an overlay and said so


@dataclass(frozen=True, slots=True)
class Watch:
    """What was seen of a trial so far."""

    live_since_s: float | None = None  # monotonic: all is as it must be since then; None: it is not
    missing: str | None = "edge is not running"  # what is not as it must be
    restarts: int = 0  # of `edge run`
    run: str | None = None  # names the run of the process that was seen last
    states: tuple[tuple[str, str], ...] = ()  # of the cameras


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a trial says so far."""

    kind: Literal["waiting", "good", "bad"]
    reason: str | None = None


def look(watch: Watch, trial: Trial, signs: VitalSigns | None, now_s: float) -> Watch:
    """Return a watch after another look.

    Args:
        watch: before.
        trial: that is under way.
        signs: fresh ones; None: the device does not run.
        now_s: monotonic.
    """
    missing = why_not_live(trial, signs)
    since_s = None if missing else now_s if watch.live_since_s is None else watch.live_since_s
    watch = replace(watch, live_since_s=since_s, missing=missing)
    if signs is None:
        return watch
    restarted = watch.run is not None and watch.run != signs.boot_id
    states = tuple((name, camera.state) for name, camera in sorted(signs.cameras.items()))
    return replace(watch, restarts=watch.restarts + restarted, run=signs.boot_id, states=states)


def why_not_live(trial: Trial, signs: VitalSigns | None) -> str | None:
    """Return what is not as it must be; None if all is."""
    if signs is None:
        return "edge is not running"
    config = signs.config
    if config is None or config.overlay != trial.overlay:
        why = config and (config.refused or config.error)
        return f"edge refuses it: {why}" if why else "edge has not taken it yet"
    for name in trial.cameras:
        camera = signs.cameras.get(name)
        if camera is not None and camera.state not in {"online", "disabled"}:
            return f"camera {name!r} is {camera.state}, and was online before"
    return None


def judge(watch: Watch, trial: Trial, now_s: float) -> Verdict:
    """Judge a trial by what was seen so far."""
    if watch.restarts >= _MOST_RESTARTS:
        return Verdict("bad", f"edge restarted {watch.restarts} times during the trial")
    has_read = now_s >= trial.began_s + _READ_S
    if has_read and watch.missing and trial.overlay and f": overlay {trial.overlay}:" in watch.missing:
        return Verdict("bad", watch.missing)
    if now_s < trial.began_s + trial.seconds:
        return Verdict("waiting", watch.missing)
    if watch.missing or watch.live_since_s is None:
        return Verdict("bad", watch.missing or "nothing was seen of it")
    if now_s - watch.live_since_s < min(SETTLE_S, trial.seconds / 4):
        return Verdict("bad", "the cameras came back only at the very end of the trial")
    return Verdict("good")


def resumed(trial: Trial, sha256: str | None, boot_id: str, now_s: float) -> Trial | str:
    """Return a trial as it goes on after the agent started again, or why it does not.

    Args:
        trial: as it was left.
        sha256: of the overlay that the device has; None: there is none.
        boot_id: of this boot of the machine.
        now_s: monotonic.
    """
    if sha256 != trial.sha256:
        return "it was interrupted before it was taken"
    if boot_id != trial.boot_id:
        boots = trial.boots + 1
        if boots > MOST_BOOTS:
            return f"the machine started {boots} times during the trial"
        return trial.model_copy(update={"boots": boots, "boot_id": boot_id, "began_s": now_s})
    if not 0.0 <= now_s - trial.began_s < trial.seconds:
        return "nobody watched the end of the trial"
    return trial
