"""`edge bench` with scripted models, and with the demo's: times that add up, and the looks of a live camera."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edge.cli import main
from edge.config.schema import CameraConfig, DeviceConfig, RecognitionConfig, ViewConfig
from edge.diagnostics import bench as bench_module
from edge.diagnostics import bench_frames
from edge.diagnostics.bench import BenchRequest, Change, bench, compare
from edge.diagnostics.bench_device import BenchDevice
from edge.diagnostics.bench_frames import BenchFrames, ReadFrame
from edge.diagnostics.bench_report import capacity, covered_s, series_of
from edge.errors import CaptureError, ConfigError
from edge.imaging.pyramid import pyramid_of
from edge.inference.engine_choice import Resolved
from edge.recognition.pipeline import Pipeline
from edge.telemetry.timing import percentile
from edge.types import Frame
from tests.edge.recognition.test_pipeline import FAR, RECOGNITION
from tests.edge.recognition.test_pipeline import Bench as ScriptedPipeline
from tests.fakes import FakeSource, a_picture
from tests.fakes_engine import SIZE, FakeCounts, FixedIndex, ManualClock

DEMO = Path(__file__).parents[3] / "demo"
MODELS = BenchRequest(bundle=Path("bundle"), gallery=Path("gallery"))


def device_config(**recognition):
    return DeviceConfig(recognition=RecognitionConfig(**RECOGNITION | recognition))


@pytest.fixture
def models(monkeypatch):
    """The models that a bundle folder gives, which only the precision of the engine changes."""
    scripted = ScriptedPipeline().pipeline.models

    def load(_bundle, _gallery, engine):
        form = {"fp32": "fp32"}.get(engine.precision, "ort-u8")
        engines = {"detector": Resolved("onnxruntime", form, "scripted")}
        return replace(scripted, stages=replace(scripted.stages, engines=engines))

    monkeypatch.setattr(bench_module, "load_models", load)
    return scripted


@pytest.fixture
def pictures(tmp_path):
    """A folder of 80 pictures, at ten a second."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(80):
        cv2.imwrite(str(folder / f"{number:02}.png"), np.full((SIZE, SIZE, 3), 128, np.uint8))
    return folder


def of(folder, query="?fps=10", **changes):
    return replace(MODELS, source=f"folder://{folder}{query}", **changes)


def rows_of(report):
    return {row.stage: row for row in report.rows}


def test_stages_add_up_to_the_frame(models, pictures):
    report = bench(device_config(), of(pictures))
    shares = {stage: row.share for stage, row in rows_of(report).items()}
    sums = [shares.pop(name) for name in ("frame", "engines", "overhead", "cpu")]
    assert sum(shares.values()) == pytest.approx(1.0, abs=0.002)  # each is rounded
    assert sums[0] == 1.0
    assert sums[1] == pytest.approx(sum(shares[stage] for stage in ("detect", "classify", "embed")), abs=0.001)
    assert sums[2] == pytest.approx(1.0 - shares["decode"] - sums[1], abs=0.001)
    assert list(shares) == [
        *("decode", "preprocess", "detect", "postprocess", "track", "schedule", "classify", "embed", "fuse", "search"),
        *("decide", "payload", "outbox", "telemetry", "unaccounted"),
    ]


def test_every_frame_is_measured_and_the_warm_up_apart(models, pictures):
    report = bench(device_config(), of(pictures))
    assert (report.frames, report.warm_up_frames, report.frames_skipped) == (80, 10, {})
    assert (report.stream_fps, report.stream_s) == (10.0, 8.0)
    assert (report.width, report.height) == (SIZE, SIZE)
    assert report.first_frame_ms > 0
    assert report.events == {"new": 1, "end": 1}
    assert {rows_of(report)[stage].frames for stage in ("embed", "payload")} == {report.looks, 1}
    assert report.looks == len(models.stages.embedders["carton"]._engine.batch_sizes) - 3  # of the warm-up


def test_bundle_without_a_classifier_is_measured(models, pictures, monkeypatch):
    stages = replace(models.stages, classifier=None)
    monkeypatch.setattr(bench_module, "load_models", lambda *_: replace(models, stages=stages))
    report = bench(device_config(), of(pictures, frames=20))
    assert report.looks > 0
    assert "classify" not in rows_of(report)


def test_unreadable_pictures_are_skipped_and_counted(models, pictures):
    (pictures / "05.png").write_bytes(b"no picture")
    report = bench(device_config(), of(pictures))
    assert (report.frames, report.frames_skipped) == (79, {"unreadable": 1})


def test_little_of_a_demo_frame_is_in_no_stage(tmp_path):
    request = BenchRequest(str(DEMO / "stream.mp4"), frames=90, bundle=DEMO / "bundle", gallery=DEMO / "gallery")
    found = {}

    def keep(source, device, *_):
        found.update(series_of(device.samples))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_module, "report_of", keep)
        bench(DeviceConfig(state_dir=tmp_path), request)
    shares = [one / whole for one, whole in zip(found["unaccounted"], found["frame"], strict=True)]
    assert percentile(sorted(shares), 50) < 0.02  # a busy machine interrupts single frames anywhere
    assert min(shares) > 0


def test_budget_of_a_recording_grants_the_looks_of_a_live_camera(tmp_path):
    """A camera that delivers in real time, on a device that takes 4 ms to detect, beside the same frames in a file."""
    camera = CameraConfig(source="rtsp://door")
    config = device_config(looks_per_s=2.0, max_looks=100)
    grey = np.full((SIZE, SIZE, 3), 128, np.uint8)
    models = ScriptedPipeline(indexes={"carton": FixedIndex(FAR)}).pipeline.models  # never sure
    live_clock, live_counts = ManualClock(), FakeCounts()
    live = Pipeline(models, {"bench": camera}, config.recognition, live_counts, live_clock)
    on_camera = []
    for index in range(120):
        arrived_ns = 7_000_000_000 + index * 66_666_667
        live_clock.now_ns = arrived_ns + 4_000_000
        frame = Frame("bench", index, grey, arrived_ns, 0.0, "arrival", index / 15)
        on_camera.append(live.process(frame).embedded)
    with BenchDevice(config, camera, models, tmp_path) as device:
        for index in range(120):
            frame = Frame("bench", index, grey, index * 66_666_667, 0.0, "file", index / 15)
            device.take(ReadFrame(frame, {"decode": 0.1}, 0.1))
    assert [one.looks for one in device.samples] == on_camera
    assert 14 <= sum(on_camera) <= 18  # two a second, and one second's worth at the start
    shed = live_counts.total["looks_shed camera=bench reason=budget"]
    assert device.counts.total("looks_shed", reason="budget") == shed > 20


def test_clock_of_a_recording_that_starts_again_goes_on(pictures):
    camera = CameraConfig(source=f"folder://{pictures}/[0-2].png?fps=2&loop=1".replace("[0-2]", "0[0-2]"))
    source = BenchFrames(camera)
    frames = [read.frame for read in source.read(7)]
    assert [frame.captured_ns / 1e9 for frame in frames] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert [frame.pts_s for frame in frames] == [0.0, 0.5, 1.0, 0.0, 0.5, 1.0, 0.0]  # as a camera delivers them
    assert source.is_endless


class SteppedTime:
    """Clocks of which one read of a camera takes 40 ms of waiting and 3 ms of work."""

    def __init__(self):
        self.wall_ns = self.thread_ns = 0

    def perf_counter_ns(self):
        return self.wall_ns

    def thread_time_ns(self):
        return self.thread_ns

    process_time_ns = thread_time_ns


def test_waiting_for_a_camera_is_not_decoding(monkeypatch):
    clocks = SteppedTime()
    monkeypatch.setattr(bench_frames, "time", clocks)

    class WaitingSource(FakeSource):
        def read(self, timeout_s):
            clocks.wall_ns, clocks.thread_ns = clocks.wall_ns + 43_000_000, clocks.thread_ns + 3_000_000
            return super().read(timeout_s)

    script = [a_picture(arrived_ns=number * 40_000_000) for number in range(3)]
    for address, decode_ms in (("v4l2://0", 3.0), ("file:///x.mp4", 43.0)):
        source = BenchFrames(
            CameraConfig(source=address, view=ViewConfig(frozen_after_s=None, obstructed_after_s=None))
        )
        source._opener = SimpleNamespace(open=lambda: WaitingSource(script))
        assert [read.stages_ms["decode"] for read in source.read(3)] == [decode_ms] * 3
        assert source.clock == ("device" if decode_ms == 3.0 else "stream")


def test_covered_view_is_checked_like_that_of_a_camera(monkeypatch):
    source = BenchFrames(CameraConfig(source="v4l2://0"))
    dark = [a_picture(arrived_ns=round(number * 1e8)) for number in range(4)]
    source._opener = SimpleNamespace(open=lambda: FakeSource(dark))
    assert source.read(4) == []
    assert source.skipped == {"obstructed": 4}
    monkeypatch.setattr(bench_frames, "_MOST_SKIPPED", 3)
    source.close()
    with pytest.raises(CaptureError, match=r"^v4l2://0: no frame to recognise \(7 obstructed\); check"):
        source.read(4)


def test_camera_of_the_configuration_keeps_its_settings(models, pictures):
    cameras = {"door": CameraConfig(source="rtsp://door", motion={"sweep_s": 1.0})}
    config = device_config().model_copy(update={"cameras": cameras})
    report = bench(config, of(pictures, camera="door"))
    assert {"motion", "detect"} <= rows_of(report).keys()
    with pytest.raises(ConfigError, match="--camera gate: the configuration has the cameras door"):
        bench(config, of(pictures, camera="gate"))


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (MODELS, "nothing to measure; give --source, or --camera"),
        (replace(MODELS, source="rtsp://ada:secret@door/1"), r"rtsp://\*\*\*@door/1: has no end; say how many"),
        (replace(MODELS, source="folder://?loop=1"), "nothing follows ://"),
    ],
)
def test_unusable_source_is_one_clear_error(request_, error, models):
    with pytest.raises(ConfigError, match=error):
        bench(device_config(), request_)


def test_source_without_frames_is_an_error(models, monkeypatch):
    monkeypatch.setattr(bench_frames.SourceOpener, "open", lambda _: FakeSource([]))
    with pytest.raises(CaptureError, match="holds no frame; give a video"):
        bench(device_config(), replace(MODELS, source="x.mp4"))


def test_capacity_is_limited_by_the_thread_or_by_the_cores():
    assert capacity(10.0, 5.0, 8.0, 2) == (20.0, "recognition thread")
    assert capacity(10.0, 2.0, 8.0, 2) == (25.0, "cores")
    assert capacity(None, 2.0, 8.0, 2) == (None, "cores")


def test_turns_change_with_every_block(models, pictures, monkeypatch):
    turns, take = [], BenchDevice.take

    def note(self, read):
        if read.frame.index % 15 == 0:
            turns.append(self.config.engine.threads)
        return take(self, read)

    monkeypatch.setattr(BenchDevice, "take", note)
    changes = [Change("threads=2", threads="2"), Change("threads=3", threads="3")]
    compare(device_config(), of(pictures, frames=75), changes)
    warm_up, *blocks = [turns[first : first + 3] for first in range(0, len(turns), 3)]
    assert warm_up == [1, 2, 3]
    assert blocks == [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3], [2, 3, 1]]


def test_single_frame_covers_no_time(tmp_path):
    frame = Frame("bench", 0, np.zeros((SIZE, SIZE, 3), np.uint8), 0, 0.0, "file", 0.0)
    with BenchDevice(
        device_config(), CameraConfig(source="rtsp://door"), ScriptedPipeline().pipeline.models, tmp_path
    ) as one:
        one.take(ReadFrame(frame, {"decode": 1000.0, "view": 500.0}, 2000.0))
    assert covered_s(one.samples) == (0.0, None)
    assert 1500.0 < one.samples[0].frame_ms < 2500.0
    assert 2500.0 < one.samples[0].cpu_ms < 3500.0


def test_devices_take_turns_on_the_same_frames(models, pictures):
    engines = models.stages
    before = len(engines.detector._engine.batch_sizes)
    report = compare(device_config(), of(pictures), [Change("precision=fp32", precision="fp32")])
    assert (report.blocks, report.block_frames) == (5, 15)
    (other,) = report.others
    assert report.first.frames == other.report.frames == 80
    assert len(engines.detector._engine.batch_sizes) - before == 2 * (80 + 10)
    assert (report.first.engines, other.report.engines) == (
        {"detector": "onnxruntime ort-u8"},
        {"detector": "onnxruntime fp32"},
    )
    rows = {row.stage: row for row in other.ratios}
    assert rows["frame"].blocks == rows["cpu"].blocks == 5
    assert rows["frame"].p25 <= rows["frame"].ratio <= rows["frame"].p75
    assert "decode" not in rows
    assert (other.agreement.same, other.agreement.different) == (1, 0)


def test_no_device_gets_the_halves_that_another_one_made(tmp_path):
    large = Frame("bench", 0, np.full((4 * SIZE, 4 * SIZE, 3), 128, np.uint8), 0, 0.0, "file", 0.0)
    large.halves[1] = made = np.full((2 * SIZE, 2 * SIZE, 3), 128, np.uint8)  # when it was read
    taken = []
    with BenchDevice(
        device_config(), CameraConfig(source="rtsp://door"), ScriptedPipeline().pipeline.models, tmp_path
    ) as one:
        process = one._pipeline.process
        one._pipeline.process = lambda frame: (
            taken.append(frame),
            pyramid_of(frame).resized(SIZE, SIZE),
            process(frame),
        )[2]
        one.take(ReadFrame(large, {"decode": 1.0}, 1.0))
    assert taken[0].halves.keys() == {1, 2}
    assert taken[0].halves[1] is made
    assert large.halves.keys() == {1}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (Change("precision=int8", precision="int8"), "--compare precision=int8: that is how the first device runs"),
        (Change("precision=fp8", precision="fp8"), "--compare precision=fp8: engine.precision: Input should be"),
        (Change("threads=0", threads="0"), "--compare threads=0: engine.threads: Input should be greater"),
    ],
)
def test_comparison_without_a_sense_is_an_error(change, error, models, pictures):
    with pytest.raises(ConfigError, match=error):
        compare(device_config(), of(pictures), [change])


def test_comparison_needs_five_blocks(models, pictures):
    with pytest.raises(CaptureError, match="gives 30 frames, and a comparison needs 75; give a longer one"):
        compare(device_config(), of(pictures, frames=30), [Change("threads=2", threads="2")])


def test_only_what_changes_is_another_folder(models, tmp_path, monkeypatch):
    active = (SimpleNamespace(folder=tmp_path / "a"), SimpleNamespace(folder=tmp_path / "g"))
    monkeypatch.setattr(bench_module, "read_active", lambda _: active)
    change, config = Change("bundle=b", bundle=tmp_path / "b"), device_config()
    assert bench_module._changed_folders(config, BenchRequest(), change) == (tmp_path / "b", tmp_path / "g")
    assert bench_module._changed_folders(config, MODELS, change) == (tmp_path / "b", Path("gallery"))
    assert bench_module._changed_folders(config, BenchRequest(), Change("threads=2", threads="2")) == (None, None)


def test_command_prints_a_table_or_json(models, pictures, tmp_path, capsys):
    config = tmp_path / "device.yaml"
    config.write_text("cameras: {door: {source: 'rtsp://door'}}\nrecognition: {min_object_px: 8}\n")
    line = ["bench", "-c", str(config), "--source", f"folder://{pictures}?fps=10", "--bundle", "b", "--gallery", "g"]
    assert main(line) == 0
    out = capsys.readouterr().out
    assert "80 frames of 64x64, 10 frames/s, 8 s" in out
    assert "unaccounted" in out
    assert main([*line, "--compare", "precision=fp32", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["others"][0]["change"] == "precision=fp32"
    assert report["first"]["frames"] == 80


@pytest.mark.parametrize("text", ["fp32", "form=fp32", "precision=", "threads=1,threads=2"])
def test_unknown_change_is_a_usage_error(text, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--source", "x.mp4", "--compare", text])
    assert stop.value.code == 2
    assert (
        f"{text!r} is no change; give one such as precision=fp32, of one of precision, engine"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("text", ["-3", "1.5", "many", "9" * 13, "²"])
def test_invalid_number_of_frames_is_a_usage_error(text, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--source", "x.mp4", f"--frames={text}"])
    assert stop.value.code == 2
    assert f"{text!r} is not a number of frames; give 0 or more" in capsys.readouterr().err
