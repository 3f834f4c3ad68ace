import socket
from pathlib import Path

import pytest

from edge.config.schema import DeviceConfig, MqttConfig
from edge.diagnostics import doctor
from edge.inference.engine import RUNS
from edge.telemetry.temperature import is_throttling, read_temperatures

CAMERA = {"door": {"source": "rtsp://10.0.0.1/a"}}


def zone(folder: Path, number: int, kind: str, reading: str) -> None:
    path = folder / f"thermal_zone{number}"
    path.mkdir()
    (path / "type").write_text(f"{kind}\n")
    (path / "temp").write_text(reading)


def cooler(folder: Path, number: int, kind: str, state: int) -> None:
    path = folder / f"cooling_device{number}"
    path.mkdir()
    (path / "type").write_text(f"{kind}\n")
    (path / "cur_state").write_text(f"{state}\n")


def test_temperatures_skip_zones_that_are_off_or_asleep(tmp_path: Path):
    zone(tmp_path, 0, "CPU-therm", "61500\n")
    zone(tmp_path, 1, "GPU-therm", "-256000\n")
    zone(tmp_path, 2, "PMIC", "busy\n")
    assert read_temperatures(tmp_path) == {"CPU-therm": 61.5}


def test_fan_does_not_count_as_throttling(tmp_path: Path):
    assert is_throttling(tmp_path) is None
    cooler(tmp_path, 0, "pwm-fan", 3)
    assert is_throttling(tmp_path) is None
    cooler(tmp_path, 1, "cpufreq-cpu0", 0)
    assert is_throttling(tmp_path) is False
    cooler(tmp_path, 2, "cpufreq-cpu4", 2)
    assert is_throttling(tmp_path) is True


def test_hot_zone_is_a_note(tmp_path: Path):
    zone(tmp_path, 0, "cool", "40000")
    zone(tmp_path, 1, "hot", "91000")
    found = {finding.thing: finding for finding in doctor.temperatures(tmp_path)}
    assert found["temperature cool"].verdict == "good"
    assert found["temperature hot"].verdict == "note"
    assert "throttles" in found["temperature hot"].words


@pytest.mark.parametrize(
    ("flags", "verdict"), [("fpu avx2 avx512_vnni", "good"), ("fp asimd asimddp", "good"), ("fpu avx2", "note")]
)
def test_processor_without_dot_products_is_a_note(tmp_path: Path, flags: str, verdict: str):
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    assert doctor.processor(tmp_path / "cpuinfo").verdict == verdict


def test_unwritable_folder_is_bad(tmp_path: Path):
    (tmp_path / "file").touch()
    found = doctor.disk(tmp_path / "file")
    assert found.verdict == "bad"
    assert "cannot write" in found.words


def test_timed_write_leaves_no_file(tmp_path: Path):
    assert doctor.disk(tmp_path).verdict != "bad"
    assert list(tmp_path.iterdir()) == []


def test_device_without_a_bundle_is_bad(tmp_path: Path):
    found = doctor.models(DeviceConfig(state_dir=tmp_path, cameras=CAMERA))
    assert found.verdict == "bad"
    assert str(tmp_path) in found.words


def test_absent_broker_is_bad_and_named():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = doctor.broker(DeviceConfig(cameras=CAMERA, mqtt=MqttConfig(host="127.0.0.1", port=port)))
    assert found.verdict == "bad"
    assert f"127.0.0.1:{port}" in found.words


def test_this_machine_has_onnxruntime_and_opencv():
    findings = {finding.thing: finding for finding in doctor.run_checks(None)}
    assert findings["engine onnxruntime"].verdict == "good"
    assert {f"engine {name}" for name in RUNS} <= findings.keys()
    assert findings["decoder opencv"].verdict == "good"
    assert {finding.verdict for finding in findings.values()} <= {"good", "note"}
