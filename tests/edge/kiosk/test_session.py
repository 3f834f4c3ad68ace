"""The state of the page after frames, button presses and time."""

from __future__ import annotations

from edge.kiosk import session as ks
from edge.kiosk.session import FrameSummary, Session
from edge.types import Category, Decision, Hit, Match

OATS = Decision(Category("carton", 0.9), Match("c1", "Oat flakes", 0.9, 0.5, 0.97), None)
CORN = Decision(Category("carton", 0.9), Match("c2", "Corn flakes", 0.9, 0.5, 0.97), None)
NOTHING = Decision(Category("carton", 0.9), None, "unknown_item", (Hit("c1", "Oat flakes", 0.3),))


def after(*frames: tuple, session: Session | None = None) -> Session:
    session = session or Session()
    for frame in frames:
        session = ks.update(session, FrameSummary(*frame))
    return session


def test_first_frame_ends_the_no_picture_phase():
    assert Session().phase == "no_picture"
    assert after((1.0, None, None)).phase == "waiting"


def test_match_is_shown_without_a_question():
    session = after((1.0, None, None), (1.1, 1, None), (1.2, 1, OATS))
    assert (session.phase, session.decision, session.is_still) == ("answer", OATS, 1.0)


def test_empty_counter_is_unknown_only_after_a_question():
    session = after((1.0, 1, NOTHING), (60.0, 1, NOTHING))
    assert session.phase == "waiting"
    session = after((60.1, 1, NOTHING), session=ks.ask(session, 60.0))
    assert (session.phase, session.decision) == ("unknown", NOTHING)


def held(from_s: float, to_s: float, track_id=1, decision=NOTHING, session=None) -> Session:
    """Hold something still in front of the camera, four frames a second."""
    for n in range(round(4 * (to_s - from_s)) + 1):
        session = after((from_s + n / 4, track_id, decision, from_s), session=session)
    return session


def test_unknown_thing_held_still_is_answered_without_a_question():
    assert held(1.0, 1.0 + ks.HELD_S - 0.25).phase == "waiting"
    session = held(1.0, 1.0 + ks.HELD_S)
    assert (session.phase, session.decision) == ("unknown", NOTHING)


def test_passing_hand_is_not_held_still():
    session = None
    for start_s in range(1, 20, 2):  # still for a second, then moving
        session = held(float(start_s), start_s + 1.0, track_id=start_s, session=session)
        session = after((start_s + 1.5, None, None, start_s), session=session)
        assert session.phase == "waiting"


def test_slow_hand_that_the_camera_takes_for_still_is_not_held():
    session = None
    for n in range(20):  # it never stays in one place for a second
        session = after((1.0 + n / 4, 1, NOTHING, 1.0 + n // 3), session=session)
    assert session.phase == "waiting"


def test_unknown_answer_leaves_with_the_thing():
    session = held(1.0, 4.0)
    empty = (4.0 + ks.ANSWER_HOLD_S + 0.1, 2, NOTHING, None)
    assert after((4.5, 2, NOTHING, None), session=session).phase == "unknown"
    assert after((4.5, 2, NOTHING, None), empty, session=session).phase == "waiting"


def test_unknown_answer_leaves_with_a_small_thing_whose_track_goes_on():
    session = held(1.0, 4.0)
    for n in range(20):
        session = after((4.25 + n / 4, 1, NOTHING, None), session=session)
    assert session.phase == "waiting"
    assert held(10.0, 13.0, session=session).phase == "unknown"


def test_unknown_thing_that_is_recognised_at_last_is_named():
    assert after((4.0, 1, OATS, 1.0), session=held(1.0, 4.0)).decision == OATS


def test_dismissed_unknown_thing_returns_only_after_it_left():
    dismissed = ks.dismiss(held(1.0, 4.0))
    again = held(4.25, 10.0, session=dismissed)
    assert again.phase == "waiting"
    gone = after((10.25, 1, NOTHING, None), session=again)
    assert held(10.5, 13.0, session=gone).phase == "unknown"


def test_question_waits_for_a_still_object_and_a_decision():
    session = ks.ask(after((1.0, None, None)), 1.0)
    assert session.phase == "hold_still"
    session = after((1.1, None, None), (1.2, 2, None), session=session)
    assert (session.phase, session.is_still) == ("hold_still", True)
    assert after((1.3, 2, NOTHING), session=session).phase == "unknown"


def test_question_times_out_with_a_hint():
    session = ks.ask(after((1.0, None, None)), 1.0)
    session = after((1.0 + ks.ASK_TIMEOUT_S + 0.1, None, None), session=session)
    assert (session.phase, session.hint) == ("waiting", "kept_moving")
    assert ks.ask(session, 20.0).hint is None


def test_answer_stays_briefly_after_the_object_left():
    answered = after((1.0, 1, OATS), (2.0, 1, OATS))
    assert after((2.0 + ks.ANSWER_HOLD_S - 0.1, None, None), session=answered).phase == "answer"
    gone = after((2.0 + ks.ANSWER_HOLD_S + 0.1, None, None), session=answered)
    assert (gone.phase, gone.decision) == ("waiting", None)


def test_next_object_replaces_the_answer():
    assert after((1.0, 1, OATS), (1.5, 2, CORN)).decision == CORN


def test_changed_decision_of_the_same_object_is_shown():
    asked = ks.ask(after((1.0, 1, NOTHING)), 1.0)
    assert after((1.1, 1, NOTHING), (1.5, 1, OATS), session=asked).decision == OATS


def test_dismissed_answer_returns_only_for_a_new_object_or_question():
    dismissed = ks.dismiss(after((1.0, 1, OATS)))
    assert dismissed.phase == "waiting"
    assert after((1.1, 1, OATS), session=dismissed).phase == "waiting"
    assert after((1.2, 2, OATS), session=dismissed).phase == "answer"
    assert after((1.2, 1, OATS), session=ks.ask(dismissed, 1.1)).phase == "answer"


def test_teaching_ignores_matches_until_it_ends():
    session = ks.start_enrolment(after((1.0, 1, OATS)))
    session = after((1.5, 1, CORN), (60.0, 2, OATS), session=session)
    assert session.phase == "teaching"
    assert ks.ask(session, 60.0).phase == "teaching"
    assert after((60.1, 2, OATS), session=ks.end_enrolment(session)).phase == "answer"


def test_no_picture_phase_begins_without_frames():
    answered = after((1.0, 1, OATS))
    assert ks.pass_time(answered, 1.0 + ks.NO_FRAME_TIMEOUT_S - 0.1).phase == "answer"
    stale = ks.pass_time(answered, 1.0 + ks.NO_FRAME_TIMEOUT_S + 0.1)
    assert (stale.phase, stale.decision, stale.is_still) == ("no_picture", None, False)
    assert ks.ask(stale, 9.0).phase == ks.start_enrolment(stale).phase == ks.dismiss(stale).phase == "no_picture"
