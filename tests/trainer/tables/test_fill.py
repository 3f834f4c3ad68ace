import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge.errors import TrainError
from trainer.cli import main
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
    page = (tmp_path / "out/table.md").read_text()
    assert "| b | 3 | 0.800 ± 0.100 [0.552, 1.048] |" in page
    assert "backbone tf_efficientnet_lite0, weights package, pixels as published, epochs as published." in page


def test_a_stopped_table_goes_on_where_it_was(tmp_path):
    measured = []
    request = Request(tmp_path, tmp_path / "out")
    fill_table(table_of(measured), request, [0], ["a"])
    fill_table(table_of(measured), request, [0, 1], None)
    assert measured == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_a_row_that_fails_leaves_a_report_of_the_others(tmp_path):
    def fails(request, method, seed, folder):
        if method == "b":
            raise TrainError("b: no such weights")
        return table_of([]).measure(request, method, seed, folder)

    with pytest.raises(TrainError, match="no such weights"):
        fill_table(replace(table_of([]), measure=fails), Request(tmp_path, tmp_path / "out"), [0], None)
    report = json.loads((tmp_path / "out/table.json").read_text())
    assert [row["method"] for row in report["rows"]] == ["a"]
    assert "| a | 1 | 0.500 |" in (tmp_path / "out/table.md").read_text()


def test_rows_and_seeds_of_earlier_calls_stay(tmp_path):
    request = Request(tmp_path / "data", tmp_path / "out")
    fill_table(table_of([]), request, [0, 1], ["b"])
    report = fill_table(table_of([]), request, [2], ["a"])
    assert [(row["method"], row["seeds"]) for row in report["rows"]] == [("a", [2]), ("b", [0, 1])]


def test_rows_of_older_versions_are_read(tmp_path):
    """They did not note their machine, and their request not what the data held."""
    request = Request(tmp_path / "data", tmp_path / "out")
    fill_table(table_of([]), request, [0], ["a"])
    (request.runs / "a-0/measures.json").write_text('{"measures": {"R@1": 0.25}, "cpu_s": 3.5}')
    note = json.loads((tmp_path / "out/request.json").read_text())
    (tmp_path / "out/request.json").write_text(json.dumps({key: note[key] for key in note if key != "content"}))
    report = fill_table(table_of([]), request, [0], None)
    assert report["rows"][0]["measures"]["R@1"]["mean"] == 0.25
    assert "a machine that was not noted" in report["measured"]


def test_rows_of_changed_data_are_not_mixed(tmp_path):
    data, out = tmp_path / "data", tmp_path / "data/out"
    data.mkdir()
    (data / "1.jpg").write_bytes(b"a picture")
    for method in ("a", "b"):  # what the table itself writes into the folder is no change
        fill_table(table_of([]), Request(data, out), [0], [method])
    (data / "2.jpg").write_bytes(b"another")
    with pytest.raises(TrainError, match="pictures or labels were added or changed"):
        fill_table(table_of([]), Request(data, out), [1], None)


def test_a_first_try_that_measured_nothing_binds_nothing(tmp_path):
    def fails(*_):
        raise TrainError("not found; give a data set")

    with pytest.raises(TrainError, match="not found"):
        fill_table(replace(table_of([]), measure=fails), Request(tmp_path / "typo", tmp_path / "out"), [0], None)
    assert fill_table(table_of([]), Request(tmp_path / "data", tmp_path / "out"), [0], None)["rows"]


def test_rows_of_two_machines_are_named(tmp_path, monkeypatch):
    request = Request(tmp_path, tmp_path / "out")
    for machine, method in (("one CPU, 2 cores", "a"), ("another CPU, 4 cores", "b")):
        monkeypatch.setattr("trainer.tables.fill.machine_name", lambda name=machine: name)
        fill_table(table_of([]), request, [0], [method])
    report = fill_table(table_of([]), request, [0], None)
    assert [line.split(";")[0] for line in report["measured"]] == ["another CPU, 4 cores", "one CPU, 2 cores"]
    assert "and on one CPU, 2 cores" in (tmp_path / "out/table.md").read_text()


def test_a_table_without_chance_is_measured_once(tmp_path):
    measured = []
    fill_table(table_of(measured, seeded=False), Request(tmp_path, tmp_path / "out"), [3, 4], None)
    assert measured == [("a", 3), ("b", 3)]


def test_rows_of_two_requests_are_not_mixed(tmp_path):
    out = tmp_path / "out"
    fill_table(table_of([]), Request(tmp_path, out), [0], None)
    with pytest.raises(TrainError, match="another folder"):
        fill_table(table_of([]), Request(tmp_path, out, epochs=3), [0], None)


def test_a_folder_is_the_same_from_another_directory(tmp_path, monkeypatch):
    out, measured = tmp_path / "out", []
    fill_table(table_of(measured), Request(tmp_path / "data", out), [0], ["a"])
    monkeypatch.chdir(tmp_path)
    fill_table(table_of(measured), Request(Path("data"), out), [0], ["a"])
    assert measured == [("a", 0)]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(TrainError, match="another folder"):
        fill_table(table_of(measured), Request(Path("data"), out), [0], ["a"])


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"measures": '])
def test_a_damaged_row_is_named(tmp_path, content):
    request = Request(tmp_path, tmp_path / "out")
    fill_table(table_of([]), request, [0], ["a"])
    (request.runs / "a-0/measures.json").write_text(content)
    with pytest.raises(TrainError, match=r"a-0/measures\.json: is damaged; delete it"):
        fill_table(table_of([]), request, [0], ["a"])


def test_a_row_without_measures_is_refused(tmp_path):
    table = replace(table_of([]), measure=lambda *_: {})
    with pytest.raises(TrainError, match="a has nothing to measure; toy needs pictures"):
        fill_table(table, Request(tmp_path, tmp_path / "out"), [0], None)


def test_interval_of_many_seeds_is_students(tmp_path):
    report = fill_table(table_of([]), Request(tmp_path, tmp_path / "out"), range(16), ["a"])
    found = report["rows"][0]["measures"]["R@1"]
    half = found["interval"][1] - found["mean"]
    assert half == pytest.approx(2.131 * found["sd"] / 4, rel=1e-3)


@pytest.mark.parametrize(("flag", "value"), [("--pixels", "0"), ("--pixels", "31"), ("--epochs", "0")])
def test_sizes_that_no_recipe_takes_are_refused(tmp_path, capsys, flag, value):
    command = ["table", "scda", "--data", str(tmp_path), "-o", str(tmp_path / "out")]
    assert main([*command, flag, value]) == 1
    assert f"{flag}: found {value}; expected" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_row_is_refused(tmp_path):
    with pytest.raises(TrainError, match="choose from a, b"):
        fill_table(table_of([]), Request(tmp_path, tmp_path / "out"), [0], ["c"])
