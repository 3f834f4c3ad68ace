"""What a kiosk shows, from frames, touches and time."""

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
        session = ks.see(session, FrameSummary(*frame))
    return session


def test_the_first_frame_ends_the_wait_for_a_picture():
    assert Session().phase == "no_picture"
    assert after((1.0, None, None)).phase == "waiting"


def test_what_is_recognised_is_told_without_being_asked():
    session = after((1.0, None, None), (1.1, 1, None), (1.2, 1, OATS))
    assert (session.phase, session.decision, session.is_still) == ("answer", OATS, True)


def test_an_empty_counter_is_not_called_unknown_until_somebody_asks():
    session = after((1.0, 1, NOTHING), (2.0, 1, NOTHING))
    assert session.phase == "waiting"
    session = after((2.1, 1, NOTHING), session=ks.ask(session, 2.0))
    assert (session.phase, session.decision) == ("unknown", NOTHING)


def test_a_question_waits_until_the_thing_holds_still_and_is_decided():
    session = ks.ask(after((1.0, None, None)), 1.0)
    assert session.phase == "hold_still"
    session = after((1.1, None, None), (1.2, 2, None), session=session)
    assert (session.phase, session.is_still) == ("hold_still", True)
    assert after((1.3, 2, NOTHING), session=session).phase == "unknown"


def test_a_question_nobody_holds_still_for_is_given_up_and_says_why():
    session = ks.ask(after((1.0, None, None)), 1.0)
    session = after((1.0 + ks.ASK_PATIENCE_S + 0.1, None, None), session=session)
    assert (session.phase, session.hint) == ("waiting", "kept_moving")
    assert ks.ask(session, 20.0).hint is None


def test_an_answer_stays_for_a_moment_after_the_thing_left():
    told = after((1.0, 1, OATS), (2.0, 1, OATS))
    assert after((2.0 + ks.LINGER_S - 0.1, None, None), session=told).phase == "answer"
    gone = after((2.0 + ks.LINGER_S + 0.1, None, None), session=told)
    assert (gone.phase, gone.decision) == ("waiting", None)


def test_the_next_thing_replaces_the_answer_at_once():
    assert after((1.0, 1, OATS), (1.5, 2, CORN)).decision == CORN


def test_an_answer_that_changes_its_mind_about_the_same_thing_is_told():
    asked = ks.ask(after((1.0, 1, NOTHING)), 1.0)
    assert after((1.1, 1, NOTHING), (1.5, 1, OATS), session=asked).decision == OATS


def test_a_dismissed_answer_comes_back_for_the_next_thing_or_when_asked_only():
    dismissed = ks.dismiss(after((1.0, 1, OATS)))
    assert dismissed.phase == "waiting"
    assert after((1.1, 1, OATS), session=dismissed).phase == "waiting"
    assert after((1.2, 2, OATS), session=dismissed).phase == "answer"
    assert after((1.2, 1, OATS), session=ks.ask(dismissed, 1.1)).phase == "answer"


def test_teaching_is_not_disturbed_by_what_is_seen_and_tells_it_anew_when_it_ends():
    session = ks.teach(after((1.0, 1, OATS)))
    session = after((1.5, 1, CORN), (60.0, 2, OATS), session=session)
    assert session.phase == "teaching"
    assert ks.ask(session, 60.0).phase == "teaching"
    assert after((60.1, 2, OATS), session=ks.taught(session)).phase == "answer"


def test_without_frames_nothing_is_shown_as_if_it_were_there():
    told = after((1.0, 1, OATS))
    assert ks.pass_time(told, 1.0 + ks.BLIND_S - 0.1).phase == "answer"
    blind = ks.pass_time(told, 1.0 + ks.BLIND_S + 0.1)
    assert (blind.phase, blind.decision, blind.is_still) == ("no_picture", None, False)
    assert ks.ask(blind, 9.0).phase == ks.teach(blind).phase == ks.dismiss(blind).phase == "no_picture"
