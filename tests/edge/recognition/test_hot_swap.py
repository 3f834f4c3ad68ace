"""Loading a newly activated bundle and gallery beside the active ones."""

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


def loaded(reloader: ModelReloader) -> None:
    if reloader._thread is not None:
        reloader._thread.join(DEADLINE_S)


def test_active_pointer_unchanged_loads_nothing(tmp_path):
    activate(tmp_path, "one")
    reloader = ModelReloader(tmp_path, lambda: pytest.fail("loaded"), FakeCounts())
    assert reloader.poll(models("one")) is None
    assert reloader._thread is None


def test_activated_models_load_in_background_and_are_returned_once(tmp_path):
    old, new, may_end, counts = models("one"), models("two"), threading.Event(), FakeCounts()
    activate(tmp_path, "two")
    reloader = ModelReloader(tmp_path, lambda: new if may_end.wait(DEADLINE_S) else None, counts)
    assert reloader.poll(old) is None
    assert reloader.poll(old) is None  # still loading: the frame loop does not wait
    may_end.set()
    loaded(reloader)
    assert reloader.poll(old) is new
    assert reloader.poll(new) is None
    assert counts.total == {"activations result=serving": 1}


def test_another_gallery_alone_is_loaded(tmp_path):
    new = models("one", "b" * 16)
    activate(tmp_path, "one", "b" * 16)
    reloader = ModelReloader(tmp_path, lambda: new, FakeCounts())
    reloader.poll(models("one"))
    loaded(reloader)
    assert reloader.poll(models("one")) is new


@pytest.mark.parametrize("error", [BundleError("slot b: found no bundle"), MemoryError("no room")])
def test_failed_load_is_logged_once_and_not_retried(tmp_path, caplog, error):
    calls, counts = [], FakeCounts()

    def load() -> LoadedModels:
        calls.append(1)
        raise error

    activate(tmp_path, "two")
    reloader = ModelReloader(tmp_path, load, counts)
    with caplog.at_level(logging.ERROR):
        for _ in range(4):
            assert reloader.poll(models("one")) is None
            loaded(reloader)
    assert len(calls) == 1
    assert [record.message for record in caplog.records] == [f"{error}; the active bundle and gallery stay"]
    assert counts.total == {"activations result=refused": 1}


def test_next_activation_after_a_failed_one_is_loaded(tmp_path):
    three = models("three")
    results = iter([BundleError("damaged"), three])

    def load() -> LoadedModels:
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    reloader = ModelReloader(tmp_path, load, FakeCounts())
    activate(tmp_path, "two")
    reloader.poll(models("one"))
    loaded(reloader)
    activate(tmp_path, "three")
    reloader.poll(models("one"))
    loaded(reloader)
    assert reloader.poll(models("one")) is three


def test_failed_bundle_activated_again_later_is_retried(tmp_path):
    one, calls = models("one"), []

    def load() -> LoadedModels:
        calls.append(1)
        raise BundleError("damaged")

    reloader = ModelReloader(tmp_path, load, FakeCounts())
    for bundle in ("two", "one", "two"):
        activate(tmp_path, bundle)
        reloader.poll(one)
        loaded(reloader)
        reloader.poll(one)
    assert len(calls) == 2


def test_damaged_pointer_is_logged_once_and_changes_nothing(tmp_path, caplog):
    (tmp_path / "current").write_text("{")
    reloader = ModelReloader(tmp_path, lambda: pytest.fail("loaded"), FakeCounts())
    with caplog.at_level(logging.ERROR):
        assert [reloader.poll(models("one")) for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1


def test_rollback_during_loading_returns_nothing(tmp_path):
    activate(tmp_path, "two")
    reloader = ModelReloader(tmp_path, lambda: models("one"), FakeCounts())
    reloader.poll(models("one"))
    activate(tmp_path, "one")
    loaded(reloader)
    assert reloader.poll(models("one")) is None
