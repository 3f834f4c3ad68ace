"""A fleet of real processes on loopback: devices, repository, broker, the fleet's server and the controller.

The tests share four devices, in this order. Each prints what it cost.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fleet_samples import Fleet
from tests.fleet_story import Story
from tests.waiting import LONG_DEADLINE_S

DEVICES, OUTAGE_S = 4, 2.0


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Iterator[Story]:
    """All devices run the first release, and the fleet's server knows it."""
    with Fleet(tmp_path_factory.mktemp("fleet"), DEVICES) as fleet:
        story = Story(fleet, canary_percent=5.0, canary_at_least=1, soak_s=1.0, patience_s=LONG_DEADLINE_S)
        story.begin()
        yield story


def test_bad_release_stops_at_the_canary_and_undoes_itself(story):
    story.bad("blind", "bad release", "rolled back")


def test_good_release_reaches_all_through_outages(story):
    """The broker is killed and the repository cannot be reached in between; one device is off all the time."""
    story.good(OUTAGE_S)
