"""`edge bench` on a camera: it keeps the camera's pace, and waiting for frames is not work."""

from __future__ import annotations

from edge.config.schema import DeviceConfig
from edge.diagnostics.bench import BenchRequest, bench
from tests.integration.rtsp_server import RtspServer
from tests.integration.test_device import DEMO


def test_camera_is_measured_without_its_backlog_and_the_waiting(tmp_path):
    with RtspServer(f"file:{DEMO / 'stream.mp4'}") as server:
        request = BenchRequest(server.url, frames=15, bundle=DEMO / "bundle", gallery=DEMO / "gallery")
        report = bench(DeviceConfig(state_dir=tmp_path), request)
    assert (report.frames, report.clock) == (15, "device")
    assert report.frames_skipped["backlog"] > 0
    assert 0 < report.stream_fps < 30  # it sends 15 a second, and a busy machine skips some; its backlog comes at once
    rows = {row.stage: row for row in report.rows}
    assert rows["view"].frames == 15
    assert rows["decode"].p50_ms < 60  # a frame comes every 67 ms
