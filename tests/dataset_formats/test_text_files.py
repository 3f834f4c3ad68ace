"""Text in other encodings is read, or gives one error that says what to do."""

from __future__ import annotations

import codecs
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_formats.text_files import read_text, read_yaml
from edge.errors import DataError, FinesightError
from tests.dataset_formats import samples as layouts
from tests.dataset_formats.samples import picture
from tests.trainer.damaged import damaged_bytes, few_examples
from trainer.data.dataset import read_samples, read_scenes
from trainer.recipe import load_recipe

TABLE = "path,split,category,item\na.png,train,fromage,Gruyère\nb.png,train,fromage,Äpple\n"


def test_utf_16_of_either_byte_order_is_read(tmp_path):
    (tmp_path / "a").write_bytes(codecs.BOM_UTF16_BE + TABLE.encode("utf-16-be"))
    assert read_text(tmp_path / "a") == TABLE


def test_latin_1_is_rejected_with_line_and_text(tmp_path):
    (tmp_path / "a").write_bytes(TABLE.encode("latin-1"))
    with pytest.raises(DataError, match=r"a: line 2: byte 0xe8 .* reads 'a\.png,train,fromage,Gruyère'"):
        read_text(tmp_path / "a")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_byte_order_mark_is_rejected(tmp_path, encoding):
    (tmp_path / "index.csv").write_bytes(TABLE.encode(encoding))
    with pytest.raises(DataError, match="UTF-16 or UTF-32 without a byte order mark"):
        read_samples(tmp_path)


def test_broken_utf_16_is_rejected(tmp_path):
    (tmp_path / "a").write_bytes("ab".encode("utf-16")[:-1])
    with pytest.raises(DataError, match="is broken utf-16"):
        read_text(tmp_path / "a")


def test_yolo_names_and_recipe_may_have_a_byte_order_mark(tmp_path):
    picture(tmp_path / "images/a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_bytes("0 .5 .5 .5 .5".encode("utf-16"))
    (tmp_path / "classes.txt").write_bytes("Äpple\n".encode("utf-8-sig"))
    assert read_scenes(tmp_path, class_agnostic=False)[1] == ["Äpple"]
    (tmp_path / "r.yaml").write_bytes("kind: detector\nscenes: {train: a.json}\n".encode("utf-8-sig"))
    assert load_recipe(tmp_path / "r.yaml").kind == "detector"


def test_xml_in_its_declared_encoding_is_read(tmp_path):
    picture(tmp_path / "a.jpg")
    text = layouts.VOC.format(name="a", objects=layouts.OBJECT.format("Gruyère", 4, 2, 24, 12))
    head = '<?xml version="1.0" encoding="ISO-8859-1"?>'
    for data in ((head + text).encode("latin-1"), text.encode("utf-16"), text.encode("utf-8-sig")):
        (tmp_path / "a.xml").write_bytes(data)
        assert [s.item for s in read_samples(tmp_path)] == ["Gruyère"]
    (tmp_path / "a.xml").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.xml: not XML in its declared encoding"):
        read_samples(tmp_path)


@few_examples
@given(data=st.one_of(st.binary(max_size=40), *(damaged_bytes(TABLE.encode(e)) for e in ("utf-8", "utf-16", "utf-32"))))
def test_any_bytes_are_text_or_rejected(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    with contextlib.suppress(FinesightError):
        assert isinstance(read_text(tmp_path / "a"), str)


def test_deeply_nested_yaml_is_refused_at_once(tmp_path):
    (tmp_path / "a.yaml").write_text("names: " + "[" * 100_000)
    with pytest.raises(DataError, match="not YAML: nested too deeply"):
        read_yaml(tmp_path / "a.yaml")


def test_workbook_with_the_name_of_a_text_file_is_called_one(tmp_path):
    (tmp_path / "index.csv").write_bytes(b"PK\x03\x04" + bytes(50))
    with pytest.raises(DataError, match="Excel workbook; unpack it, or save it as CSV UTF-8"):
        read_text(tmp_path / "index.csv")


def test_error_of_yaml_is_one_line(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [tea, , jam]\n")
    with pytest.raises(DataError, match=r"\A[^\n]+line 1, column 14[^\n]*\Z"):
        read_yaml(tmp_path / "data.yaml")
