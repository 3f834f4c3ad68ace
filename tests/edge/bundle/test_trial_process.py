"""An engine in a process of its own: what crashes, hangs or raises there is an error here."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from edge.bundle.trial_process import TrialProcess
from edge.bundle.trial_worker import receive, send
from edge.errors import EngineError
from tests.engine_package import install_engine
from tests.sample_models import sums_model

BATCH = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

FAKE = textwrap.dedent("""
    import os, time
    import numpy as np
    forms = ("fake-form",)
    def is_usable():
        return None
    class Engine:
        inputs, outputs, library = [("image",)], [("total",)], "fake 1"
        def __init__(self, path):
            self.word = path.read_text()
            if self.word == "crash": os.abort()
            if self.word == "hang": time.sleep(600)
            if self.word == "raise": raise ValueError("no such chip")
            if self.word == "noise": print("x" * 10_000, flush=True); os.system("echo native noise")
        def run(self, batch):
            if self.word == "crash later": os.abort()
            return [np.asarray(batch, np.float32).sum(axis=2)]
    def open(path, threads, max_batch, cache):
        return Engine(path)
""")


@pytest.fixture
def fake(tmp_path, monkeypatch):
    install_engine(tmp_path / "site", "fake", FAKE, monkeypatch)

    def file(word):
        path = tmp_path / f"{word.replace(' ', '-')}.bin"
        path.write_text(word)
        return path

    return file


def opened(process, path):
    return process.open(path, 1, 4, None)


def test_model_runs_and_is_timed_in_the_other_process(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(sums_model())
    with TrialProcess("onnxruntime") as process:
        assert process.forms() == ("ort-u8", "fp32")
        engine = opened(process, path)
        assert [one.tolist() for one in engine.run(BATCH)] == [[[3, 12], [21, 30]], [[6, 24], [42, 60]]]
        assert engine.inputs == [["image"]]
        assert engine.library.startswith("onnxruntime ")
        for on_cpu in (None, 0, 1):
            taken_ms = engine.time_ms(BATCH, 5, on_cpu=on_cpu)
            assert len(taken_ms) == 5
            assert all(ms >= 0 for ms in taken_ms)
        with pytest.raises(EngineError, match="found a float32 batch"):
            engine.run(BATCH.astype(np.float32))
        assert len(engine.run(BATCH)) == 2


def test_damaged_model_is_an_error_and_the_process_goes_on(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    (tmp_path / "good.onnx").write_bytes(sums_model())
    with TrialProcess("onnxruntime") as process:
        with pytest.raises(EngineError, match=r"bad\.onnx: ONNX Runtime cannot load it"):
            opened(process, tmp_path / "bad.onnx")
        assert opened(process, tmp_path / "good.onnx").run(BATCH)


def test_engine_that_is_not_installed_says_so():
    with (
        TrialProcess("hailo") as process,
        pytest.raises(EngineError, match="engine hailo: no installed package offers it"),
    ):
        process.forms()


def test_crash_loses_only_the_engine_that_crashed(fake):
    with TrialProcess("fake") as process:
        assert process.forms() == ("fake-form",)
        good = opened(process, fake("good"))
        with pytest.raises(EngineError, match="engine fake: its process ended with signal SIGABRT"):
            opened(process, fake("crash"))
        assert good.run(BATCH)[0].tolist() == [[3, 12], [21, 30]]  # loaded again
        later = opened(process, fake("crash later"))
        with pytest.raises(EngineError, match="SIGABRT"):
            later.run(BATCH)
        assert good.time_ms(BATCH, 1)


def test_back_end_that_crashes_three_times_gets_no_more(fake):
    with TrialProcess("fake") as process:
        for _ in range(3):
            with pytest.raises(EngineError, match="SIGABRT"):
                opened(process, fake("crash"))
        with pytest.raises(EngineError, match="its process ended 3 times"):
            opened(process, fake("good"))


def test_hang_is_ended_and_the_back_end_gets_no_more(fake):
    with TrialProcess("fake", limit_s=3.0) as process:
        process.forms()
        with pytest.raises(EngineError, match=r"its process did not answer within 3 s"):
            opened(process, fake("hang"))
        with pytest.raises(EngineError, match="its process ended"):
            opened(process, fake("good"))


def test_plug_in_that_raises_is_an_engine_error_with_its_words(fake):
    with TrialProcess("fake") as process, pytest.raises(EngineError, match=r"engine fake: ValueError: no such chip"):
        opened(process, fake("raise"))


def test_what_a_library_prints_is_not_an_answer(fake):
    with TrialProcess("fake") as process:
        assert opened(process, fake("noise")).run(BATCH)[0].shape == (2, 2)


@pytest.mark.parametrize(
    "data",
    [
        b"hello\n",
        b'{"arrays": [["O", [1]]]}\n12345678',
        b'{"arrays": [["f", [-1]]]}\n',
        b'{"arrays": [["f", [1000000, 1000000]]]}\n',
    ],
)
def test_answer_that_is_no_message_is_refused(tmp_path, data):
    (tmp_path / "answer").write_bytes(data)
    with (tmp_path / "answer").open("rb") as file, pytest.raises((ValueError, KeyError)):
        receive(file)


def test_message_arrives_as_it_was_sent(tmp_path):
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((0, 4), np.uint8), np.array(True)]
    with (tmp_path / "pipe").open("w+b") as file:
        send(file, {"do": "run"}, arrays)
        file.seek(0)
        header, found = receive(file)
        assert receive(file) is None
    assert header["do"] == "run"
    for sent, got in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(sent, got)
        assert sent.dtype == got.dtype


def test_message_that_is_cut_off_is_the_end(tmp_path):
    with (tmp_path / "pipe").open("w+b") as file:
        send(file, {}, [np.zeros(100)])
        file.truncate(200)
        file.seek(0)
        assert receive(file) is None
