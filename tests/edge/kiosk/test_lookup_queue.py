"""Look-ups run in turn, few at a time; who cannot be served in time is refused at once."""

from __future__ import annotations

import asyncio
import threading

import pytest

from edge.errors import BusyError, PictureError
from edge.kiosk import lookup_queue
from edge.kiosk.lookup_queue import LookupQueue
from edge.telemetry.counters import Counters
from edge.telemetry.timing import StageTimer


class Desk:
    """A queue of two workers, whose work waits for a sign and takes as long as a fake clock says."""

    def __init__(self, workers=2):
        self.counters, self.timer, self.now_s = Counters(), StageTimer(), 100.0
        self.queue = LookupQueue(self.counters, self.timer, workers, lambda: self.now_s)
        self.signs = {}
        self.started = []

    def come(self, name, size_bytes=10, left=None):
        """A look-up joins the queue; its client leaves when the event `left` is set."""
        self.signs[name] = threading.Event()

        def work():
            self.started.append(name)
            assert self.signs[name].wait(60)
            return name.upper()

        stays = left or asyncio.Event()
        return asyncio.ensure_future(self.queue.run(work, size_bytes, stays.wait))

    async def serve(self, lookup, name):
        self.signs[name].set()
        return await lookup


async def settle():
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(test):
    async def body():
        desk = Desk()
        with desk.queue:
            try:
                return await test(desk)
            finally:
                for sign in desk.signs.values():
                    sign.set()

    return asyncio.run(body())


async def refusal(lookup):
    with pytest.raises(PictureError) as refused:
        await lookup
    return refused.value


def test_first_come_is_first_served_and_two_run_at_once():
    async def test(desk):
        lookups = {name: desk.come(name) for name in "abcdef"}
        await settle()
        assert desk.queue.waiting == 4
        answers = [await desk.serve(lookups[name], name) for name in "bacdef"]
        assert desk.queue.waiting == 0
        return answers, sorted(desk.started[:2]), desk.started[2:]

    assert run(test) == (list("BACDEF"), ["a", "b"], list("cdef"))


def test_sixteen_clients_are_all_served():
    async def test(desk):
        lookups = [desk.come(f"{n}") for n in range(16)]
        for sign in desk.signs.values():
            sign.set()
        answers = await asyncio.gather(*lookups)
        return len(answers), desk.counters.total("lookups_waited"), desk.counters.total("lookups_refused")

    assert run(test) == (16, 14, 0)


def test_full_queue_refuses_and_says_when_to_come_again(monkeypatch):
    monkeypatch.setattr(lookup_queue, "MAX_WAITING", 9)

    async def test(desk):
        first = desk.come("first")
        await settle()
        desk.now_s += 4.0  # so long a look-up takes
        await desk.serve(first, "first")
        for number in range(11):
            desk.come(f"{number}")
        await settle()
        error = await refusal(desk.come("late"))
        return error.reason, error.retry_after_s, str(error), desk.counters.total("lookups_refused", reason="full")

    mean_s = 0.05 + 0.2 * (4.0 - 0.05)
    assert run(test) == (
        "busy",
        round(10 * mean_s / 2 + 0.5),
        "too many look-ups: 9 look-ups are waiting; try again in 5 s",
        1,
    )


def test_pictures_that_wait_are_bounded_in_memory():
    async def test(desk):
        lookups = [desk.come(f"{n}", 30_000_000) for n in range(2)]
        await settle()
        assert (await refusal(desk.come("large", 30_000_000))).reason == "busy"
        small = desk.come("small", 20_000_000)
        await settle()
        with pytest.raises(BusyError, match="bytes of pictures are waiting"):
            desk.queue.refuse_if_full(1)
        for lookup, name in ((lookups[0], "0"), (lookups[1], "1"), (small, "small")):
            await desk.serve(lookup, name)
        desk.queue.refuse_if_full(80_000_000)
        return desk.counters.total("lookups_refused", reason="memory")

    assert run(test) == 2


def test_wait_that_would_be_too_long_is_refused_at_once():
    async def test(desk):
        slow = desk.come("slow")
        await settle()
        desk.now_s += 200.0
        await desk.serve(slow, "slow")  # the mean is now 40 s
        for name in "ab":
            desk.come(name)
        await settle()
        error = await refusal(desk.come("c"))
        return error.retry_after_s, desk.counters.total("lookups_refused", reason="late")

    assert run(test) == (21, 1)


def test_one_slow_lookup_does_not_send_clients_away_for_long():
    async def test(desk):
        lookups = [desk.come(f"{number}") for number in range(12)]
        await settle()
        desk.now_s += 200.0
        await desk.serve(lookups[0], "0")  # the mean is now 40 s, and nine wait
        return (await refusal(desk.come("late"))).retry_after_s

    assert run(test) == 51


def test_wait_ends_in_the_end(monkeypatch):
    monkeypatch.setattr(lookup_queue, "MAX_WAIT_S", 0.06)

    async def test(desk):
        for name in "ab":
            desk.come(name)
        await settle()
        error = await refusal(desk.come("c"))
        return error.reason, desk.queue.waiting, desk.counters.total("lookups_refused", reason="late")

    assert run(test) == ("busy", 0, 1)


def test_client_that_leaves_gives_up_its_place():
    async def test(desk):
        left = asyncio.Event()
        lookups = {name: desk.come(name, left=left if name == "c" else None) for name in "abcd"}
        await settle()
        left.set()
        assert (await refusal(lookups["c"])).reason == "left"
        assert desk.queue.waiting == 1
        for name in "abd":
            await desk.serve(lookups[name], name)
        return sorted(desk.started)

    assert run(test) == ["a", "b", "d"]


def test_client_that_leaves_at_its_turn_hands_it_on():
    async def test(desk):
        left = asyncio.Event()
        lookups = {name: desk.come(name, left=left if name == "c" else None) for name in "abcd"}
        await settle()
        left.set()
        desk.queue._next()  # the turn comes before the client's leaving is seen
        desk.signs["a"].set()
        assert (await refusal(lookups["c"])).reason == "left"
        return await desk.serve(lookups["d"], "d")

    assert run(test) == "D"


def test_cancelled_lookup_hands_its_turn_on():
    async def test(desk):
        lookups = {name: desk.come(name) for name in "abcd"}
        await settle()
        desk.queue._next()
        desk.signs["a"].set()
        lookups["c"].cancel()
        return await desk.serve(lookups["d"], "d")

    assert run(test) == "D"


def test_lookup_that_fails_frees_its_worker():
    async def test(desk):
        def fail():
            raise ValueError("broken")

        for _ in range(3):
            with pytest.raises(ValueError, match="broken"):
                await desk.queue.run(fail, 80_000_000, asyncio.Event().wait)
        return await desk.serve(desk.come("a"), "a")

    assert run(test) == "A"


def test_waits_and_runs_are_timed():
    async def test(desk):
        lookups = {name: desk.come(name) for name in "abc"}
        await settle()
        desk.now_s += 0.5
        for name in "abc":
            await desk.serve(lookups[name], name)
        return {stage: (times.count, times.p99_ms) for stage, times in desk.timer.snapshot().items()}

    assert run(test) == {"lookup_wait": (3, 500.0), "lookup": (3, 500.0)}


def test_workers_are_at_most_two():
    assert LookupQueue(Counters(), StageTimer())._workers in {1, 2}
