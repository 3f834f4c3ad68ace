"""Judges a release on trial by the vital signs of the device, against the release before. Pure.

Rules this module keeps:
1. Only a device that was seen to serve the new pair for the whole trial confirms it.
2. A device that runs, and does not turn to the new pair in time, falls back, fails frames, slows down or restarts too
   often fails the trial.
3. A camera without frames says nothing: only cameras that are online before and now are compared.
4. A device that does not run can neither confirm nor fail. It is waited for, within a limit, and that is reported.
5. Time is what the agent watched, by the monotonic clock: neither a wrong clock nor a night without power counts.
6. The share of known answers is compared only when both releases gave enough answers. A large gallery change moves it
   rightly, so the limit is wide, and a person can widen it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.telemetry.vital_signs import VitalSigns
from gallery_sync.agent.policy import Trial

_MOST_CAMERAS = 64  # in a baseline
_ENOUGH_S = 20.0  # of a camera's frames, before its rate is compared
_LEAST_RATE = 0.5  # frames per second; a slower camera is too irregular to compare
_FEW_ERRORS = 5


class Baseline(BaseModel):
    """How a release served, kept in the journal while its successor is on trial."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    fps: dict[str, float] = Field(default_factory=dict)  # of cameras that were online
    frames: Annotated[int, Field(ge=0)] = 0
    frame_errors: Annotated[int, Field(ge=0)] = 0
    known: Annotated[int, Field(ge=0)] = 0
    unknown: Annotated[int, Field(ge=0)] = 0


def baseline_of(signs: VitalSigns | None) -> str | None:
    """Return the baseline for a release that replaces what serves, as text; None if the device does not run."""
    if signs is None:
        return None
    online = sorted(name for name, camera in signs.cameras.items() if camera.state == "online")
    baseline = Baseline(
        fps={name: signs.cameras[name].fps for name in online[:_MOST_CAMERAS]},
        frames=signs.frames,
        frame_errors=signs.frame_errors,
        known=signs.known,
        unknown=signs.unknown,
    )
    return baseline.model_dump_json()


def read_baseline(text: str | None) -> Baseline:
    """Read a baseline; one that is damaged or missing compares nothing."""
    try:
        return Baseline.model_validate_json(text or "{}")
    except ValidationError:
        return Baseline()


@dataclass(frozen=True, slots=True)
class _Counts:
    """Counts since a run of the device started."""

    frames: int = 0
    frame_errors: int = 0
    known: int = 0
    unknown: int = 0

    @classmethod
    def of(cls, signs: VitalSigns) -> _Counts:
        return cls(signs.frames, signs.frame_errors, signs.known, signs.unknown)

    def add(self, after: _Counts, before: _Counts) -> _Counts:
        """Return the sum of these counts and of what another run counted between two looks."""
        return _Counts(
            self.frames + max(0, after.frames - before.frames),
            self.frame_errors + max(0, after.frame_errors - before.frame_errors),
            self.known + max(0, after.known - before.known),
            self.unknown + max(0, after.unknown - before.unknown),
        )


@dataclass(frozen=True, slots=True)
class _Online:
    """What a camera gave while it was online."""

    seconds: float = 0.0
    frames: int = 0


@dataclass(frozen=True, slots=True)
class Watch:
    """What the agent saw of a trial."""

    watched_s: float = 0.0  # since the trial began, or since this agent started
    last_s: float | None = None  # monotonic: the last look
    running_s: float = 0.0  # that the device ran
    serving_s: float = 0.0  # that it served the new pair
    restarts: int = 0
    signs: VitalSigns | None = None  # of the last look at which the device ran
    served: bool = False  # the new pair, at the last look
    counts: _Counts = _Counts()  # while it served the new pair
    cameras: Mapping[str, _Online] = field(default_factory=dict)


def look(watch: Watch, signs: VitalSigns | None, trial: str, now_s: float) -> Watch:
    """Return a watch after another look.

    Args:
        watch: before.
        signs: fresh ones; None: the device does not run.
        trial: id of the trial.
        now_s: monotonic.
    """
    passed_s = max(0.0, now_s - watch.last_s) if watch.last_s is not None else 0.0
    watch = replace(watch, watched_s=watch.watched_s + passed_s, last_s=now_s)
    if signs is None:
        return replace(watch, served=False)
    before, served = watch.signs, signs.trial == trial
    same_run = before is not None and before.boot_id == signs.boot_id
    watch = replace(
        watch,
        running_s=watch.running_s + passed_s,
        restarts=watch.restarts + (before is not None and not same_run),
        signs=signs,
        served=served,
    )
    if not served or not _is_of(before, trial) or before is None:
        return watch
    start = _Counts.of(before) if same_run else _Counts()
    return replace(
        watch,
        serving_s=watch.serving_s + passed_s,
        counts=watch.counts.add(_Counts.of(signs), start),
        cameras=_cameras(watch.cameras, before, signs) if same_run else watch.cameras,
    )


def _is_of(before: VitalSigns | None, trial: str) -> bool:
    """Return whether the signs of an earlier look are of the new pair."""
    return before is not None and before.trial == trial


def _cameras(seen: Mapping[str, _Online], before: VitalSigns, now: VitalSigns) -> dict[str, _Online]:
    found, passed_s = dict(seen), now.written_monotonic_s - before.written_monotonic_s
    for name, camera in now.cameras.items():
        was = before.cameras.get(name)
        if was is None or was.state != "online" or camera.state != "online" or passed_s <= 0:
            continue
        one = found.get(name, _Online())
        found[name] = _Online(one.seconds + passed_s, one.frames + max(0, camera.frames - was.frames))
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a trial says so far."""

    kind: Literal["waiting", "good", "bad"]
    reason: str | None = None


def judge(watch: Watch, baseline: Baseline, policy: Trial) -> Verdict:
    """Judge a trial by what was seen so far."""
    bad = _why_bad(watch, baseline, policy)
    if bad is not None:
        return Verdict("bad", bad)
    if watch.serving_s >= policy.seconds and watch.served:
        return Verdict("good")
    if watch.signs is None:
        return Verdict("waiting", "edge is not running; a trial needs it")
    return Verdict("waiting", f"on trial: served for {watch.serving_s:.0f} of {policy.seconds:.0f} s")


def _why_bad(watch: Watch, baseline: Baseline, policy: Trial) -> str | None:
    if watch.restarts > policy.restarts:
        return f"edge restarted {watch.restarts} times during the trial"
    if watch.watched_s - watch.running_s >= policy.edge_within_s:
        return f"edge did not run for {policy.edge_within_s:.0f} s of the trial"
    signs = watch.signs
    if signs is not None and not watch.served and signs.fallback and watch.serving_s > 0:
        return f"edge fell back: {signs.fallback}"
    if watch.running_s - watch.serving_s >= policy.serve_within_s and not watch.served:
        why = f": {signs.fallback}" if signs is not None and signs.fallback else ""
        return f"edge did not serve the new pair within {policy.serve_within_s:.0f} s{why}"
    found = (check(watch, baseline, policy) for check in (_why_errors, _why_slow, _why_drift))
    return next(filter(None, found), None)


def _why_errors(watch: Watch, baseline: Baseline, policy: Trial) -> str | None:
    now, before = watch.counts, baseline.frame_errors / max(1, baseline.frames + baseline.frame_errors)
    rate = now.frame_errors / max(1, now.frames + now.frame_errors)
    if now.frame_errors < _FEW_ERRORS or rate <= before + policy.error_rate:
        return None
    return f"{now.frame_errors} frames failed, {rate:.1%}; {before:.1%} before"


def _why_slow(watch: Watch, baseline: Baseline, policy: Trial) -> str | None:
    for name, before in sorted(baseline.fps.items()):
        seen = watch.cameras.get(name, _Online())
        if before < _LEAST_RATE or seen.seconds < min(_ENOUGH_S, policy.seconds / 2):
            continue
        if (rate := seen.frames / seen.seconds) < policy.frame_rate * before:
            return f"camera {name!r}: {rate:.1f} frames a second, {before:.1f} before"
    return None


def _why_drift(watch: Watch, baseline: Baseline, policy: Trial) -> str | None:
    answers, answers_before = watch.counts.known + watch.counts.unknown, baseline.known + baseline.unknown
    if min(answers, answers_before) < policy.answers:
        return None
    rate, before = watch.counts.known / answers, baseline.known / answers_before
    if rate >= before - policy.match_rate_drop:
        return None
    return f"{rate:.0%} of {answers} objects were known, {before:.0%} before"
