"""The contact sheet."""

from __future__ import annotations

import numpy as np

from edge.imaging.contact_sheet import Card, contact_sheet


def picture(colour: tuple[int, int, int], height: int = 60, width: int = 30) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def test_card_shows_the_crop_and_the_reference():
    sheet = contact_sheet([Card(picture((250, 0, 0)), picture((0, 0, 250)), "a", "b", is_right=True)] * 7, [])
    for colour in ((250, 0, 0), (0, 0, 250)):
        assert (sheet == colour).all(axis=2).sum() > 7 * 1000


def test_right_wrong_and_unknown_cards_look_different():
    right, wrong, unknown = (
        contact_sheet([Card(picture((9, 9, 9)), None, "", "", is_right=is_right)], [])
        for is_right in (True, False, None)
    )
    assert not np.array_equal(right, wrong)
    assert not np.array_equal(wrong, unknown)


def test_frames_are_above_the_cards_and_any_shape_fits():
    card = Card(picture((1, 2, 3), 10, 400), None, "long title " * 10, "", is_right=None)
    plain, framed = contact_sheet([card], []), contact_sheet([card], [picture((0, 250, 0), 90, 160)] * 3)
    assert framed.shape[0] > plain.shape[0]
    assert framed.shape[1] == plain.shape[1]
    assert (framed[: framed.shape[0] - plain.shape[0]] == (0, 250, 0)).all(axis=2).any()
