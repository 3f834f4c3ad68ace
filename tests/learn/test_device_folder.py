"""The configurations that `learn` writes hold for any name of a shop and any address of a camera."""

from __future__ import annotations

import pytest

from edge.config.yaml_file import load_config
from learn.device_folder import write_configurations


@pytest.mark.parametrize("name", ["SHOP", "Müllers Laden", "shop.v2", "果汁", "a: b #c", "-", "x" * 200, "{name}"])
def test_any_name_gives_configurations_that_load(tmp_path, name):
    for detects in (False, True):
        folder = tmp_path / str(detects)
        folder.mkdir()
        for path in write_configurations(folder, name, "v4l2:///dev/video0", detects=detects):
            config = load_config(path, {})
            assert config.state_dir == (folder / "state").absolute()


@pytest.mark.parametrize(
    "source", ["rtsp://u:p#1@h/s", "gst:videotestsrc ! appsink name=sink", "file:///a b/c: {d}.mp4", 'v4l2://"0"']
)
def test_any_address_of_a_camera_is_kept(tmp_path, source):
    kiosk, camera = write_configurations(tmp_path, "shop", source, detects=False)
    assert load_config(kiosk, {}).cameras["counter"].source == source
    assert load_config(camera, {}).cameras["main"].source == source


def test_a_password_of_the_environment_is_filled_in(tmp_path):
    kiosk, _ = write_configurations(tmp_path, "shop", "rtsp://u:${PASSWORD}@h/s", detects=False)
    assert load_config(kiosk, {"PASSWORD": "p"}).cameras["counter"].source == "rtsp://u:p@h/s"


def test_changed_configurations_stay(tmp_path):
    kiosk, _ = write_configurations(tmp_path, "shop", "v4l2:///dev/video0", detects=False)
    kiosk.write_text("# mine\n")
    write_configurations(tmp_path, "shop", "v4l2:///dev/video1", detects=False)
    assert kiosk.read_text() == "# mine\n"
