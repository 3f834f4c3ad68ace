"""The configuration file and its last good copy."""

from __future__ import annotations

import pytest

from edge.config.config_file import LAST_GOOD_FILE, ConfigFile
from edge.errors import ConfigError
from tests.power_cut import IMAGES, PowerCut

GOOD_TEXT = "cameras:\n  door: {source: 'file://clips/a.mp4'}\nmqtt: {password: '${PASSWORD}'}\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "etc" / "device.yaml"
    path.parent.mkdir()
    path.write_text(GOOD_TEXT)
    return path


@pytest.fixture
def state(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    return state


def a_file(path):
    return ConfigFile(path, {"PASSWORD": "hunter2"})


def test_last_good_copy_is_verbatim_and_private(path, state):
    file = a_file(path)
    assert file.load().mqtt.password == "hunter2"
    file.save_last_good(state)
    assert (state / LAST_GOOD_FILE).read_text() == GOOD_TEXT
    assert (state / LAST_GOOD_FILE).stat().st_mode & 0o077 == 0


def test_invalid_file_starts_safe_mode_with_the_last_good_copy(path, state, caplog):
    file = a_file(path)
    good = file.load()
    file.save_last_good(state)
    path.write_text(GOOD_TEXT + "sitte: x\n")
    again = a_file(path)
    assert again.load_or_last_good(state) == good  # relative paths are still those of the file
    assert again.safe_mode
    assert "unknown key 'sitte'" in again.problem
    assert "safe mode: running with" in caplog.text


def test_valid_file_is_not_safe_mode(path, state):
    file = a_file(path)
    file.load_or_last_good(state)
    assert (file.safe_mode, file.problem) == (False, None)


def test_safe_mode_ends_when_the_file_is_valid_again(path, state):
    a_file(path).load()
    (state / LAST_GOOD_FILE).write_text(GOOD_TEXT)
    path.write_text("nonsense")
    file = a_file(path)
    file.load_or_last_good(state)
    path.write_text(GOOD_TEXT)
    file.load()
    assert (file.safe_mode, file.problem) == (False, None)


def test_invalid_file_without_a_copy_is_an_error(path, state):
    path.write_text("sitte: x\n")
    with pytest.raises(ConfigError, match=r"unknown key 'sitte'(.|\n)*safe mode is not possible: .*cannot read"):
        a_file(path).load_or_last_good(state)


def test_safe_mode_does_not_overwrite_the_copy(path, state):
    (state / LAST_GOOD_FILE).write_text(GOOD_TEXT)
    path.write_text("nonsense")
    file = a_file(path)
    file.load_or_last_good(state)
    file.save_last_good(state)
    assert (state / LAST_GOOD_FILE).read_text() == GOOD_TEXT


def test_invalid_camera_source_is_a_config_error(path):
    path.write_text("cameras:\n  door: {source: 'rtps://u:hunter2@cam/1'}\n")
    with pytest.raises(ConfigError, match=r"cameras\.door\.source: .*no known scheme") as caught:
        a_file(path).load()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("image", IMAGES)
def test_power_cut_leaves_the_old_or_the_new_copy(path, state, image):
    for n in range(1, 20):
        (state / LAST_GOOD_FILE).write_text("old")
        file = a_file(path)
        file.load()
        with PowerCut(n, image) as cut:
            try:
                file.save_last_good(state)
            except OSError:
                assert cut.happened
        assert (state / LAST_GOOD_FILE).read_text() in {"old", GOOD_TEXT}
        if not cut.happened:
            return
    pytest.fail("the write never completed")
