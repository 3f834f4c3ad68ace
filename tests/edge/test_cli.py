"""The `edge` command."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.bundle import slots
from edge.cli import _VERBS, main
from edge.options import build_parser
from tests.store_samples import make_bundle, make_gallery, trusted


def test_check_reports_a_missing_tls_file(tmp_path, capsys):
    config = tmp_path / "device.yaml"
    config.write_text("cameras: {door: {source: 'rtsp://cam/1'}}\nmqtt: {tls: true, tls_ca: ca.pem}\n")
    assert main(["check", "-c", str(config)]) == 1
    assert capsys.readouterr().err.endswith(
        f"TLS files {tmp_path}/ca.pem: cannot load: [Errno 2] No such file or directory\n"
    )


def test_check_of_an_overlay(tmp_path, capsys):
    config, overlay = tmp_path / "device.yaml", tmp_path / "night-mode.yaml"
    config.write_text(
        f"state_dir: {tmp_path}\ncameras: {{door: {{source: 'rtsp://cam/1'}}}}\nmqtt: {{username: '${{U}}'}}\n"
    )
    check = ["check", "-c", str(config), "--config-only"]
    overlay.write_text("cameras: {door: {max_px: 640}}\n")
    assert main([*check, "--overlay", str(overlay)]) == 0
    assert "overlay night-mode: used" in capsys.readouterr().out
    overlay.write_text("cameras: {door: {max_px: 6}}\n")
    assert main([*check, "--overlay", str(overlay)]) == 1
    assert "overlay night-mode: cameras.door.max_px: found 6" in capsys.readouterr().err
    (tmp_path / "config").mkdir()
    (tmp_path / "config/overlay.json").write_text("{")
    assert main(check) == 1
    assert "overlay.json: is damaged" in capsys.readouterr().err


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
    "recognise photo.jpg",
    "bench --source x.mp4",
    "demo",
    "init FOLDER",
    "find --bundle FOLDER query.png scene.png",
    "schema",
    "bundle list",
    "bundle verify FOLDER",
    "bundle prove",
    "bundle install FOLDER",
    "bundle activate",
    "bundle rollback",
    "gallery status",
    "gallery cut FOLDER --whole FOLDER --bundle FOLDER -o FOLDER",
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


@pytest.fixture
def device(tmp_path, capsys):
    """A device with a bundle that is installed and staged: its configuration file."""
    config = tmp_path / "device.yaml"
    config.write_text("state_dir: state\ncameras: {door: {source: 'rtsp://cam/1'}}\n")
    bundle, gallery = make_bundle(tmp_path / "bundle", "one"), make_gallery(tmp_path / "gallery")
    assert main(["bundle", "install", str(bundle), "--gallery", str(gallery), "-c", str(config)]) == 0
    assert capsys.readouterr().out.endswith(f"run: edge bundle activate --state-dir {tmp_path}/state\n")
    return config


def test_bundle_list_prints_a_table_and_json(device, capsys):
    generation = next((device.parent / "state" / "gallery").iterdir()).name
    assert main(["bundle", "list", "-c", str(device)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "slot  bundle  gallery           state",
        f"a     one     {generation}  staged",
        "b     -       -                 empty",
        f"to switch to bundle one, run: edge bundle activate --state-dir {device.parent}/state",
    ]
    assert main(["bundle", "list", "-c", str(device), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["serving"] is None
    assert (listed["staged"]["bundle_id"], listed["galleries"]) == ("one", [generation])


def test_unreadable_slot_is_listed_with_its_problem(device, capsys):
    manifest = device.parent / "state" / "slots" / "a" / "bundle.json"
    manifest.write_text(manifest.read_text().replace('"schema": 1', '"schema": 2'))
    assert main(["bundle", "list", "-c", str(device)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["a", "unreadable", "-", "-"]
    assert lines[3].startswith(f"slot a: {manifest}: it has format 2, and finesight")


def test_gallery_status_prints_a_table_and_json(device, capsys):
    slots.activate(device.parent / "state", prove=trusted)
    assert main(["gallery", "status", "-c", str(device)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.endswith(", made 2026-01-01T00:00:00Z")
    assert rows == ["category  items  vectors", "tyre          3        6", "total         3        6"]
    assert main(["gallery", "status", "-c", str(device), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["categories"] == {"tyre": {"items": 3, "vectors": 6}}


@pytest.mark.parametrize("verb", ["run", "record", "check", "gallery status"])
def test_state_dir_overrides_the_configuration(verb, device, capsys, monkeypatch):
    monkeypatch.setattr("edge.capture.cameras.check_recordable", lambda *_: None)
    other = device.parent / "other"
    assert main([*verb.split(), "-c", str(device), "--state-dir", str(other)]) == 1
    assert f"edge: {other}: no bundle is active; " in capsys.readouterr().err


def test_activating_an_empty_device_says_that_nothing_is_staged(tmp_path, capsys):
    assert main(["bundle", "activate", "--state-dir", str(tmp_path)]) == 1
    assert f"edge: {tmp_path}: nothing is staged; " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("camera", "problem"),
    [
        ("source: 'file://x.mp4', backend: opencv", "OpenCV cannot record; use backend: gstreamer"),
        ("source: 'folder://pictures'", "pictures cannot be recorded"),
        ("source: 'file://x.png'", "pictures cannot be recorded"),
    ],
)
def test_record_refuses_what_it_cannot_record(camera, problem, tmp_path, capsys):
    config = tmp_path / "device.yaml"
    config.write_text(f"cameras: {{door: {{{camera}}}}}\n")
    assert main(["record", "-c", str(config)]) == 1
    assert problem in capsys.readouterr().err


def test_every_key_of_the_schema_is_described(capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    types = [schema, *(one for one in schema["$defs"].values() if one["type"] == "object")]
    missing = [
        f"{one['title']}.{key}" for one in types for key, of in one["properties"].items() if not of.get("description")
    ]
    assert missing == []
    assert schema["properties"]["health"]["description"] == "null: no health server"


@pytest.mark.parametrize("asked", ["risk", "false_accept"])
def test_activation_refuses_a_bundle_that_cannot_keep_the_promise(asked, device, capsys):
    device.write_text(device.read_text() + f"gallery: {{{asked}: 0.05}}\n")
    assert main(["bundle", "activate", "-c", str(device)]) == 1
    said = capsys.readouterr().err
    assert f"category 'tyre': gallery.{asked} is 0.05, and the bundle has no such thresholds: remove the key" in said


def test_activation_runs_the_probes_on_the_configured_engine(device, capsys):
    device.write_text(device.read_text() + "engine: {backend: tensorrt}\n")
    assert main(["bundle", "activate", "-c", str(device)]) == 1
    assert "edge: engine tensorrt: package 'tensorrt' is not installed; run: " in capsys.readouterr().err


@pytest.mark.parametrize(("given", "used"), [({}, "1"), ({"OPENBLAS_NUM_THREADS": "3"}, "3")])
def test_numpy_gets_one_thread_unless_the_environment_says_otherwise(given, used):
    shown = "print('numpy' in sys.modules, os.environ['OPENBLAS_NUM_THREADS'], flush=True)"
    code = f"import os, sys; from edge import cli; cli.main = lambda: {shown} or 0; cli.program()"
    others = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], env=others | given, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", used]
