"""Bytes a day and metered networks: pure policy, and what reaches the door."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from gallery_sync.transport.byte_budget import (
    Allowance,
    ByteBudget,
    BytePolicy,
    SpentInMemory,
    allowance,
    day_of,
    next_day,
)
from gallery_sync.transport.errors import BudgetError
from gallery_sync.transport.network_manager import MeteredNetwork

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 11, 28, 12, tzinfo=BERLIN)


def test_day_is_one_of_the_devices_zone():
    late = datetime(2026, 11, 28, 23, 30, tzinfo=timezone.utc)
    assert day_of(late) == "2026-11-28"
    assert day_of(late.astimezone(BERLIN)) == "2026-11-29"
    assert next_day(late.astimezone(BERLIN)).isoformat() == "2026-11-30T00:00:00+01:00"


def test_day_of_the_clock_change_is_followed_by_midnight():
    before = datetime(2026, 10, 24, 23, tzinfo=BERLIN)
    assert next_day(next_day(before)).isoformat() == "2026-10-26T00:00:00+01:00"


@pytest.mark.parametrize(
    ("policy", "spent", "metered", "left", "is_metered"),
    [
        (BytePolicy(), 10**12, False, None, False),
        (BytePolicy(bytes_per_day=100), 30, False, 70, False),
        (BytePolicy(bytes_per_day=100), 130, False, 0, False),
        (BytePolicy(bytes_per_day=0), 0, False, 0, False),
        (BytePolicy(), 0, True, None, True),
        (BytePolicy(metered="no"), 0, True, None, False),
        (BytePolicy(metered="yes"), 0, False, None, True),
        (BytePolicy(bytes_per_day=100, metered_bytes_per_day=50), 30, True, 20, True),
        (BytePolicy(bytes_per_day=100, metered_bytes_per_day=50), 30, False, 70, False),
        (BytePolicy(bytes_per_day=100, metered_bytes_per_day=500), 30, True, 70, True),
        (BytePolicy(metered_bytes_per_day=50), 30, True, 20, True),
    ],
)
def test_n10_allowance(policy, spent, metered, left, is_metered):
    assert allowance(policy, spent, NOON, metered=metered) == Allowance(left, is_metered, next_day(NOON))


def test_n10_whole_file_needs_an_unmetered_network_and_room():
    assert allowance(BytePolicy(), 0, NOON, metered=False).whole_file(10**9)
    assert not allowance(BytePolicy(), 0, NOON, metered=True).whole_file(1)
    assert allowance(BytePolicy(bytes_per_day=100), 40, NOON, metered=False).whole_file(60)
    assert not allowance(BytePolicy(bytes_per_day=100), 40, NOON, metered=False).whole_file(61)


def test_bytes_reach_the_door_in_steps_and_by_day():
    door, clock = SpentInMemory(), [NOON]
    budget = ByteBudget(BytePolicy(bytes_per_day=10 << 20), door, now=lambda: clock[0])
    budget.spend(1000)
    assert door.days == {}
    assert budget.allowance().left_bytes == (10 << 20) - 1000
    budget.spend(1 << 20)
    assert door.days == {"2026-11-28": 1000 + (1 << 20)}
    budget.spend(5)
    clock[0] += timedelta(days=1)
    assert budget.allowance().left_bytes == 10 << 20
    budget.spend(7)
    budget.flush()
    budget.flush()
    assert door.days == {"2026-11-28": 1005 + (1 << 20), "2026-11-29": 7}


def test_restart_goes_on_counting():
    door = SpentInMemory()
    for _ in range(2):
        budget = ByteBudget(BytePolicy(bytes_per_day=100), door, now=lambda: NOON)
        budget.spend(40)
        budget.flush()
    assert budget.allowance().left_bytes == 20
    assert budget.may_fetch_whole(20)
    assert not budget.may_fetch_whole(21)


def test_spent_day_is_an_error_that_says_when_it_goes_on():
    door = SpentInMemory()
    door.add("2026-11-28", 100)
    policy = BytePolicy(bytes_per_day=100)
    with pytest.raises(BudgetError, match=r"model: .* are spent; the download goes on at 2026-11-29T00:00\+01:00"):
        ByteBudget(policy, door, now=lambda: NOON).require("model")
    with pytest.raises(BudgetError, match="that a day allows on a metered network are spent") as caught:
        ByteBudget(policy, door, now=lambda: NOON, is_metered=lambda: True).require("model")
    assert caught.value.again_at == datetime(2026, 11, 29, tzinfo=BERLIN)


def test_network_is_asked_only_where_the_policy_leaves_it_to_it():
    for policy in (BytePolicy(metered="no"), BytePolicy(metered="yes")):
        budget = ByteBudget(policy, SpentInMemory(), now=lambda: NOON, is_metered=lambda: 1 / 0)
        assert budget.allowance().metered is (policy.metered == "yes")


@pytest.mark.parametrize(
    ("said", "metered"),
    [("u 0", False), ("u 1", True), ("u 2", False), ("u 3", True), ("u 4", False), ("", False), ("nonsense", False)],
)
def test_n10_network_manager_says_whether_the_network_is_metered(said, metered):
    assert MeteredNetwork(lambda: said)() is metered


def test_network_manager_is_asked_once_a_minute():
    asked, clock = [], [0.0]
    network = MeteredNetwork(lambda: asked.append(1) or "u 1", lambda: clock[0])
    assert [network() for _ in range(5)] == [True] * 5
    clock[0] = 60.0
    network()
    assert len(asked) == 2


def test_device_without_network_manager_is_not_metered(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert MeteredNetwork()() is False
