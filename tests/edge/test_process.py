import gc
import subprocess
import sys
import threading

import numpy as np
import pytest

from edge.errors import ConfigError
from edge.process import Call, StateLock, StoppedError, new_memory_filled_with, starting


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


def test_new_memory_holds_the_value():
    """For small memory, from the heap, and large memory, from the system."""
    for size in (50_000, 3_000_000):
        with new_memory_filled_with(0xA7):
            memory = np.empty(size, np.uint8)
        assert (memory[64:-64] == 0xA7).mean() > 0.99
    assert not (np.empty(50_001, np.uint8) == 0xA7).all()


def test_call_returns_its_result_or_raises_its_error():
    assert Call(lambda: 3).result() == 3
    with pytest.raises(ZeroDivisionError):
        Call(lambda: 1 // 0).result(threading.Event())


def test_waiting_for_a_call_ends_when_stopped():
    ends, stop = threading.Event(), threading.Event()
    call = Call(ends.wait)
    stop.set()
    with pytest.raises(StoppedError):
        call.result(stop)
    ends.set()
    assert call.result() is True


def test_garbage_collector_waits_until_the_end_of_the_start():
    interval_s = sys.getswitchinterval()
    with starting() as on_started:
        assert not gc.isenabled()
        assert sys.getswitchinterval() < interval_s
        on_started()
        assert gc.isenabled()
        assert sys.getswitchinterval() == interval_s
    gc.unfreeze()


def test_garbage_collector_works_again_after_a_start_that_failed():
    with pytest.raises(ConfigError), starting():
        raise ConfigError("wrong")
    assert gc.isenabled()
    gc.unfreeze()
