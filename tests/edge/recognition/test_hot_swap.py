"""What is activated while another pair serves."""

from __future__ import annotations

import logging
import threading

import pytest

from edge.bundle.active_pointer import ActivePointer, write_active_pointer
from edge.errors import BundleError
from edge.inference.stages import Stages
from edge.recognition.hot_swap import ModelReloader
from edge.recognition.loaded_models import LoadedModels
from tests.fakes_engine import FakeCounts

DEADLINE_S = 10.0


def models(bundle: str, gallery: str = "a" * 16) -> LoadedModels:
    return LoadedModels(bundle, gallery, Stages(None, None, {}), {}, {})


def activate(state_dir, bundle: str, gallery: str = "a" * 16) -> None:
    write_active_pointer(state_dir, ActivePointer(slot="a", bundle_id=bundle, gallery=gallery))


def loaded(successor: ModelReloader) -> None:
    if successor._loader is not None:
        successor._loader.join(DEADLINE_S)


def test_nothing_new_loads_nothing(tmp_path):
    activate(tmp_path, "one")
    successor = ModelReloader(tmp_path, lambda: pytest.fail("loaded"), FakeCounts())
    assert successor.poll(models("one")) is None
    assert successor._loader is None


def test_a_pair_that_is_activated_is_loaded_aside_and_handed_over_once(tmp_path):
    old, new, may_end, counts = models("one"), models("two"), threading.Event(), FakeCounts()
    activate(tmp_path, "two")
    successor = ModelReloader(tmp_path, lambda: new if may_end.wait(DEADLINE_S) else None, counts)
    assert successor.poll(old) is None
    assert successor.poll(old) is None  # still loading: the frame loop is not held up
    may_end.set()
    loaded(successor)
    assert successor.poll(old) is new
    assert successor.poll(new) is None
    assert counts.total == {"activations result=serving": 1}


def test_another_gallery_alone_is_a_new_pair(tmp_path):
    new = models("one", "b" * 16)
    activate(tmp_path, "one", "b" * 16)
    successor = ModelReloader(tmp_path, lambda: new, FakeCounts())
    successor.poll(models("one"))
    loaded(successor)
    assert successor.poll(models("one")) is new


@pytest.mark.parametrize("error", [BundleError("slot b: found no bundle"), MemoryError("no room")])
def test_a_pair_that_cannot_be_loaded_is_named_once_and_the_old_one_goes_on(tmp_path, caplog, error):
    calls, counts = [], FakeCounts()

    def load() -> LoadedModels:
        calls.append(1)
        raise error

    activate(tmp_path, "two")
    successor = ModelReloader(tmp_path, load, counts)
    with caplog.at_level(logging.ERROR):
        for _ in range(4):
            assert successor.poll(models("one")) is None
            loaded(successor)
    assert len(calls) == 1
    assert [record.message for record in caplog.records] == [f"{error}; what serves goes on"]
    assert counts.total == {"activations result=refused": 1}


def test_after_a_refused_pair_the_next_one_is_tried(tmp_path):
    three = models("three")
    results = iter([BundleError("damaged"), three])

    def load() -> LoadedModels:
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    successor = ModelReloader(tmp_path, load, FakeCounts())
    activate(tmp_path, "two")
    successor.poll(models("one"))
    loaded(successor)
    activate(tmp_path, "three")
    successor.poll(models("one"))
    loaded(successor)
    assert successor.poll(models("one")) is three


def test_a_refused_pair_that_is_activated_again_later_is_tried_again(tmp_path):
    one, calls = models("one"), []

    def load() -> LoadedModels:
        calls.append(1)
        raise BundleError("damaged")

    successor = ModelReloader(tmp_path, load, FakeCounts())
    for bundle in ("two", "one", "two"):
        activate(tmp_path, bundle)
        successor.poll(one)
        loaded(successor)
        successor.poll(one)
    assert len(calls) == 2


def test_a_damaged_pointer_is_named_once_and_changes_nothing(tmp_path, caplog):
    (tmp_path / "current").write_text("{")
    successor = ModelReloader(tmp_path, lambda: pytest.fail("loaded"), FakeCounts())
    with caplog.at_level(logging.ERROR):
        assert [successor.poll(models("one")) for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1


def test_a_pair_that_was_switched_back_while_loading_is_not_handed_over(tmp_path):
    activate(tmp_path, "two")
    successor = ModelReloader(tmp_path, lambda: models("one"), FakeCounts())
    successor.poll(models("one"))
    activate(tmp_path, "one")
    loaded(successor)
    assert successor.poll(models("one")) is None
