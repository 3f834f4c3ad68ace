import json

import pytest

from edge.errors import TrainError
from trainer.tables.fill import fill_table
from trainer.tables.table import Request, Table


def table_of(measured, *, seeded=True):
    """A table of two rows; notes what was measured."""

    def measure(request, method, seed, folder):
        measured.append((method, seed))
        return {"R@1": 0.5 + 0.1 * seed + (0.2 if method == "b" else 0.0)}

    return Table("toy", "A source, Table 1", "Rows.", "pictures", ["R@1"], lambda _: ["a", "b"], measure, seeded)


def test_mean_and_interval_over_seeds(tmp_path):
    report = fill_table(table_of([]), Request(tmp_path, tmp_path / "out"), [0, 1, 2], None)
    found = report["rows"][1]["measures"]["R@1"]
    assert found["mean"] == pytest.approx(0.8)
    assert found["sd"] == pytest.approx(0.1)
    assert found["interval"] == pytest.approx([0.8 - 4.30 * 0.1 / 3**0.5, 0.8 + 4.30 * 0.1 / 3**0.5])
    assert report == json.loads((tmp_path / "out/table.json").read_text())
    assert "| b | 3 | 0.800 ± 0.100 |" in (tmp_path / "out/table.md").read_text()


def test_a_stopped_table_goes_on_where_it_was(tmp_path):
    measured = []
    request = Request(tmp_path, tmp_path / "out")
    fill_table(table_of(measured), request, [0], ["a"])
    fill_table(table_of(measured), request, [0, 1], None)
    assert measured == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_a_table_without_chance_is_measured_once(tmp_path):
    measured = []
    fill_table(table_of(measured, seeded=False), Request(tmp_path, tmp_path / "out"), [3, 4], None)
    assert measured == [("a", 3), ("b", 3)]


def test_rows_of_two_requests_are_not_mixed(tmp_path):
    out = tmp_path / "out"
    fill_table(table_of([]), Request(tmp_path, out), [0], None)
    with pytest.raises(TrainError, match="another folder"):
        fill_table(table_of([]), Request(tmp_path, out, epochs=3), [0], None)


def test_unknown_row_is_refused(tmp_path):
    with pytest.raises(TrainError, match="choose from a, b"):
        fill_table(table_of([]), Request(tmp_path, tmp_path / "out"), [0], ["c"])
