"""The store of engines: loaded when needed, within a budget. Engines, clock and memory are scripted."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.engine_store.engine_store import EngineStore
from edge.engine_store.memory_plan import Held, to_close
from edge.errors import EngineError, NotLoadedError
from tests.fakes_engine import FakeCounts, ScriptedEngine

ROW = np.zeros((1, 2), np.uint8)
MIB = 2**20


class Bench:
    """A store whose engines, clock, memory and background thread a test drives."""

    def __init__(self, budget: int | None = None) -> None:
        self.now_s, self.heap_bytes = 0.0, 0
        self.counts = FakeCounts()
        self.background: list = []
        self.broken: set[str] = set()
        self.opened: list[str] = []
        self.store = EngineStore(
            budget,
            self.counts,
            clock=lambda: self.now_s,
            heap=lambda: self.heap_bytes,
            start_thread=self.background.append,
        )

    def add(self, name: str, size: int = 10, *, pinned: bool = False, answer=lambda batch: [batch], key=None):
        def open_engine():
            self.opened.append(name)
            if name in self.broken:
                raise EngineError(f"{name}.onnx: damaged")
            self.heap_bytes += size
            return ScriptedEngine(answer)

        return self.store.add(name, key or name, open_engine, where=name, file_bytes=size, kind="k", is_pinned=pinned)

    def state(self, name: str):
        return next(one for one in self.store.memory() if name in one.names)

    def loaded(self) -> set[str]:
        return {one.names[0] for one in self.store.memory() if one.status == "loaded"}

    def tick(self) -> None:
        self.now_s += 1.0

    def run_background(self) -> None:
        while self.background:
            self.background.pop()()


def started(budget: int | None, *names: str, size: int = 10, pinned: str | None = "detector") -> tuple[Bench, dict]:
    bench = Bench(budget)
    engines = {pinned: bench.add(pinned, size, pinned=True)} if pinned else {}
    engines |= {name: bench.add(name, size) for name in names}
    bench.store.start()
    return bench, engines


@pytest.mark.parametrize("budget", [None, 30, 40])
def test_all_engines_are_loaded_at_start_if_they_fit(budget):
    bench, _ = started(budget, "can", "jar")
    assert bench.loaded() == {"detector", "can", "jar"}
    assert bench.store.used_bytes() == 30


def test_engines_that_do_not_all_fit_wait_also_after_one_was_closed():
    bench = Bench(12)
    for name, size in (("can", 10), ("tyre", 10), ("carton", 1)):
        bench.add(name, size)
    bench.store.start()
    assert bench.loaded() == {"tyre"}  # `can` was closed for it
    assert bench.opened == ["can", "tyre"]


def test_only_pinned_engines_are_loaded_at_start_if_not_all_fit():
    bench, engines = started(29, "can", "jar")
    assert bench.loaded() == {"detector"}
    assert not engines["can"].was_loaded
    engines["can"].run(ROW)
    assert bench.loaded() == {"detector", "can"}


def test_engines_of_an_unmeasured_kind_are_loaded_to_measure_it():
    bench = Bench(60)
    for name in ("detector", "can", "jar", "box"):
        file_bytes, kind = (1, "detectors") if name == "detector" else (10, "embedders")

        def open_engine():
            bench.heap_bytes += 15
            return ScriptedEngine(lambda batch: [batch])

        is_pinned = name == "detector"
        bench.store.add(name, name, open_engine, where="", file_bytes=file_bytes, kind=kind, is_pinned=is_pinned)
    bench.store.start()  # by its files alone, 30 bytes each are expected
    assert bench.loaded() == {"detector", "can", "jar", "box"}


def test_engine_used_longest_ago_is_closed_first():
    bench, engines = started(30, "can", "jar", "box")
    for name in ("can", "jar", "can", "box"):
        bench.tick()
        engines[name].run(ROW)
    assert bench.loaded() == {"detector", "can", "box"}
    assert bench.opened == ["detector", "can", "jar", "box"]
    assert (bench.state("jar").evictions, bench.state("can").evictions) == (1, 0)
    assert bench.counts.total == {"engine_loads result=loaded": 4, "engine_evictions": 1}


def test_idle_time_loads_and_memory_are_told():
    bench, engines = started(20, "can", "jar")
    assert bench.state("can").idle_s is None
    engines["can"].run(ROW)
    bench.now_s = 7.0
    engines["jar"].run(ROW)
    state = bench.state("can")
    assert (state.status, state.idle_s, state.loads, state.evictions, state.error) == ("not_loaded", 7.0, 1, 1, None)
    assert (bench.state("detector").memory_bytes, bench.state("detector").is_measured) == (10, True)
    assert (state.memory_bytes, state.is_measured) == (10, False)  # as the measured ones of its kind


def test_one_embedder_is_loaded_beyond_a_budget_that_is_too_small(caplog):
    bench, engines = started(5, "can", "jar")
    assert "engine.memory_mib is too little" in caplog.text
    engines["can"].run(ROW)
    engines["jar"].run(ROW)
    assert bench.loaded() == {"detector", "jar"}


def test_models_with_one_key_share_an_engine_that_counts_once():
    bench = Bench(30)
    first, second = bench.add("can", key="shared"), bench.add("jar", key="shared")
    bench.store.start()
    first.run(ROW)
    second.run(ROW)
    assert bench.opened == ["can"]
    assert bench.store.used_bytes() == 10
    assert len(bench.store.memory()) == 1
    assert bench.state("jar").names == ("can", "jar")


def test_memory_of_a_device_counts():
    bench = Bench(100)

    def open_engine():
        engine = ScriptedEngine(lambda batch: [batch])
        engine.memory_bytes = 60
        return engine

    engines = [bench.store.add(str(i), i, open_engine, where="", file_bytes=20, kind="gpu") for i in range(2)]
    bench.store.start()
    assert [one.status for one in bench.store.memory()] == ["not_loaded", "loaded"]
    engines[0].run(ROW)
    assert [one.status for one in bench.store.memory()] == ["loaded", "not_loaded"]
    assert bench.store.used_bytes() == 60


def test_unmeasured_engine_is_expected_by_the_size_of_its_file():
    store = EngineStore(None, FakeCounts(), heap=lambda: None)
    store.add("can", 1, lambda: ScriptedEngine(lambda batch: [batch]), where="", file_bytes=MIB)
    store.start()
    (state,) = store.memory()
    assert (state.memory_bytes, state.is_measured) == (3 * MIB, False)


def test_engine_that_cannot_be_loaded_at_start_is_an_error():
    bench = Bench()
    bench.broken.add("can")
    bench.add("can")
    with pytest.raises(EngineError, match=r"can\.onnx: damaged"):
        bench.store.start()


def test_late_failure_fails_one_engine_and_is_tried_again_with_backoff():
    bench, engines = started(20, "can", "jar")
    bench.broken.add("can")
    with pytest.raises(NotLoadedError, match=r"can: can\.onnx: damaged"):
        engines["can"].run(ROW)
    for _ in range(3):  # a frame each
        with pytest.raises(NotLoadedError, match="it is loaded again in 5 s"):
            engines["can"].run(ROW)
        assert engines["can"].readiness() == "failed"
    assert engines["jar"].run(ROW)
    assert bench.opened.count("can") == 1
    assert (bench.state("can").status, bench.state("can").error) == ("failed", "can.onnx: damaged")
    bench.now_s = 5.0
    with pytest.raises(NotLoadedError):
        engines["can"].run(ROW)
    with pytest.raises(NotLoadedError, match="in 10 s"):
        engines["can"].run(ROW)
    bench.broken.clear()
    bench.now_s = 15.0
    engines["can"].run(ROW)
    assert (bench.state("can").status, bench.state("can").error) == ("loaded", None)
    assert bench.counts.total["engine_loads result=failed"] == 2


def test_pause_after_failures_is_at_most_five_minutes():
    bench, engines = started(10, "can")
    bench.broken.add("can")
    pauses = []
    for _ in range(30):
        with pytest.raises(NotLoadedError):
            engines["can"].run(ROW)
        before = bench.now_s
        while engines["can"].readiness() == "failed":
            bench.tick()
        pauses.append(bench.now_s - before)
        bench.store._requested.clear()
    assert pauses == [5, 10, 20, 40, 80, 160, *[300] * 24]


def test_any_exception_of_a_library_is_a_failed_load(caplog):
    bench, _ = started(10)

    def open_engine():
        raise MemoryError

    engine = bench.store.add("odd", "odd", open_engine, where="", file_bytes=1)
    with pytest.raises(NotLoadedError):
        engine.run(ROW)
    assert bench.state("odd").error == "MemoryError"
    assert "Traceback" in caplog.text


def test_request_loads_in_the_background():
    bench, engines = started(20, "can", "jar")
    assert [engines["can"].readiness(), engines["can"].readiness()] == ["loading", "loading"]
    assert bench.state("can").status == "loading"
    assert len(bench.background) == 1
    bench.run_background()
    assert engines["can"].readiness() == "ready"
    assert bench.opened == ["detector", "can"]


def test_failed_request_is_told_and_leaves_the_thread_to_others(caplog):
    bench, engines = started(20, "can", "jar")
    bench.broken.add("can")
    for name in ("can", "jar"):
        assert engines[name].readiness() == "loading"
    bench.run_background()
    assert [engines[name].readiness() for name in ("can", "jar")] == ["failed", "ready"]
    assert caplog.text.count("can.onnx: damaged") == 1
    bench.now_s = 3.0  # `jar` had its time
    engines["box"] = bench.add("box")
    assert engines["box"].readiness() == "loading"  # in a new thread
    bench.run_background()
    assert bench.loaded() == {"detector", "box"}


def test_request_waits_until_an_earlier_one_was_used():
    bench, engines = started(20, "can", "jar")
    for name in ("can", "jar"):
        engines[name].readiness()
    thread = threading.Thread(target=bench.background.pop())
    thread.start()
    with bench.store._changed:
        assert bench.store._changed.wait_for(lambda: engines["can"]._held.engine is not None, 10)
    assert engines["jar"].readiness() == "loading"  # `can` fills the budget and was not used yet
    engines["can"].run(ROW)
    thread.join(60)
    assert bench.loaded() == {"detector", "jar"}


def test_two_threads_that_need_one_engine_load_it_once():
    bench = Bench(20)
    opening, go_on = threading.Event(), threading.Event()

    def open_engine():
        bench.opened.append("can")
        opening.set()
        assert go_on.wait(60)
        return ScriptedEngine(lambda batch: [batch])

    engine = bench.store.add("can", "can", open_engine, where="", file_bytes=10)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(engine.run, ROW) for _ in range(4)]
        assert opening.wait(60)
        go_on.set()
        assert all(len(run.result(10)) == 1 for run in runs)
    assert bench.opened == ["can"]


def test_running_engine_is_not_closed_and_the_other_waits():
    bench = Bench(10)
    running, go_on = threading.Event(), threading.Event()

    def answer(batch):
        running.set()
        assert go_on.wait(60)
        return [batch]

    slow, other = bench.add("slow", answer=answer), bench.add("other")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(slow.run, ROW)
        assert running.wait(60)
        second = pool.submit(other.run, ROW)
        assert bench.loaded() == {"slow"}
        go_on.set()
        assert first.result(10)
        assert second.result(10)
    assert bench.loaded() == {"other"}
    assert bench.opened == ["slow", "other"]


def test_library_loads_an_engine_once_and_is_known_after_it_was_closed():
    bench, engines = started(20, "can", "jar")
    assert engines["can"].library == "scripted 1"
    engines["jar"].run(ROW)
    assert "can" not in bench.loaded()
    assert (engines["can"].library, engines["can"].was_loaded) == ("scripted 1", True)
    assert bench.opened == ["detector", "can", "jar"]


def test_every_engine_is_opened_once_within_the_budget():
    bench, _ = started(20, "can", "jar", "box")
    bench.store.open_each()
    assert bench.opened == ["detector", "can", "jar", "box"]
    assert bench.loaded() == {"detector", "box"}


STEPS = st.lists(st.tuples(st.sampled_from(["run", "begin", "end", "request"]), st.integers(0, 5)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=6, max_size=6), budget=st.integers(1, 40), steps=STEPS)
def test_budget_holds_and_no_running_engine_is_closed(sizes, budget, steps):
    bench = Bench(budget)
    bench.add("detector", 3, pinned=True)
    handles = [bench.add(str(i), size) for i, size in enumerate(sizes)]
    bench.store.start()
    running: Counter[int] = Counter()
    for what, i in steps:
        bench.tick()
        held = handles[i]._held
        fits = held.engine is not None or not +running or 3 + sum(sizes[j] for j in +running) + sizes[i] <= budget
        if what == "run" and fits:  # else it would wait for a running one
            handles[i].run(ROW)
        elif what == "begin" and fits:
            bench.store.take(held)
            running[i] += 1
        elif what == "end" and running[i]:
            bench.store.give_back(held)
            running[i] -= 1
        elif what == "request" and fits:
            handles[i].readiness()
            bench.now_s += 3.0  # earlier requests had their time
            bench.run_background()
        beside = bench.loaded() - {"detector"}
        assert "detector" in bench.loaded()
        assert {str(j) for j in +running} <= beside
        assert bench.store.used_bytes() <= budget or len(beside) <= 1


HELD = st.builds(
    lambda **state: Held(list, "", [""], "k", 0, **state),
    is_pinned=st.booleans(),
    engine=st.sampled_from([None, "loaded"]),
    heap_bytes=st.integers(1, 9),
    running=st.integers(0, 1),
    last_used_s=st.integers(0, 20),
    kept_until_s=st.integers(0, 20),
)


@given(
    engines=st.lists(HELD, max_size=8),
    size=st.integers(1, 9),
    budget=st.integers(1, 40),
    kept_at_s=st.none() | st.integers(0, 20),
)
def test_fewest_are_closed_in_the_order_of_their_use(engines, size, budget, kept_at_s):
    wanted = Held(list, "", [""], "k", 0, is_pinned=False, heap_bytes=size)
    closed = to_close(wanted, [*engines, wanted], lambda one: one.heap_bytes, budget, kept_at_s)
    loaded = [one for one in engines if one.engine]
    idle = [one for one in loaded if not one.is_pinned and not one.running]
    idle = [one for one in idle if kept_at_s is None or kept_at_s >= one.kept_until_s]
    need = sum(one.heap_bytes for one in loaded) + size - budget
    if closed is None:
        assert sum(one.heap_bytes for one in idle) < need
        assert any(not one.is_pinned and one not in idle for one in loaded)
        return
    assert all(one in idle for one in closed)
    assert all(one.last_used_s <= other.last_used_s for one in closed for other in idle if other not in closed)
    assert not closed or sum(one.heap_bytes for one in closed[:-1]) < need
    rest = [one for one in loaded if not one.is_pinned and one not in closed]
    assert sum(one.heap_bytes for one in closed) >= need or not rest
