"""The benchmark for a machine with a GPU: parts that travel, and its measurements on the stand-in of TensorRT."""

import hashlib
import json
import tarfile

import numpy as np
import pytest

from benchmarks import tensorrt_gpu
from tests.fakes_tensorrt import installed
from tests.sample_models import sums_model

ROWS = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
EXPECTED = [ROWS.sum(axis=2).astype(np.float32), 2 * ROWS.sum(axis=2).astype(np.float32)]


@pytest.fixture
def load(tmp_path):
    """What a machine has unpacked: one model in two forms."""
    (tmp_path / "models").mkdir()
    for form in ("fp32", "ort-u8"):
        (tmp_path / f"models/sums.{form}.onnx").write_bytes(sums_model())
    np.savez(tmp_path / "models/sums.npz", ROWS, *EXPECTED)
    models = [{"name": "sums", "forms": ["fp32", "ort-u8", "fp16"], "rows": len(ROWS)}]
    (tmp_path / "models.json").write_text(json.dumps(models))
    return tmp_path


def test_report_holds_agreement_and_times(load, monkeypatch, capsys):
    monkeypatch.setattr(tensorrt_gpu, "RUNS", 3)
    with installed("11.4.0.106"):
        report = tensorrt_gpu.run(load, build_only=False)
    rows = report["models"]["sums"]
    assert set(rows) == {"fp32", "onnxruntime cpu fp32", "onnxruntime cpu ort-u8", "fp16"}
    for name in ("fp32", "onnxruntime cpu fp32"):
        assert (rows[name]["lowest_cosine"], rows[name]["relative_rms"]) == (1.0, 0.0)
        assert rows[name]["ms 1"] > 0
        assert rows[name]["ms 4"] > 0
    assert {"build_s", "load_s", "ms 1 graph", "ms 4 graph"} <= rows["fp32"].keys()
    assert "fp16" in rows["fp16"]["error"]  # its file is missing: a row, and the others go on
    assert report["tensorrt"] == "11.4.0.106"
    assert "sums" in capsys.readouterr().out


def test_agreement_tells_a_turned_row():
    turned = [one.copy() for one in EXPECTED]
    turned[0][2] = -turned[0][2]
    found = tensorrt_gpu.agreement(turned, EXPECTED)
    assert found["lowest_cosine"] == -1.0
    assert found["relative_rms"] > 0.5


@pytest.fixture
def parts(tmp_path):
    """An archive in three parts."""
    folder = tmp_path / "parts"
    folder.mkdir()
    (tmp_path / "models.json").write_text("[]")
    with tarfile.open(tmp_path / "archive", "w:xz") as tar:
        tar.add(tmp_path / "models.json", "models.json")
    data = (tmp_path / "archive").read_bytes()
    third = -(-len(data) // 3)
    pieces = {f"part-{i:02}": data[i * third : (i + 1) * third] for i in range(3)}
    for name, piece in pieces.items():
        (folder / name).write_bytes(piece)
    digests = {name: hashlib.sha256(piece).hexdigest() for name, piece in pieces.items()}
    (folder / tensorrt_gpu.PARTS).write_text(json.dumps(digests))
    return folder


def test_parts_come_in_any_order_and_are_joined_when_complete(parts, tmp_path, capsys):
    last = (parts / "part-01").rename(tmp_path / "kept")
    assert not tensorrt_gpu.join(parts, tmp_path / "work")
    assert "still without part-01" in capsys.readouterr().out
    last.rename(parts / "part-01")
    (parts / "part-00").unlink()
    assert tensorrt_gpu.join(parts, tmp_path / "work")
    assert (tmp_path / "work/load/models.json").read_text() == "[]"


def test_damaged_part_is_named_and_can_come_again(parts, tmp_path):
    good = (parts / "part-02").read_bytes()
    (parts / "part-02").write_bytes(good[:-1] + b"\x00")
    with pytest.raises(SystemExit, match="part-02 was damaged on the way; carry it again"):
        tensorrt_gpu.join(parts, tmp_path / "work")
    (parts / "part-02").write_bytes(good)
    assert tensorrt_gpu.join(parts, tmp_path / "work")
