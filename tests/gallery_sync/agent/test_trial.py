"""The judge of a trial: what fails a release, what says nothing, and what confirms it."""

from __future__ import annotations

import pytest

from edge.telemetry.vital_signs import VitalPair, VitalSigns
from gallery_sync.agent.policy import Trial
from gallery_sync.agent.trial import Baseline, Verdict, Watch, baseline_of, judge, look, read_baseline

POLICY = Trial(seconds=100.0, serve_within_s=30.0, edge_within_s=60.0)


def signs(at_s: float, trial: str | None = "t1", run: str = "run", fallback: str | None = None, **counts) -> VitalSigns:
    """Vital signs of a device with one camera, at a time since the trial began."""
    frames = counts.get("frames", round(at_s * 10))
    camera = {"state": counts.get("state", "online"), "frames": frames, "errors": 0, "fps": counts.get("fps", 10.0)}
    return VitalSigns(
        schema="finesight.vital_signs/1",
        boot_id=run,
        pid=1,
        started_at=0.0,
        written_at=at_s,
        started_monotonic_s=0.0,
        written_monotonic_s=at_s,
        state="running",
        pair=VitalPair(slot="a", bundle_id="b", gallery="g"),
        trial=trial,
        fallback=fallback,
        cameras={"shelf": camera},  # type: ignore[dict-item]
        frames=frames,
        frame_errors=counts.get("errors", 0),
        known=counts.get("known", round(at_s)),
        unknown=counts.get("unknown", round(at_s / 10)),
    )


def watch(*looks: tuple[float, VitalSigns | None]) -> Watch:
    seen = Watch()
    for at_s, found in looks:
        seen = look(seen, found, "t1", at_s)
    return seen


def steady(end_s: int = 110, **counts) -> Watch:
    """A device that serves the new pair from the start; counts are per second."""
    rates = {name: value for name, value in counts.items() if name in {"frames", "errors", "known", "unknown"}}
    fixed = {name: value for name, value in counts.items() if name not in rates}
    looks = [
        (float(at_s), signs(at_s, **fixed, **{name: round(at_s * rate) for name, rate in rates.items()}))
        for at_s in range(0, end_s + 1, 5)
    ]
    return watch(*looks)


BEFORE = Baseline(fps={"shelf": 10.0}, frames=10_000, frame_errors=0, known=900, unknown=90)


def test_device_that_serves_for_the_whole_trial_confirms():
    assert judge(steady(95), BEFORE, POLICY).kind == "waiting"
    assert judge(steady(100), BEFORE, POLICY) == Verdict("good")


def test_device_that_does_not_run_is_waited_for():
    seen = watch((0.0, None), (50.0, None))
    assert judge(seen, BEFORE, POLICY) == Verdict("waiting", "edge is not running; a trial needs it")
    assert judge(look(seen, None, "t1", 60.0), BEFORE, POLICY).kind == "bad"


def test_device_that_starts_late_still_confirms():
    looks = [(float(n), None) for n in range(0, 40, 5)] + [(float(n), signs(n)) for n in range(40, 150, 5)]
    assert judge(watch(*looks), BEFORE, POLICY) == Verdict("good")


def test_device_that_serves_the_old_pair_fails_in_time():
    looks = [(float(n), signs(n, trial=None, fallback="cannot load")) for n in range(0, 35, 5)]
    assert judge(watch(*looks[:-1]), BEFORE, POLICY).kind == "waiting"
    assert judge(watch(*looks), BEFORE, POLICY) == Verdict(
        "bad", "edge did not serve the new pair within 30 s: cannot load"
    )


def test_f4_fallback_after_it_served_fails_at_once():
    seen = watch((0.0, signs(0)), (5.0, signs(5)), (10.0, signs(10, trial=None, run="run-2", fallback="it crashed")))
    assert judge(seen, BEFORE, POLICY) == Verdict("bad", "edge fell back: it crashed")


def test_crash_loop_fails():
    looks = [(float(n), signs(n, run=f"run-{n}")) for n in range(0, 20, 5)]
    assert judge(watch(*looks[:-1]), BEFORE, POLICY).kind == "waiting"
    assert judge(watch(*looks), BEFORE, POLICY) == Verdict("bad", "edge restarted 3 times during the trial")


@pytest.mark.parametrize(("rate", "kind"), [(7.9, "bad"), (8.1, "good"), (20.0, "good")])
def test_frame_rate_below_a_share_of_before_fails(rate, kind):
    verdict = judge(steady(frames=rate), BEFORE, POLICY)
    assert verdict.kind == kind
    assert kind == "good" or "camera 'shelf': 7.9 frames a second, 10.0 before" in (verdict.reason or "")


@pytest.mark.parametrize("state", ["offline", "stalled", "frozen"])
def test_camera_without_frames_says_nothing(state):
    assert judge(steady(frames=0.0, state=state), BEFORE, POLICY) == Verdict("good")


def test_camera_that_was_idle_before_says_nothing():
    assert judge(steady(frames=0.0), Baseline(fps={"shelf": 0.0}), POLICY) == Verdict("good")


def test_hung_recognition_fails():
    assert judge(steady(frames=0.0), BEFORE, POLICY).kind == "bad"


@pytest.mark.parametrize(("errors", "kind"), [(0.02, "good"), (0.4, "good"), (0.9, "bad"), (10.0, "bad")])
def test_failing_frames_above_those_of_before_fail(errors, kind):
    assert judge(steady(errors=errors), BEFORE, POLICY).kind == kind


def test_frames_that_failed_before_too_are_no_fault():
    failing = Baseline(frames=900, frame_errors=100)
    assert judge(steady(errors=1.2), failing, POLICY).kind == "good"


@pytest.mark.parametrize(
    ("known", "unknown", "kind"), [(1.0, 0.1, "good"), (0.8, 0.3, "good"), (0.5, 0.5, "bad"), (0.1, 0.1, "good")]
)
def test_share_of_known_answers_is_compared_with_enough_of_them(known, unknown, kind):
    assert judge(steady(known=known, unknown=unknown), BEFORE, POLICY).kind == kind


def test_too_few_answers_before_compare_nothing():
    assert judge(steady(known=0.0, unknown=5.0), Baseline(known=3), POLICY).kind == "good"


def test_more_known_answers_are_no_fault():
    assert judge(steady(known=5.0, unknown=0.0), Baseline(known=10, unknown=990), POLICY).kind == "good"


def test_counts_before_the_switch_do_not_count():
    """The same process goes on, and its counts are those since it started."""
    looks = [(0.0, signs(0, trial=None, unknown=5000)), (5.0, signs(5, unknown=5000, known=0))]
    looks += [(float(n), signs(n, unknown=5000, known=n)) for n in range(10, 120, 5)]
    assert judge(watch(*looks), BEFORE, POLICY) == Verdict("good")


def test_c3_time_that_the_agent_did_not_watch_does_not_count():
    seen = look(steady(50), signs(5000), "t1", 50.0)
    assert seen.serving_s == 50.0


def test_baseline_holds_what_is_compared():
    text = baseline_of(signs(100))
    assert read_baseline(text) == Baseline(fps={"shelf": 10.0}, frames=1000, known=100, unknown=10)
    assert baseline_of(None) is None
    assert read_baseline(None) == read_baseline("damaged") == Baseline()
