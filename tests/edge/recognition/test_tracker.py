"""Tracking boxes and whole frames."""

import numpy as np
import pytest

from edge.recognition.tracker import BoxTracker, WholeFrameTracker
from edge.types import Detection

BLANK = np.zeros((4, 4, 3), np.uint8)
FRAME_S = 1 / 15


def seen(x, y=100.0, *, size=60.0, score=0.9):
    return Detection((x, y, x + size, y + size), score, "object")


class Film:
    """Feeds a tracker frame by frame and records its output."""

    def __init__(self, gap_s=1.0):
        self.tracker = BoxTracker(gap_s)
        self.now_s = 0.0
        self.ids = set()
        self.ended = []

    def show(self, *detections):
        self.now_s += FRAME_S
        update = self.tracker.update(BLANK, list(detections), self.now_s)
        self.ids |= {track.track_id for track in update.detected}
        self.ended += [track.track_id for track in update.ended]
        return {track.track_id: track for track in update.detected}


def test_low_score_box_starts_no_track_but_continues_one():
    film = Film()
    assert film.show(seen(100, score=0.4)) == {}
    assert film.show(seen(100)).keys() == {1}
    assert film.show(seen(100, score=0.31))[1].hits == 2


def test_still_boxes_keep_their_ids_through_missed_detections():
    film, rng = Film(), np.random.default_rng(0)
    for _ in range(150):
        boxes = [seen(x + rng.normal(), 100 + rng.normal(), score=rng.uniform(0.3, 1)) for x in (50, 130, 210)]
        film.show(*(box for box in boxes if rng.random() > 0.3))
    assert film.ids == {1, 2, 3}
    assert film.ended == []


@pytest.mark.parametrize("seed", range(5))
def test_still_boxes_keep_their_ids_through_short_occlusions(seed):
    film, rng = Film(gap_s=1.0), np.random.default_rng(seed)
    for frame in range(90):
        hidden = 12 <= frame % 30 < 25  # 13 of 15 frames a second
        boxes = [seen(x + rng.normal(0, 1.5), 100 + rng.normal(0, 1.5)) for x in (50, 130, 210)]
        film.show(*(boxes[:1] if hidden else boxes))
    assert film.ids == {1, 2, 3}


@pytest.mark.parametrize("seed", range(5))
def test_box_hidden_right_after_it_appeared_keeps_its_id(seed):
    film, rng = Film(), np.random.default_rng(seed)
    for frame in range(30):
        film.show(*([] if 2 <= frame < 14 else [seen(50 + rng.normal(0, 2))]))
    assert film.ids == {1}


def test_objects_that_pass_each_other_keep_their_ids():
    film = Film()
    for frame in range(60):
        right, left = seen(20 + 6 * frame, 100), seen(380 - 6 * frame, 115)
        tracks = film.show(right, left)
    assert film.ids == {1, 2}
    assert tracks[1].box_px == right.box_px
    assert tracks[1].velocity[0] == pytest.approx(90, abs=1)  # pixels per second
    assert tracks[2].velocity[0] == pytest.approx(-90, abs=1)


def test_objects_that_occlude_each_other_keep_their_ids():
    film = Film()
    for frame in range(60):
        right, left = seen(20 + 6 * frame, 100), seen(380 - 6 * frame, 115)
        together = abs(right.box_px[0] - left.box_px[0]) < 40
        tracks = film.show(*([right] if together else [right, left]))
    assert tracks.keys() == {1, 2}
    assert tracks[1].box_px == right.box_px


def test_moving_object_is_found_again_where_predicted():
    film = Film()
    for frame in range(40):
        if not 15 <= frame < 25:  # two thirds of a second behind a post: 100 pixels
            film.show(seen(20 + 10 * frame))
        else:
            film.show()
    assert film.ids == {1}


def test_gap_ends_a_track_once_and_its_id_is_not_reused():
    film = Film(gap_s=1.0)
    film.show(seen(100))
    for _ in range(40):
        film.show()
    assert film.ended == [1]
    assert film.show(seen(100)).keys() == {2}
    assert film.ended == [1]


def test_end_all_ends_every_track_and_ids_continue():
    film = Film()
    film.show(seen(0), seen(200))
    assert [track.track_id for track in film.tracker.end_all()] == [1, 2]
    assert film.tracker.end_all() == []
    assert film.show(seen(0)).keys() == {3}


def test_track_has_first_and_last_seen_times():
    film = Film()
    film.show(seen(0))
    film.show()
    track = film.show(seen(0))[1]
    assert (track.first_seen_s, track.last_seen_s, track.hits) == (
        pytest.approx(FRAME_S),
        pytest.approx(3 * FRAME_S),
        2,
    )


def test_box_of_another_size_in_the_same_place_is_another_track():
    film = Film()
    film.show(seen(100))
    assert film.show(seen(125, 125, size=10)).keys() == {2}


@pytest.mark.parametrize("step_s", [0.0, 0.001, -0.02])
def test_burst_of_late_frames_breaks_no_track(step_s):
    """After half a second without frames, those of that time arrive at once, with equal or disordered times."""
    film, newest_s = Film(gap_s=1.0), 0.0
    for frame in range(60):
        if 20 <= frame < 28:
            film.now_s += (0.5 if frame == 20 else step_s) - FRAME_S
        tracks = film.show(seen(50), seen(20 + 10 * frame, 250), seen(700 - 6 * frame, 400))
        newest_s = max(newest_s, film.now_s)
        assert {track.last_seen_s for track in tracks.values()} == {newest_s}
        assert max(abs(v) for track in tracks.values() for v in track.velocity) < 700
    assert film.ids == {1, 2, 3}
    assert film.ended == []
    assert tracks[2].velocity[0] == pytest.approx(150, abs=5)


def test_box_that_appears_in_a_burst_is_not_fast():
    film = Film()
    film.show(seen(50))
    film.now_s -= FRAME_S
    assert film.show(seen(52))[1].velocity[0] == pytest.approx(120)  # 2 px in a 60th of a second


def test_time_may_go_back_after_every_track_ended():
    film = Film(gap_s=1.0)
    film.now_s = 100.0
    film.show(seen(0))
    film.tracker.end_all()
    film.now_s = 0.0
    assert film.show(seen(0))[2].first_seen_s == FRAME_S


@pytest.mark.parametrize("shift", [70, -70])
def test_objects_that_a_pan_moves_onto_their_neighbours_keep_their_ids(shift):
    """At five frames a second, each object is about where its neighbour was, of another size."""
    film, widths = Film(), (60, 44, 66, 50, 72, 40, 58, 48)
    for frame in range(4):
        boxes = [(100 + 85 * i + shift * frame, w) for i, w in enumerate(widths)]
        film.now_s += 0.2 - FRAME_S
        tracks = film.show(*(Detection((x, 100.0, x + w, 100 + 2.5 * w), 0.9, "object") for x, w in boxes))
        assert [tracks[i + 1].box_px[0] for i in range(len(widths))] == [x for x, _ in boxes]


def test_box_that_now_and_then_covers_an_object_is_no_second_one():
    film = Film()
    for frame in range(60):
        film.show(seen(100), *([seen(122, score=0.6)] if frame % 3 else []))
    assert film.ids == {1}


def test_box_inside_an_object_is_no_second_one():
    film = Film()
    for _ in range(5):
        film.show(seen(100), seen(112, 112, size=36))  # IoU 0.36
    assert film.ids == {1}


def test_box_of_high_score_is_matched_before_a_nearer_one_of_low_score():
    film = Film()
    film.show(seen(100))
    assert film.show(seen(120), seen(101, score=0.4))[1].box_px[0] == 120


def test_track_seen_just_now_is_matched_before_a_nearer_one_long_unseen():
    film = Film()
    for frame in range(10):
        film.show(seen(130), *([seen(100)] if frame < 2 else []))
    assert film.show(seen(113)).keys() == {1}


def test_object_beside_another_is_tracked_if_it_stays():
    film = Film()
    for _ in range(9):
        film.show(seen(100), seen(122))
    assert {i: (track.box_px[0], track.hits) for i, track in film.show(seen(100), seen(122)).items()} == {
        1: (100, 10),
        2: (122, 2),
    }


def test_new_track_does_not_take_the_object_of_an_older_one():
    film = Film()
    for _ in range(5):
        film.show(seen(100))
    film.show(seen(98), seen(130))
    assert film.show(seen(125)).keys() == {1}


@pytest.mark.parametrize(
    "boxes",
    [
        [(20, 20, 20, 20)],
        [(20, 0, 20, 60), (0, 20, 60, 20)],  # two lines that cross
        [(60, 60, 10, 10)],
        [(-90, -90, -30, -30)],
        [(-1e9, -1e9, 1e9, 1e9)],
    ],
    ids=["point", "lines", "inside_out", "outside", "huge"],
)
def test_odd_boxes_break_no_other_track(boxes):
    film = Film()
    for number in range(20):
        odd = boxes[number % len(boxes)]
        tracks = film.show(seen(200), Detection(tuple(map(float, odd)), 0.9, "object"))
        assert tracks[1].hits == number + 1


def test_tracks_follow_a_change_of_resolution():
    film = Film()
    for frame in range(4):
        film.show(seen(100 + 6 * frame))
    (before,) = film.tracker.tracks
    film.tracker.rescale(0.5, 2.0)
    (after,) = film.tracker.tracks
    assert after.box_px == (59, 200, 89, 320)
    assert after.velocity == (before.velocity[0] / 2, 0.0)
    assert before.velocity[0] == pytest.approx(90)


def picture(level):
    return np.full((48, 64, 3), level, np.uint8)


def show_all(tracker, levels, start_s=0.0):
    return [tracker.update(picture(level), [], start_s + n / 10) for n, level in enumerate(levels)]


def ids(update):
    return [track.track_id for track in update.detected], [track.track_id for track in update.ended]


def test_still_whole_frame_is_one_track():
    steps = show_all(WholeFrameTracker(), [90, 90, 91])
    assert [ids(update) for update in steps] == [([], []), ([1], []), ([1], [])]
    assert steps[2].detected[0].box_px == (0, 0, 64, 48)
    assert steps[2].detected[0].hits == 2


def test_changed_whole_frame_starts_a_track_once_it_holds_still():
    steps = show_all(WholeFrameTracker(), [90, 90, 150, 200, 200, 200])
    assert [ids(update) for update in steps[2:]] == [([], [1]), ([], []), ([2], []), ([2], [])]


def test_brief_motion_in_a_whole_frame_ends_nothing():
    steps = show_all(WholeFrameTracker(), [90, 90, 98, 90, 90])
    assert [ids(update) for update in steps[2:]] == [([], []), ([], []), ([1], [])]


def test_end_all_of_a_whole_frame_starts_another_track():
    tracker = WholeFrameTracker()
    show_all(tracker, [90, 90])
    assert [track.track_id for track in tracker.end_all()] == [1]
    assert tracker.end_all() == []
    assert [ids(update) for update in show_all(tracker, [90, 90], 1.0)] == [([], []), ([2], [])]


def test_young_track_moves_with_the_camera():
    """While a camera pans, an object seen once at the border is not matched to the next one that enters there."""
    film = Film(gap_s=2.0)
    for i in range(10):
        film.show(seen(900 - 20 * i), seen(1000 - 20 * i))
    first = max(film.show(seen(700), seen(800), seen(1200)))
    for i in range(11, 20):
        film.show(seen(900 - 20 * i), seen(1000 - 20 * i))
    assert max(film.show(seen(500), seen(600), seen(1200))) != first


def test_hold_keeps_tracks_where_they_were():
    film = Film(gap_s=1.0)
    before = film.show(seen(50), seen(200))
    assert film.tracker.is_at_rest
    update = film.tracker.hold(film.now_s + 5.0)
    assert [(track.track_id, track.box_px) for track in update.detected] == [(i, before[i].box_px) for i in (1, 2)]
    assert [(track.hits, track.last_seen_s) for track in update.detected] == [(1, film.now_s + 5.0)] * 2
    assert film.tracker.is_at_rest


def test_undetected_track_is_not_at_rest():
    film = Film()
    film.show(seen(50), seen(200))
    film.show(seen(50))
    assert not film.tracker.is_at_rest


def test_moving_track_is_not_at_rest():
    film = Film()
    film.show(seen(50))
    film.show(seen(58))
    assert not film.tracker.is_at_rest
