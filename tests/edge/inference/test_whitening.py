"""The last step of an embedder: a map of its joint vectors."""

import numpy as np
import pytest

from edge.errors import EngineError
from edge.inference.open_models import read_whitening
from edge.inference.postprocess import WhiteningMap
from edge.inference.stages import Embedder
from edge.manifest.embedder import EmbedderModel, Head, Whitening
from edge.telemetry.timing import Timings
from tests.fakes_engine import ScriptedEngine, embedder_model

GREY = np.full((64, 64, 3), 100, np.uint8)
BOX = (0.0, 0.0, 40.0, 40.0)
MATRIX = np.array([[2.0, 0.5, 0.0], [0.0, 1.0, -1.0]], np.float32)
OFFSETS = np.array([[0.0, 0.25], [-1.0, 0.5]], np.float32)  # of photos, of plain pictures


def whitened_model(file: str = "models/e.whitening.bin") -> EmbedderModel:
    parts = [Head(name="class", dim=3)]
    return embedder_model(heads=[Head(name="whitened", dim=2)], whitening=Whitening(file=file, parts=parts))


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def vectors_of(batch):
    return [np.tile(np.float32([[3.0, 0.0, 4.0]]), (len(batch), 1))]


def test_vector_is_mapped_with_the_offset_of_its_side():
    embedder = Embedder(whitened_model(), ScriptedEngine(vectors_of), whitening=WhiteningMap(MATRIX, OFFSETS))
    joint = np.array([0.6, 0.0, 0.8])
    photo = embedder.embed(GREY, [BOX], Timings())
    plain = embedder.embed(GREY, [BOX], Timings(), plain=True)
    np.testing.assert_allclose(photo, [unit(MATRIX @ joint + OFFSETS[0])], atol=1e-6)
    np.testing.assert_allclose(plain, [unit(MATRIX @ joint + OFFSETS[1])], atol=1e-6)


def test_each_whole_picture_has_its_own_side():
    embedder = Embedder(whitened_model(), ScriptedEngine(vectors_of), whitening=WhiteningMap(MATRIX, OFFSETS))
    rows = embedder.embed_whole([GREY, GREY, GREY], Timings(), plain=[False, True, False])
    one = [embedder.embed(GREY, [(0.0, 0.0, 64.0, 64.0)], Timings(), plain=side)[0] for side in (False, True, False)]
    np.testing.assert_allclose(rows, one, atol=1e-6)


def test_file_holds_what_was_written(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/e.whitening.bin").write_bytes(WhiteningMap(MATRIX, OFFSETS).to_bytes())
    found = read_whitening(tmp_path, whitened_model())
    assert found is not None
    np.testing.assert_array_equal(found.matrix, MATRIX)
    np.testing.assert_array_equal(found.offsets, OFFSETS)
    assert read_whitening(tmp_path, embedder_model()) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "cannot read"),
        (b"1234", "found 4 bytes, expected 40 for 2 rows of 3"),
        (np.full(10, np.nan, "<f4").tobytes(), "not a number"),
    ],
)
def test_damaged_map_is_an_error(tmp_path, data, said):
    if data is not None:
        (tmp_path / "e.bin").write_bytes(data)
    with pytest.raises(EngineError, match=said):
        read_whitening(tmp_path, whitened_model("e.bin"))


def test_model_does_not_run_without_its_map():
    with pytest.raises(EngineError, match="needs its whitening"):
        Embedder(whitened_model(), ScriptedEngine(vectors_of))


def test_vector_at_the_mean_is_an_error():
    joint = np.float32([[0.6, 0.0, 0.8]])
    centred = WhiteningMap(MATRIX, np.tile(-joint @ MATRIX.T, (2, 1)), "here")
    with pytest.raises(EngineError, match="here: found an embedding of zeros"):
        centred.map(joint)
