"""Zones and lines."""

import pytest

from edge.config.schema import LineConfig, ZoneConfig
from edge.recognition.zones import Zones, ZoneState, foot_of, is_inside

SQUARE = ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8))
L_SHAPE = ((0.0, 0.0), (0.2, 0.0), (0.2, 0.8), (1.0, 0.8), (1.0, 1.0), (0.0, 1.0))
UPWARDS = LineConfig.model_validate({"from": (0.5, 0.9), "to": (0.5, 0.1)})


def box_at(x, y):
    """Return a box with its foot point there."""
    return (x - 0.1, y - 0.2, x + 0.1, y)


class Walk:
    """One object that moves, with a second between two positions."""

    def __init__(self, zones=None, lines=None):
        self.zones, self.state, self.now_s = Zones(zones or {}, lines or {}), ZoneState(), 0.0

    def to(self, *feet):
        crossed = []
        for x, y in feet:
            crossed += self.zones.update(self.state, box_at(x, y), self.now_s)
            self.now_s += 1.0
        return [(one.line, one.direction) for one in crossed]


def test_foot_point_is_the_middle_of_the_lower_edge():
    assert foot_of((0.2, 0.1, 0.4, 0.7)) == pytest.approx((0.3, 0.7))


def test_point_is_in_a_polygon_of_any_shape():
    assert is_inside((0.5, 0.5), SQUARE)
    assert not is_inside((0.9, 0.5), SQUARE)
    assert is_inside((0.1, 0.5), L_SHAPE)
    assert is_inside((0.9, 0.9), L_SHAPE)
    assert not is_inside((0.5, 0.5), L_SHAPE)


def test_foot_on_the_frame_border_is_in_a_zone_up_to_there():
    walk = Walk({"all": ZoneConfig(polygon=((0, 0), (1, 0), (1, 1), (0, 1)))})
    walk.to((1.0, 1.0))
    assert walk.state.is_monitored


def test_without_zones_every_object_is_monitored():
    walk = Walk()
    walk.to((0.5, 0.5))
    assert walk.state.is_monitored


def test_only_objects_in_an_include_zone_are_monitored():
    walk = Walk({"square": ZoneConfig(polygon=SQUARE)})
    walk.to((0.1, 0.1))
    assert not walk.state.is_monitored
    walk.to((0.5, 0.5))
    assert walk.state.is_monitored


def test_exclude_zone_wins():
    walk = Walk({"all": ZoneConfig(polygon=SQUARE), "not": ZoneConfig(polygon=L_SHAPE, kind="exclude")})
    walk.to((0.5, 0.5))
    assert walk.state.is_monitored
    walk.to((0.2001, 0.8001))
    assert not walk.state.is_monitored


def test_zone_counts_after_its_dwell_time_without_a_break():
    walk = Walk({"square": ZoneConfig(polygon=SQUARE, dwell_s=2.0)})
    walk.to((0.5, 0.5), (0.5, 0.5), (0.9, 0.9), (0.5, 0.5), (0.5, 0.5))
    assert walk.state.zones == ()
    walk.to((0.5, 0.5))
    assert walk.state.zones == ("square",)


def test_zone_is_kept_after_the_object_leaves_it():
    walk = Walk({"square": ZoneConfig(polygon=SQUARE)})
    walk.to((0.5, 0.5), (0.9, 0.9), (0.5, 0.5))
    assert walk.state.zones == ("square",)


def test_left_and_right_are_as_seen_along_the_line():
    walk = Walk(lines={"gate": UPWARDS})
    assert walk.to((0.3, 0.5), (0.7, 0.5)) == [("gate", "left_to_right")]
    assert walk.to((0.3, 0.5)) == [("gate", "right_to_left")]
    assert [one.direction for one in walk.state.crossings] == ["left_to_right", "right_to_left"]


def test_passing_the_end_of_a_line_is_no_crossing():
    assert Walk(lines={"gate": UPWARDS}).to((0.3, 0.95), (0.7, 0.95)) == []


def test_object_on_a_line_does_not_cross_back_and_forth():
    walk = Walk(lines={"gate": UPWARDS})
    assert walk.to((0.3, 0.5), *[(0.5 + sway, 0.5) for sway in (0.005, -0.005) * 5]) == []
    assert walk.to((0.7, 0.5)) == [("gate", "left_to_right")]


def test_only_the_newest_crossings_are_kept():
    walk = Walk(lines={"gate": UPWARDS})
    assert len(walk.to(*[(x, 0.5) for x in (0.3, 0.7) * 10])) == 19
    assert len(walk.state.crossings) == 8
