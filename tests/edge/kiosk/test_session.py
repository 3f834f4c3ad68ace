"""The state of the page after frames, button presses and time."""

from __future__ import annotations

from edge.kiosk import session as ks
from edge.kiosk.session import FrameSummary, Session
from edge.types import Category, Decision, Hit, Match

OATS = Decision(Category("carton", 0.9), Match("c1", "Oat flakes", 0.9, 0.5, 0.97), None)
CORN = Decision(Category("carton", 0.9), Match("c2", "Corn flakes", 0.9, 0.5, 0.97), None)
NOTHING = Decision(Category("carton", 0.9), None, "unknown_item", (Hit("c1", "Oat flakes", 0.3),))


def after(*frames: tuple[float, int | None, Decision | None], session: Session | None = None) -> Session:
    session = session or Session()
    for frame in frames:
        session = ks.update(session, FrameSummary(*frame))
    return session


def test_first_frame_ends_the_no_picture_phase():
    assert Session().phase == "no_picture"
    assert after((1.0, None, None)).phase == "waiting"


def test_match_is_shown_without_a_question():
    session = after((1.0, None, None), (1.1, 1, None), (1.2, 1, OATS))
    assert (session.phase, session.decision, session.is_still) == ("answer", OATS, True)


def test_unknown_is_shown_only_after_a_question():
    session = after((1.0, 1, NOTHING), (2.0, 1, NOTHING))
    assert session.phase == "waiting"
    session = after((2.1, 1, NOTHING), session=ks.ask(session, 2.0))
    assert (session.phase, session.decision) == ("unknown", NOTHING)


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
