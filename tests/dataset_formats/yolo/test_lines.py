"""The forms that a line of YOLO may have, and lines that are left out."""

from __future__ import annotations

from collections import Counter

import pytest

from dataset_formats.yolo.lines import Forms, parse_lines

NAMES = {0: "cola", 1: "milk", 7: "tea"}
BOX = "0 .5 .5 .2 .4"
SIDES = pytest.approx((0.4, 0.3, 0.6, 0.7))
TRIANGLE = "0 .1 .1 .4 .1 .4 .5"
SQUARE = "0 .1 .1 .4 .1 .4 .5 .1 .5"


def read(*files: str, keypoints: int = 0):
    """Return the boxes, the scores, the kinds and the problems of all lines of a data set."""
    forms, kinds = Forms(keypoints), Counter()
    parsed = [parse_lines(text, NAMES) for text in files]
    found, problems = [], [problem for one in parsed for problem in one[1]]
    for lines, _, _ in parsed:
        forms.add(lines)
    for line in (line for one in parsed for line in one[0]):
        try:
            found.append(forms.read(line))
            kinds.update(found[-1].kinds)
        except ValueError as error:
            problems.append(str(error))
    return [one.box for one in found], [one.score for one in found], dict(kinds), problems


def test_five_numbers_are_centre_and_size():
    assert read(BOX) == ([SIDES], [None], {}, [])


def test_blank_lines_count_as_lines():
    assert read(f"\r\n\n{BOX}\r\n0 x\n")[3] == [
        "line 4: '0 x' is not a line of numbers; expected 5: class x y width height"
    ]


def test_old_line_ends_and_exotic_ones_do_not_shift_lines():
    assert read(f"{BOX}\r{BOX}\x0c\rx")[3][0].startswith("line 3: 'x'")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("0 0,5 0,5 0,2 0,2", "has commas; write decimal points"),
        ("0,0.5,0.5,0.2,0.2", "has commas"),
        ("cola .5 .5 .2 .2", "not a line of numbers"),
        ("0 nan .5 .2 .2", "not a line of numbers"),
        ("0 .5 .5 inf .2", "not a line of numbers"),
        ("0 1_0 .5 .2 .2", "not a line of numbers"),
        ("0 \u0660.5 .5 .2 .2", "not a line of numbers"),
        ("0 1e400 .5 .2 .2", "inf is not a fraction"),
        ("0 .5 . .2 .2", "not a line of numbers"),
        ("-1 .5 .5 .2 .2", "class -1 has no name; names go from 0 to 7"),
        ("2 .5 .5 .2 .2", "class 2 has no name"),
        ("1e300 .5 .5 .2 .2", "class 1e300 has no name"),
        ("0.5 .5 .5 .2 .2", "class 0.5 is not a whole number"),
        ("0 .5 .5 .2", "found 4 numbers, expected 5"),
        ("0 50 32 20 20", "50 is not a fraction of the picture"),
        ("0 .5 .5 0 .2", "width and height are 0 and 0.2"),
        ("0 .5 .5 .2 -.2", "width and height are 0.2 and -0.2"),
        ("0 1.5 .5 .2 .2", "outside the picture"),
        ("0 100 100 400 100 400 300 100 300", "400 is not a fraction"),
        ("0 .1 .1 .4 .1 .2 .1 .3 .1", "no area"),
        ("10 20 30 20 30 40 10 40 plane 0", "as DOTA writes them"),
        ("10.0 20.0 30.0 20.0 30.0 40.0 10.0 40.0 small-vehicle", "as DOTA writes them"),
    ],
)
def test_line_that_is_no_box_is_left_out_alone(line, why):
    boxes, _, _, problems = read(f"{BOX}\n{line}\n{BOX}")
    assert boxes == [SIDES, SIDES]
    assert len(problems) == 1
    assert why in problems[0]


def test_class_may_be_written_as_a_fraction_of_zero():
    assert read("7.000000 .5 .5 .2 .4")[0] == [SIDES]


def test_box_may_reach_outside_the_picture():
    assert read("0 .5 .5 1.2 .4")[0] == [pytest.approx((-0.1, 0.3, 1.1, 0.7))]


def test_confidence_is_the_score_of_a_prediction():
    assert read(f"{BOX} .9\n{BOX} 1") == ([SIDES, SIDES], [0.9, 1], {"score": 2}, [])


def test_track_ids_are_dense_and_different_in_a_file():
    boxes, scores, kinds, problems = read(f"{BOX} 1\n{BOX} 2", f"{BOX} 2\n{BOX} 3\n{BOX}")
    assert (boxes, scores, kinds, problems) == ([SIDES] * 5, [None] * 5, {"track": 4}, [])


def test_large_whole_sixth_numbers_are_track_ids():
    assert read(f"{BOX} 1204")[2] == {"track": 1}


def test_sixth_number_of_one_needs_no_decision():
    assert read(f"{BOX} 1")[:3] == ([SIDES], [None], {"either": 1})


@pytest.mark.parametrize("angles", [("1.57",), ("-0.4", "0.3"), ("45",), ("0", "90", "90"), ("12.5", "90")])
def test_sixth_number_that_may_be_an_angle_is_left_out(angles):
    boxes, _, _, problems = read("\n".join(f"{BOX} {angle}" for angle in angles))
    assert boxes == []
    assert all("may be an angle" in problem for problem in problems)


def test_one_odd_sixth_number_does_not_cost_the_others():
    boxes, _, kinds, problems = read("\n".join([f"{BOX} .9"] * 20 + [f"{BOX} 1.5"]))
    assert (len(boxes), kinds, len(problems)) == (20, {"score": 20}, 1)


def test_three_corners_are_an_outline():
    assert read(TRIANGLE)[0::2] == ([pytest.approx((0.1, 0.1, 0.4, 0.5))], {"outline": 1})


def test_confidence_and_track_id_are_no_corner():
    assert read(f"{BOX} .9 12\n{BOX} .8 1") == ([SIDES] * 2, [0.9, 0.8], {"score": 2, "track": 2}, [])


def test_seven_numbers_that_may_be_either_are_left_out():
    boxes, _, _, problems = read("0 .5 .5 .2 .4 .9 1")
    assert boxes == []
    assert "may be three corners, or a box, a confidence and a track id" in problems[0]


def test_other_outlines_decide_for_three_corners():
    assert read(f"0 .1 .1 .4 .1 .4 1\n{TRIANGLE}")[2] == {"outline": 2}
    assert read("0 .1 .1 .4 .1 .4 1", SQUARE)[2] == {"outline": 1, "corners": 1}


def test_box_around_four_corners_is_read_and_counted():
    assert read(SQUARE)[0::2] == ([pytest.approx((0.1, 0.1, 0.4, 0.5))], {"corners": 1})


def test_confidence_after_four_corners_is_their_score():
    assert read(f"{SQUARE} .75")[1:3] == ([0.75], {"score": 1, "corners": 1})


def test_track_id_after_an_outline_is_no_corner():
    boxes, scores, kinds, _ = read(f"{TRIANGLE} 5", f"{SQUARE} .9 12")
    assert boxes == [pytest.approx((0.1, 0.1, 0.4, 0.5))] * 2
    assert (scores, kinds) == ([None, 0.9], {"track": 2, "outline": 1, "score": 1, "corners": 1})


def test_declared_keypoints_leave_the_box():
    points = ".1 .1 2 .9 .9 0"
    boxes, scores, kinds, problems = read(f"{BOX} {points}\n{BOX} {points} .8\n{BOX} {points} 3\n{BOX}", keypoints=6)
    assert boxes == [SIDES] * 4
    assert scores == [None, 0.8, None, None]
    assert (kinds, problems) == ({"keypoints": 3, "score": 1, "track": 1}, [])


def test_other_count_than_the_declared_keypoints_is_left_out():
    assert read(f"{BOX} .1 .1", keypoints=6)[3] == ["found 7 numbers, expected 11 by kpt_shape"]


def test_undeclared_keypoints_show_by_their_visibility():
    assert read(f"{BOX} .1 .1 2 .9 .9 0\n{BOX} .1 .1 1 0 0 0")[0::2] == ([SIDES] * 2, {"keypoints": 2})
    assert "may be an outline, or a box with keypoints" in read(f"{BOX} .1 .1 1 .9 .9 0")[3][0]
