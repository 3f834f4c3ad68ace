"""Few searches run at once, and few wait."""

from __future__ import annotations

import pytest

from console.search.turns import Turns
from edge.errors import ConsoleError


def test_search_waits_for_a_turn_only_so_long():
    turns = Turns(at_once=1, waiting=1, wait_s=0.01)
    with turns.turn(), pytest.raises(ConsoleError, match="try again") as caught, turns.turn():
        pass
    assert caught.value.reason == "busy"


def test_who_finds_the_queue_full_is_sent_away_at_once():
    turns = Turns(at_once=1, waiting=0, wait_s=60)
    with turns.turn(), pytest.raises(ConsoleError, match="too many people"), turns.turn():
        pass


def test_turns_come_back_after_an_error():
    turns = Turns(at_once=1, waiting=0)
    for _ in range(3):
        with pytest.raises(ValueError, match="x"), turns.turn():
            raise ValueError("x")
    with turns.turn():
        pass
