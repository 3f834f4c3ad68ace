"""The edge command."""

from __future__ import annotations

import pytest

from edge.cli import _VERBS, main
from edge.options import build_parser


def test_a_missing_tls_file_is_told_before_the_device_runs(tmp_path, capsys):
    config = tmp_path / "device.yaml"
    config.write_text("cameras: {door: {source: 'rtsp://cam/1'}}\nmqtt: {tls: true, tls_ca: ca.pem}\n")
    assert main(["check", "-c", str(config)]) == 1
    assert capsys.readouterr().err.endswith(
        f"TLS files {tmp_path}/ca.pem: cannot load: [Errno 2] No such file or directory\n"
    )


def test_a_kiosk_whose_certificate_is_missing_is_told_before_the_device_runs(tmp_path, capsys):
    config = tmp_path / "device.yaml"
    config.write_text(
        "cameras: {till: {source: v4l2://0, framing: whole_frame}}\n"
        "kiosk: {camera: till, tls: {certificate: kiosk.pem, key: kiosk.key}}\n"
    )
    assert main(["check", "-c", str(config)]) == 1
    expected = (
        f"kiosk.tls: cannot load {tmp_path}/kiosk.pem with {tmp_path}/kiosk.key: [Errno 2] No such file or directory"
    )
    assert capsys.readouterr().err.endswith(f"{expected}\n")


@pytest.mark.parametrize("size", ["12", "x", "0x5", "1280x", "ax b"])
def test_a_size_that_is_none_is_a_usage_error_that_quotes_it(size, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--source", "x.mp4", "--resize", size])
    assert stop.value.code == 2
    assert f"found {size!r}, expected a size such as 1280x720" in capsys.readouterr().err


LINES = [
    "run",
    "status",
    "record",
    "replay FOLDER",
    "check",
    "doctor",
    "support-bundle",
    "bench --source x.mp4",
    "demo",
    "find --bundle FOLDER query.png scene.png",
    "schema",
    "bundle list",
    "bundle verify FOLDER",
    "bundle install FOLDER",
    "bundle activate",
    "bundle rollback",
    "gallery status",
]


def test_every_command_line_leads_to_a_verb_of_its_own():
    assert [build_parser("info").parse_args(line.split()).verb for line in LINES] == list(_VERBS)
    assert len(set(_VERBS.values())) == len(LINES)
