import subprocess
import sys

import pytest

from edge.errors import ConfigError
from edge.process import StateLock


def test_a_second_device_on_one_state_folder_is_refused_until_the_first_has_stopped(tmp_path):
    first = StateLock(tmp_path)
    with pytest.raises(ConfigError, match="found another device running on it, expected none"):
        StateLock(tmp_path)
    first.release()
    StateLock(tmp_path).release()


def test_a_device_that_was_killed_holds_no_lock(tmp_path):
    code = "import os, sys; from pathlib import Path; from edge.process import StateLock\n"
    code += "lock = StateLock(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == -9
    StateLock(tmp_path).release()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere/lock: cannot open: No such file or directory"):
        StateLock(tmp_path / "nowhere")
