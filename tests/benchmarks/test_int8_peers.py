"""The comparison with other tools that quantise."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.int8_peers import agreement, in_process

WANT = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]])


def test_equal_outputs_agree_wholly():
    assert agreement(WANT, WANT, None, None, None) == {"cosine_mean": 1.0, "cosine_p1": 1.0, "same_answer": 1.0}


def test_classifier_agrees_by_its_top_class():
    got = np.array([[0.4, 0.6], [0.0, 1.0], [1.0, 0.1]])
    row = agreement(WANT, got, None, None, None)
    assert row["same_answer"] == pytest.approx(2 / 3, abs=1e-4)
    assert row["cosine_p1"] < row["cosine_mean"] < 1


def test_embedder_agrees_by_the_nearest_item_of_each_forms_own_gallery():
    gallery = np.array([[1.0, 0.0], [0.0, 1.0]])
    items = (np.zeros(2), ["red", "blue"])
    assert agreement(WANT, WANT, gallery, gallery, items)["same_answer"] == 1.0
    assert agreement(WANT, WANT, gallery, gallery[::-1], items)["same_answer"] == 0.0


def test_tool_that_is_not_installed_is_skipped_with_its_reason(tmp_path, monkeypatch):
    np.save(tmp_path / "pictures.npy", np.zeros((1, 2)))
    (tmp_path / "nncf.py").write_text("raise ImportError('No module named nncf')")
    monkeypatch.setenv("NNCF_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    row = in_process("nncf", Path("model.onnx"), tmp_path / "pictures.npy", tmp_path / "out.onnx")
    assert row == {
        "skipped": "nncf is not installed here (No module named nncf); see NNCF_PYTHON at the top of this file"
    }
