import subprocess
import sys

import pytest

from edge.errors import ConfigError
from edge.process import StateLock


def test_second_device_on_a_state_folder_is_refused(tmp_path):
    first = StateLock(tmp_path)
    with pytest.raises(ConfigError, match="another `edge` process uses this folder"):
        StateLock(tmp_path)
    first.release()
    StateLock(tmp_path).release()


def test_killed_device_holds_no_lock(tmp_path):
    code = "import os, sys; from pathlib import Path; from edge.process import StateLock\n"
    code += "lock = StateLock(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode == -9
    StateLock(tmp_path).release()


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: cannot open: No such file or directory"):
        StateLock(tmp_path / "nowhere")
