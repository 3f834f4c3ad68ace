"""CSV tables: delimiters, encodings, quotes and broken rows."""

from __future__ import annotations

import pytest

from dataset_formats.csv_table import read_table
from edge.errors import DataError


def table(folder, text: str | bytes):
    file = folder / "t.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(file)


def values(read) -> list[list[str]]:
    return [list(row.values()) for _, row in read.rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiter_is_the_one_of_the_header(tmp_path, delimiter):
    text = delimiter.join(["path", "item"]) + "\n" + delimiter.join(["a.png", '"x,y;z\tw"']) + "\n"
    assert values(table(tmp_path, text)) == [["a.png", "x,y;z\tw"]]


def test_delimiter_in_a_quoted_column_name_does_not_count(tmp_path):
    assert table(tmp_path, '"path";"a,b,c,d"\n').columns == ["path", "a,b,c,d"]


def test_first_line_of_excel_states_the_delimiter(tmp_path):
    read = table(tmp_path, "sep=;\r\npath;item\r\na.png;x\r\n")
    assert (read.columns, read.rows) == (["path", "item"], [(3, {"path": "a.png", "item": "x"})])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_encodings_are_read(tmp_path, encoding):
    assert values(table(tmp_path, "path\nKäse.png\n".encode(encoding))) == [["Käse.png"]]


def test_windows_1252_is_refused_with_its_line(tmp_path):
    with pytest.raises(DataError, match=r"line 3: byte 0xe4 .* reads 'K\xe4se"):
        table(tmp_path, "path\na\nKäse\n".encode("cp1252"))


def test_column_names_lose_case_and_blanks(tmp_path):
    assert table(tmp_path, 'Path, Split ,"ITEM"\n').columns == ["path", "split", "item"]


def test_values_lose_the_blanks_around_them(tmp_path):
    assert values(table(tmp_path, 'path, item\na.png ,  "x, y"\n')) == [["a.png", "x, y"]]


def test_blank_rows_are_skipped_and_lines_still_count(tmp_path):
    read = table(tmp_path, "\n\npath,item\n\n,,\na.png,x\n  ,\n")
    assert (read.rows, read.left_out) == ([(6, {"path": "a.png", "item": "x"})], [])


def test_value_may_hold_a_line_end_and_quotes(tmp_path):
    read = table(tmp_path, 'path,item\r\na.png,"say ""hi""\r\nthere"\r\nb.png,y\r\n')
    assert [line for line, _ in read.rows] == [2, 4]
    assert values(read)[0] == ["a.png", 'say "hi"\r\nthere']


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_all_line_ends_are_read(tmp_path, ending):
    assert values(table(tmp_path, ending.join(["path", "a.png", "b.png"]))) == [["a.png"], ["b.png"]]


def test_row_with_surplus_values_is_left_out(tmp_path):
    read = table(tmp_path, "path,item\na.png,red, ripe\nb.png,x,,\n")
    assert read.left_out == [
        f"{tmp_path}/t.csv: line 2: has 3 values for 2 columns; put a value that holds ',' in quotes"
    ]
    assert values(read) == [["b.png", "x"]]


def test_row_with_missing_values_has_empty_ones(tmp_path):
    assert values(table(tmp_path, "path,item,label\na.png,x\n")) == [["a.png", "x", ""]]


@pytest.mark.parametrize("broken", ['"a.png,x', '"a"b.png,x', '"a.png,' + "x" * 200_000, 'a.png,"say \\"hi\\""'])
def test_broken_quotes_spoil_one_row_only(tmp_path, broken):
    read = table(tmp_path, f'path,item\n{broken}\nb.png,"y"\nc.png,z\n')
    assert values(read) == [["b.png", "y"], ["c.png", "z"]]
    assert len(read.left_out) == 1
    assert "line 2: broken quotes or too long a value" in read.left_out[0]


def test_column_that_occurs_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"has the columns \['item'\] twice"):
        table(tmp_path, "path,item, Item\n")


@pytest.mark.parametrize("text", ["", "\n \n", '"path\n', "sep=,\n"])
def test_file_without_a_header_is_refused(tmp_path, text):
    with pytest.raises(DataError, match=r"t\.csv"):
        table(tmp_path, text)


def test_nameless_columns_are_not_required_to_differ(tmp_path):
    read = table(tmp_path, ",path,\n0,a.png,\n")
    assert read.rows[0][1]["path"] == "a.png"


def test_missing_columns_are_named_beside_those_there(tmp_path):
    with pytest.raises(DataError, match=r"lacks the columns \['item'\]; it has \['path', 'split'\], separated by"):
        table(tmp_path, "path,split\n").require("path", "item")
