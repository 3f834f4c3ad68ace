"""The `edge` command."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cli import _VERBS, main
from edge.options import build_parser


def test_check_reports_a_missing_tls_file(tmp_path, capsys):
    config = tmp_path / "device.yaml"
    config.write_text("cameras: {door: {source: 'rtsp://cam/1'}}\nmqtt: {tls: true, tls_ca: ca.pem}\n")
    assert main(["check", "-c", str(config)]) == 1
    assert capsys.readouterr().err.endswith(
        f"TLS files {tmp_path}/ca.pem: cannot load: [Errno 2] No such file or directory\n"
    )


def test_check_reports_a_missing_kiosk_certificate(tmp_path, capsys):
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
def test_invalid_size_is_a_usage_error(size, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", "--source", "x.mp4", "--resize", size])
    assert stop.value.code == 2
    assert f"{size!r} is not a size; give one such as 1280x720" in capsys.readouterr().err


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
    "init FOLDER",
    "find --bundle FOLDER query.png scene.png",
    "schema",
    "bundle list",
    "bundle verify FOLDER",
    "bundle install FOLDER",
    "bundle activate",
    "bundle rollback",
    "gallery status",
]


def test_every_command_line_has_its_own_verb():
    assert [build_parser("info").parse_args(line.split()).verb for line in LINES] == list(_VERBS)
    assert len(set(_VERBS.values())) == len(LINES)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.text(max_size=12) | st.from_regex(r"[0-9]{1,5}x[0-9]{1,5}"))
def test_any_size_is_parsed_or_a_usage_error(text):
    with contextlib.suppress(SystemExit):
        arguments = build_parser("info").parse_args(["bench", "--source", "x.mp4", f"--resize={text}"])
        assert min(arguments.resize) > 0
