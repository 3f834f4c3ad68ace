from __future__ import annotations

import pytest

from edge.config.file import GOOD, ConfigFile
from edge.errors import ConfigError
from tests.power_cut import PowerCut

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


def test_what_ran_well_is_kept_as_it_was_written_and_private(path, state):
    file = a_file(path)
    assert file.load().mqtt.password == "hunter2"
    file.keep(state)
    assert (state / GOOD).read_text() == GOOD_TEXT
    assert (state / GOOD).stat().st_mode & 0o077 == 0


def test_a_bad_file_starts_from_the_last_good_one_and_says_so(path, state, caplog):
    file = a_file(path)
    good = file.load()
    file.keep(state)
    path.write_text(GOOD_TEXT + "sitte: x\n")
    again = a_file(path)
    assert again.load_or_last_good(state) == good  # relative paths are still those of the file
    assert again.safe_mode
    assert "found unknown key 'sitte'" in again.problem
    assert "safe mode: running by" in caplog.text


def test_a_good_file_is_not_safe_mode(path, state):
    file = a_file(path)
    file.load_or_last_good(state)
    assert (file.safe_mode, file.problem) == (False, None)


def test_safe_mode_ends_when_the_file_is_mended(path, state):
    a_file(path).load()
    (state / GOOD).write_text(GOOD_TEXT)
    path.write_text("nonsense")
    file = a_file(path)
    file.load_or_last_good(state)
    path.write_text(GOOD_TEXT)
    file.load()
    assert (file.safe_mode, file.problem) == (False, None)


def test_without_a_good_one_the_bad_file_is_the_error(path, state):
    path.write_text("sitte: x\n")
    with pytest.raises(ConfigError, match=r"found unknown key 'sitte'(.|\n)*no safe mode: .*cannot read"):
        a_file(path).load_or_last_good(state)


def test_the_last_good_one_is_not_kept_again(path, state):
    (state / GOOD).write_text(GOOD_TEXT)
    path.write_text("nonsense")
    file = a_file(path)
    file.load_or_last_good(state)
    file.keep(state)
    assert (state / GOOD).read_text() == GOOD_TEXT


def test_a_source_that_cannot_be_is_a_bad_file(path):
    path.write_text("cameras:\n  door: {source: 'rtps://u:hunter2@cam/1'}\n")
    with pytest.raises(ConfigError, match=r"cameras\.door\.source: .*found no known scheme") as caught:
        a_file(path).load()
    assert "hunter2" not in str(caught.value)


def test_after_a_power_cut_the_old_or_the_new_one_is_there(path, state):
    for n in range(1, 20):
        (state / GOOD).write_text("old")
        file = a_file(path)
        file.load()
        with PowerCut(n) as cut:
            try:
                file.keep(state)
            except OSError:
                assert cut.happened
        assert (state / GOOD).read_text() in {"old", GOOD_TEXT}
        if not cut.happened:
            return
    pytest.fail("the write never ended")
