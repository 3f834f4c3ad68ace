"""The vital signs that the update agent reads."""

from __future__ import annotations

import json
import logging
import os
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import SyncError
from edge.telemetry.counters import Counters
from edge.telemetry.health_report import EngineState, ServedRelease, TaughtCounts
from edge.telemetry.vital_signs import (
    NAME,
    FrameRates,
    VitalSigns,
    VitalSignsTaker,
    VitalSignsWriter,
    machine_boot_id,
    read_vital_signs,
)
from tests.fakes import health_report
from tests.waiting import until

REPORT = health_report(
    cameras={"door": "online", "yard": "stalled"},
    versions={"edge": "1", "bundle": "shop-2", "gallery": "0123456789abcdef"},
    slot="b",
    release=ServedRelease("shop", 2, 8),
    trial="t-2",
    fallback=None,
    taught=TaughtCounts(5, 3, 1, 1),
)


def taken(**changes) -> VitalSigns:
    return VitalSignsTaker(100.0, 10.0).take(replace(REPORT, **changes), Counters(), 12.0)


def test_vital_signs_say_what_serves_and_how_well(tmp_path):
    counters, taker = Counters(), VitalSignsTaker(100.0, 10.0)
    taker.take(REPORT, counters, 12.0)
    counters.add("frames_recognised", 20, camera="door")
    counters.add("frames_failed", 2, camera="door")
    counters.add("answers", 3, result="known")
    counters.add("answers", 1, result="unknown")
    counters.add("activations", result="serving")
    VitalSignsWriter(tmp_path, lambda: taker.take(REPORT, counters, 16.0), counters).write()
    signs = read_vital_signs(tmp_path)
    assert (signs.pair.slot, signs.pair.bundle_id, signs.pair.gallery) == ("b", "shop-2", "0123456789abcdef")
    assert (signs.release.sequence, signs.release.gallery_sequence, signs.trial) == (2, 8, "t-2")
    assert (signs.pid, signs.started_at, signs.written_monotonic_s) == (os.getpid(), 100.0, 16.0)
    assert (signs.frames, signs.frame_errors, signs.known, signs.unknown) == (20, 2, 3, 1)
    assert (signs.cameras["door"].fps, signs.cameras["yard"].fps, signs.fps) == (5.0, 0.0, 5.0)
    assert (signs.activations, signs.taught.waiting) == ({"serving": 1, "refused": 0}, 1)
    assert signs.machine_boot_id == machine_boot_id()


def test_age_counts_within_one_boot_of_the_machine_only():
    signs = taken()
    assert signs.age_s(20.0, signs.machine_boot_id) == 8.0
    assert signs.age_s(20.0, "another boot") is None
    assert signs.age_s(1.0, signs.machine_boot_id) is None


def test_no_vital_signs_are_none_and_damaged_ones_an_error(tmp_path):
    assert read_vital_signs(tmp_path) is None
    whole = taken().model_dump_json(by_alias=True)
    for content in ("", "{", whole[:-3], whole.replace("/1", "/2"), " " * (1 << 19), whole.replace("12.0", "NaN")):
        (tmp_path / NAME).write_text(content)
        with pytest.raises(SyncError, match=NAME):
            read_vital_signs(tmp_path)
    (tmp_path / NAME).write_text(json.dumps(json.loads(whole) | {"later": 1}))
    assert read_vital_signs(tmp_path) == taken()


@settings(derandomize=True, max_examples=60, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_our_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("state")
    (folder / NAME).write_bytes(data)
    with pytest.raises(SyncError):
        read_vital_signs(folder)


def test_long_fallback_is_cut():
    assert len(taken(fallback="x" * 10_000).fallback) == 4000


def test_vital_signs_hold_the_configuration_in_use():
    config = taken(config_overlay="night-mode 3", overlay_error="x" * 9000).config
    assert config is not None
    assert (config.overlay, config.error) == ("night-mode 3", None)
    assert len(config.refused or "") == 4000


def test_vital_signs_name_what_runs_the_models():
    state = EngineState("onnxruntime", "int8", 3.0, None, "fastest")
    found = taken(engines={"tyre": state, "shelf": state, "rim": replace(state, engine="openvino")}, site="shop")
    assert (found.engine, found.site, found.version) == ("onnxruntime int8, openvino int8", "shop", "1")
    assert taken(engines={}).engine is None
    lost = taken(engines={"tyre": state}, gpu_fallback="the GPU is lost " * 50)
    assert lost.engine is not None
    assert lost.engine.startswith("onnxruntime int8 in place of the GPU: the GPU is lost")
    assert len(lost.engine) <= 300
    many = taken(engines={f"m{n}": replace(state, form=f"form-{n}") for n in range(9)})
    assert str(many.engine).endswith(" and others")


def test_rates_are_of_the_last_seconds():
    rates = FrameRates(over_s=4.0)
    assert rates.add(0.0, {"door": 0}) == {"door": 0.0}
    assert rates.add(2.0, {"door": 20}) == {"door": 10.0}
    assert rates.add(4.0, {"door": 20}) == {"door": 5.0}
    assert rates.add(6.0, {"door": 20, "new": 2}) == {"door": 0.0, "new": 0.5}
    assert rates.add(8.0, {"door": 20}) == {"door": 0.0}
    assert rates.add(8.0, {"door": 3}) == {"door": 0.0}


def test_failed_writes_are_counted_and_logged_once(tmp_path, caplog):
    counters, folder = Counters(), tmp_path / "missing"
    writer = VitalSignsWriter(folder, taken, counters)
    with caplog.at_level(logging.WARNING):
        writer.write()
        writer.write()
        folder.mkdir()
        writer.write()
    assert counters.total("vital_signs_failed") == 2
    assert ["cannot write" in record.message for record in caplog.records] == [True]
    assert read_vital_signs(folder) == taken()


def test_error_while_taking_them_does_not_end_the_writer(tmp_path):
    counters = Counters()
    writer = VitalSignsWriter(tmp_path, lambda: 1 / 0, counters, interval_s=0.001)
    writer.start()
    until(lambda: counters.total("vital_signs_failed") >= 3, "three failures")
    writer.close()


def test_change_is_written_at_once_and_the_last_state_at_the_end(tmp_path):
    states = iter(["starting", "running", "stopping"])
    written = threading.Event()

    def take() -> VitalSigns:
        written.set()
        return taken(state=next(states))

    writer = VitalSignsWriter(tmp_path, take, Counters(), interval_s=3600.0)
    writer.start()
    for state in ("starting", "running"):
        until(lambda s=state: (found := read_vital_signs(tmp_path)) is not None and found.state == s, state)
        if state == "starting":
            writer.hurry()
    writer.close()
    assert read_vital_signs(tmp_path).state == "stopping"


def test_disk_that_hangs_delays_nothing_but_the_vital_signs(tmp_path):
    release = threading.Event()
    writer = VitalSignsWriter(tmp_path, lambda: release.wait(20.0) and taken(), Counters())
    writer.start()
    writer.hurry()
    writer.close(wait_s=0.01)  # returns
    release.set()
