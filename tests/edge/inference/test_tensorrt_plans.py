"""The cache of TensorRT's plans, and building into it; against a fake."""

import errno
import json
import logging
import os

import pytest

from edge.config.schema import TensorRtConfig
from edge.durable import sha256_of
from edge.errors import EngineError
from edge.inference.engine import open_engine
from tests.fakes_tensorrt import installed
from tests.sample_models import sums_model


@pytest.fixture
def trt():
    with installed("10.3.0") as fake:
        yield fake


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def open_trt(path, cache, max_batch=4, **keys):
    return open_engine(path, "tensorrt", max_batch=max_batch, cache=cache, tensorrt=TensorRtConfig(**keys))


def plans(cache):
    return sorted(cache.glob("*.plan"))


def test_plan_is_built_once_and_names_what_it_depends_on(trt, path, cache):
    engines = [open_trt(path, cache) for _ in range(2)]
    assert trt.builds == 1
    (plan,) = plans(cache)
    assert plan.name.startswith(f"{sha256_of(path)[:24]}-trt10.3.0-sm87-b4-")
    assert {engine.library for engine in engines} == {f"tensorrt 10.3.0, plan {sha256_of(plan)}"}
    note = json.loads((cache / f"{plan.name}.json").read_text())
    assert note["key"]["gpu"] == {"short": "sm87", "name": "Orin, 16 multiprocessors", "driver": 12060}
    assert note["bytes"] == plan.stat().st_size


@pytest.mark.parametrize(
    "change",
    [
        lambda trt, path: setattr(trt.cuda, "capability", (11, 0)),
        lambda trt, path: setattr(trt.cuda, "multiprocessors", 8),
        lambda trt, path: setattr(trt.cuda, "name", b"Thor"),
        lambda trt, path: setattr(trt.cuda, "driver", 12090),
        lambda trt, path: path.write_bytes(sums_model(side=5)),
    ],
)
def test_plan_of_another_model_gpu_or_driver_is_not_loaded(trt, path, cache, change):
    open_trt(path, cache)
    change(trt, path)
    open_trt(path, cache)
    assert trt.builds == 2
    assert len(plans(cache)) == 2


@pytest.mark.parametrize("keys", [{"optimisation_level": 5}, {"workspace_mib": 64}])
def test_plan_of_other_settings_or_batch_is_not_loaded(trt, path, cache, keys):
    open_trt(path, cache)
    open_trt(path, cache, **keys)
    open_trt(path, cache, max_batch=2)
    assert trt.builds == 3


def test_settings_that_change_no_plan_do_not_build_again(trt, path, cache):
    open_trt(path, cache)
    open_trt(path, cache, cuda_graphs=False, timing_cache=False, cache_mib=100)
    assert trt.builds == 1


def test_plan_of_another_tensorrt_is_not_loaded(path, cache):
    for version in ("10.3.0", "11.4.0.106"):
        with installed(version) as trt:
            open_trt(path, cache)
            assert trt.builds == 1
    assert len(plans(cache)) == 2


def cut(plan, note):
    plan.write_bytes(plan.read_bytes()[:-9])


def flip(plan, note):
    plan.write_bytes(plan.read_bytes()[:-1] + b"\xff")


def empty(plan, note):
    plan.write_bytes(b"")


def without_note(plan, note):
    note.unlink()


def foreign_note(plan, note):
    note.write_text(note.read_text().replace("Orin", "Thor"))


def broken_note(plan, note):
    note.write_bytes(b"[" * 100_000)


def folder(plan, note):
    plan.unlink()
    plan.mkdir()


@pytest.mark.parametrize("damage", [cut, flip, empty, without_note, foreign_note, broken_note, folder])
def test_damaged_plan_is_built_again_and_never_read_by_tensorrt(trt, path, cache, caplog, damage):
    open_trt(path, cache)
    (plan,) = plans(cache)
    damage(plan, cache / f"{plan.name}.json")
    engine = open_trt(path, cache)
    assert trt.builds == 2
    assert "magic tag" not in caplog.text
    assert "building it again" in caplog.text
    assert len(engine.outputs) == 2
    open_trt(path, cache)
    assert trt.builds == 2


def test_plan_that_tensorrt_rejects_is_built_again_with_a_warning(trt, path, cache, caplog):
    open_trt(path, cache)
    (plan,) = plans(cache)
    plan.write_bytes(data := b"whole, but of no TensorRT")
    note = cache / f"{plan.name}.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"bytes": len(data), "sha256": sha256_of(plan)}))
    open_trt(path, cache)
    assert trt.builds == 2
    assert "rejects the cached plan, building it again: magic tag does not match" in caplog.text
    open_trt(path, cache)
    assert trt.builds == 2


def test_plan_that_is_rejected_again_is_one_clear_error(trt, path, cache):
    trt.refuses_to_load = "engine of another platform\nmore of it"
    with pytest.raises(EngineError, match=r"model\.onnx: TensorRT cannot load the plan: engine of another platform$"):
        open_trt(path, cache)
    assert trt.builds == 2


def test_unwritable_cache_is_a_warning(trt, path, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    open_trt(path, tmp_path / "file" / "cache")
    assert "the next start builds it again" in caplog.text


def test_full_disk_is_a_warning_and_leaves_no_part_behind(trt, path, cache, caplog, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    open_trt(path, cache)
    assert "cannot be saved, the next start builds it again: No space left on device" in caplog.text
    assert [file.name for file in cache.iterdir() if file.stat().st_size] == []


def test_plans_that_were_not_loaded_for_longest_are_deleted(trt, path, cache, caplog):
    trt.plan_padding = 30 << 20
    caplog.set_level(logging.INFO, "edge")
    for batch in (1, 2):
        open_trt(path, cache, max_batch=batch, cache_mib=64)
    for age, plan in enumerate(sorted(plans(cache), key=lambda file: "-b1-" in file.name)):
        os.utime(plan, (1000 - age, 1000 - age))
    open_trt(path, cache, max_batch=1, cache_mib=64)  # the older one is loaded, so the other one is now the oldest
    open_trt(path, cache, max_batch=3, cache_mib=64)
    assert sorted(plan.name.split("-")[3] for plan in plans(cache)) == ["b1", "b3"]
    assert len(list(cache.glob("*.plan.json"))) == 2
    assert "deleted, the plans exceed engine.tensorrt.cache_mib" in caplog.text


def test_plan_larger_than_the_bound_is_kept(trt, path, cache):
    trt.plan_padding = 80 << 20
    open_trt(path, cache, cache_mib=64)
    open_trt(path, cache, cache_mib=64)
    assert trt.builds == 1


def test_plans_of_one_bundle_do_not_push_each_other_out(trt, path, cache, tmp_path, caplog):
    from edge.inference.tensorrt_plans import build_plans, plans_missing

    trt.plan_padding = 30 << 20
    other = tmp_path / "other.onnx"
    other.write_bytes(sums_model(side=5))
    wanted = [(path, 1), (path, 2), (other, 2)]
    config = TensorRtConfig(cache_mib=64)
    build_plans(wanted, cache, config, kind(), lambda _: None)
    assert plans_missing(wanted, cache, config, kind()) == []
    assert "the plans in use need 90 MiB; raise engine.tensorrt.cache_mib" in caplog.text


def test_measured_times_are_kept_for_the_next_build(trt, path, cache):
    open_trt(path, cache)
    (timings,) = cache.glob("*.timings")
    assert timings.read_bytes() == b"timings of 1"
    open_trt(path, cache, max_batch=2)
    assert trt.timings_found == [b"", b"timings of 1"]
    assert timings.read_bytes() == b"timings of 2"
    trt.cuda.name = b"Thor"
    open_trt(path, cache)
    assert trt.timings_found[2:] == [b""]
    assert len(list(cache.glob("*.timings"))) == 2


@pytest.mark.parametrize("data", [b"rubbish", b"timings of another GPU"])
def test_rejected_timings_are_replaced_with_a_warning(trt, path, cache, caplog, data):
    open_trt(path, cache)
    (timings,) = cache.glob("*.timings")
    timings.write_bytes(data)
    note = cache / f"{timings.name}.json"
    note.write_text(json.dumps({"bytes": len(data), "sha256": sha256_of(timings)}))
    open_trt(path, cache, max_batch=2)
    assert "TensorRT rejects the timing cache, starting another" in caplog.text
    assert timings.read_bytes() == b"timings of 2"


def test_damaged_timings_are_not_given_to_tensorrt(trt, path, cache, caplog):
    open_trt(path, cache)
    (timings,) = cache.glob("*.timings")
    timings.write_bytes(b"rubbish")
    open_trt(path, cache, max_batch=2)
    assert trt.timings_found == [b"", b""]
    assert "damaged, building it again" in caplog.text


def test_timings_can_be_switched_off(trt, path, cache):
    open_trt(path, cache, timing_cache=False)
    assert list(cache.glob("*.timings")) == []


def kind():
    from edge.inference.tensorrt_engine import gpu_kind

    return gpu_kind()


def test_missing_plans_are_built_with_progress_and_an_estimate(trt, path, cache, tmp_path):
    from edge.inference.tensorrt_plans import build_plans, plans_missing

    other = tmp_path / "other.onnx"
    other.write_bytes(sums_model(side=5))
    wanted, config = [(path, 4), (other, 2), (path, 8)], TensorRtConfig()
    open_trt(path, cache)
    assert plans_missing(wanted, cache, config, kind()) == wanted[1:]
    told = []
    build_plans(wanted, cache, config, kind(), told.append)
    assert plans_missing(wanted, cache, config, kind()) == []
    assert [(one.built, one.of, one.model) for one in told if one.share == 0] == [
        (0, 2, "other.onnx"),
        (1, 2, "model.onnx"),
    ]
    shares = [one.share for one in told if one.model == "other.onnx"]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(one.left_s is not None for one in told)  # a build was known
    build_plans(wanted, cache, config, kind(), told.append)
    assert trt.builds == 3


def test_damaged_plan_counts_as_missing(trt, path, cache):
    from edge.inference.tensorrt_plans import plans_missing

    open_trt(path, cache)
    (plan,) = plans(cache)
    flip(plan, None)
    assert plans_missing([(path, 4)], cache, TensorRtConfig(), kind()) == [(path, 4)]


def test_time_left_is_unknown_until_a_build_tells(trt, path, cache):
    from edge.inference.tensorrt_plans import _left_s, build_plans

    told = []
    build_plans([(path, 4)], cache, TensorRtConfig(), kind(), told.append)
    assert told[0].left_s is None
    assert told[-1].left_s is not None
    assert _left_s(3, 0.0, 100.0, 0.0) == 300.0
    assert _left_s(3, 0.05, 100.0, 20.0) == 280.0
    assert _left_s(1, 0.5, None, 60.0) == 60.0
    assert _left_s(2, 0.5, 100.0, 100.0) == 150.0 + 50.0
    assert _left_s(1, 0.0, 100.0, 500.0) == 0.0


def test_build_that_fails_keeps_the_plans_before_it(trt, path, cache, tmp_path):
    from edge.inference.tensorrt_plans import build_plans

    other = tmp_path / "other.onnx"
    other.write_bytes(b"no model")
    with pytest.raises(EngineError, match=r"other\.onnx: TensorRT cannot parse it: Shelf 'scores': No such operator"):
        build_plans([(path, 4), (other, 2)], cache, TensorRtConfig(), kind(), lambda _: None)
    assert len(plans(cache)) == 1


def test_plan_that_another_process_built_meanwhile_is_used(trt, path, cache, monkeypatch):
    from edge.inference import tensorrt_plans

    open_trt(path, cache)
    read = tensorrt_plans.PlanCache.read
    answers = [None]  # as if it were not there before the wait for the other process
    monkeypatch.setattr(
        tensorrt_plans.PlanCache, "read", lambda self, key: answers.pop() if answers else read(self, key)
    )
    open_trt(path, cache)
    assert trt.builds == 1
