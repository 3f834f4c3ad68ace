"""The configurations that `learn` writes hold for any name of a shop and any address of a camera."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from edge.config.yaml_file import load_config
from learn.device_folder import CAMERA, KIOSK, run_command, write_configurations


@pytest.mark.parametrize("name", ["SHOP", "Müllers Laden", "shop.v2", "果汁", "a: b #c", "-", "x" * 200, "{name}"])
def test_any_name_gives_configurations_that_load(tmp_path, name):
    for detects in (False, True):
        folder = tmp_path / str(detects)
        folder.mkdir()
        write_configurations(folder, name, "v4l2:///dev/video0", detects=detects)
        for file in (KIOSK, CAMERA):
            config = load_config(folder / file, {})
            assert config.state_dir == (folder / "state").absolute()


@pytest.mark.parametrize(
    "source", ["rtsp://u:p#1@h/s", "gst:videotestsrc ! appsink name=sink", "file:///a b/c: {d}.mp4", 'v4l2://"0"']
)
def test_any_address_of_a_camera_is_kept(tmp_path, source):
    write_configurations(tmp_path, "shop", source, detects=False)
    assert load_config(tmp_path / KIOSK, {}).cameras["counter"].source == source
    assert load_config(tmp_path / CAMERA, {}).cameras["main"].source == source


def test_a_password_of_the_environment_is_filled_in(tmp_path):
    write_configurations(tmp_path, "shop", "rtsp://u:${PASSWORD}@h/s", detects=False)
    assert load_config(tmp_path / KIOSK, {"PASSWORD": "p"}).cameras["counter"].source == "rtsp://u:p@h/s"


def test_changed_configurations_stay_and_are_named(tmp_path):
    assert write_configurations(tmp_path, "shop", "v4l2:///dev/video0", detects=False) == []
    assert write_configurations(tmp_path, "shop", "v4l2:///dev/video0", detects=False) == []
    assert write_configurations(tmp_path, "shop", "v4l2:///dev/video0", detects=True) == [CAMERA]
    (tmp_path / KIOSK).write_text("# mine\n")
    assert write_configurations(tmp_path, "shop", "v4l2:///dev/video0", detects=False) == [KIOSK]
    assert (tmp_path / KIOSK).read_text() == "# mine\n"


def test_the_command_can_be_pasted():
    command = run_command(Path("Müllers Laden/kiosk.yaml"))
    assert shlex.split(command) == ["edge", "run", "-c", "Müllers Laden/kiosk.yaml"]
