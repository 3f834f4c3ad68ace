"""XML is read in the encoding that it declares, child by child; what cannot be read is named."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_formats.xml_files import escaped, read_children, root_tag
from edge.errors import DataError
from tests.trainer.damaged import few_examples

DECLARED = '<?xml version="1.0" encoding="{}"?>\n<annotation>\n<name>{}</name></annotation>'


def names(path, data: bytes) -> list[str | None]:
    path.write_bytes(data)
    return [node.text for node in read_children(path, "annotation")]


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("Shift_JIS", "缶"),
        ("EUC-JP", "缶"),
        ("ISO-2022-JP", "缶"),
        ("GBK", "罐"),
        ("gb18030", "罐"),
        ("EUC-KR", "캔"),
        ("Big5", "罐"),
        ("windows-1252", "Käse"),
        ("koi8-r", "банка"),
        ("cp874", "ยก"),
        ("utf-16", "缶"),
        ("utf-16-le", "缶"),
        ("utf-16-be", "缶"),
        ("utf-32", "缶"),
        ("utf-8-sig", "缶"),
        ("cp500", "can"),
    ],
)
def test_xml_is_read_in_its_declared_encoding(tmp_path, encoding, name):
    assert names(tmp_path / "a.xml", DECLARED.format(encoding, name).encode(encoding)) == [name]
    assert root_tag(tmp_path / "a.xml") == "annotation"


def test_utf16_without_a_mark_is_read_with_or_without_declaration(tmp_path):
    text = DECLARED.format("utf-16", "缶")
    for data in (text.encode("utf-16-be"), text.partition("\n")[2].encode("utf-16-le")):
        assert names(tmp_path / "a.xml", data) == ["缶"]


@pytest.mark.parametrize(
    ("declared", "encoding", "why"),
    [
        ("utf-8", "latin-1", "not XML in its declared encoding utf-8: line 3: byte 0xc4"),
        ("gbk", "latin-1", "not XML in its declared encoding gbk: line 3: byte 0xc4"),
        ("latin-1", "utf-8", "declares latin-1, but is UTF-8"),
        ("utf-16", "utf-8", "declares utf-16, but is not"),
        ("utf-8", "utf-16", "declares utf-8, but is utf-16"),
        ("gbk", "utf-8-sig", "declares gbk, but is utf-8-sig"),
        ("utf-99", "utf-8", "declares the encoding utf-99, which is unknown"),
        ("zip", "utf-8", "declares the encoding zip, which is unknown"),
        ("idna", "utf-8", "declares the encoding idna, which is unknown"),
    ],
)
def test_a_wrong_or_unknown_declaration_is_named(tmp_path, declared, encoding, why):
    with pytest.raises(DataError, match=why):
        names(tmp_path / "a.xml", DECLARED.format(declared, "Ä").encode(encoding))
    assert root_tag(tmp_path / "a.xml") == "annotation"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"<annotation>", "not XML: no element found"),
        (b"<annotations/>", "its root is <annotations>, expected <annotation>"),
        (b"<annotation><name>&#1;</name></annotation>", "not XML: reference to invalid character"),
        (b'<!DOCTYPE annotation [<!ENTITY a "b">]><annotation><name>&a;</name></annotation>', "declares entities"),
        (b'<!DOCTYPE annotation [<!ATTLIST a b CDATA "c">]><annotation/>', "declares entities"),
        (b'<!DOCTYPE annotation SYSTEM "a.dtd"><annotation><name>&a;</name></annotation>', "undefined entity"),
        (b"<annotation>" + b"<a>" * 500_000, "more than 64 deep"),
        (b"<annotation>" + b"<a>" * 500_000 + b"</a>" * 500_000 + b"</annotation>", "more than 64 deep"),
    ],
)
def test_what_is_no_xml_of_annotations_is_named(tmp_path, data, why):
    with pytest.raises(DataError, match=why):
        names(tmp_path / "a.xml", data)


def test_a_document_type_without_entities_is_read(tmp_path):
    assert names(tmp_path / "a.xml", b"<!DOCTYPE annotation><annotation><name>can</name></annotation>") == ["can"]


@pytest.mark.parametrize("opening", [b"<annotation><name>", b'<annotation><name a="', b"<!--"])
def test_an_endless_element_is_refused(tmp_path, opening):
    with pytest.raises(DataError, match="larger than 16 MiB"):
        names(tmp_path / "a.xml", opening + b"x" * (18 << 20))


def test_memory_does_not_grow_with_the_file(tmp_path):
    (tmp_path / "a.xml").write_bytes(b"<annotation>" + b"<name>can</name>" * 150_000 + b"</annotation>")
    tracemalloc.start()
    assert sum(1 for _ in read_children(tmp_path / "a.xml", "annotation")) == 150_000
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 << 20


def test_the_root_is_found_behind_comments_and_not_in_them(tmp_path):
    (tmp_path / "a.xml").write_text("<?xml version='1.0'?><!-- <annotation> --><!DOCTYPE x>\n<annotations></broken>")
    assert root_tag(tmp_path / "a.xml") == "annotations"
    (tmp_path / "a.xml").write_text("no <annotation>")
    assert root_tag(tmp_path / "a.xml") == ""
    assert root_tag(tmp_path / "absent.xml") == ""


@few_examples
@given(text=st.text(st.characters(blacklist_categories=("Cs",)), max_size=20))
def test_any_text_that_xml_can_hold_is_written_and_read(tmp_path, text):
    try:
        data = f"<annotation><name>{escaped(text, 'the name')}</name></annotation>"
    except DataError as error:
        assert "XML cannot hold" in str(error)  # noqa: PT017 only some texts raise
        assert any(ord(one) < 32 or ord(one) in (0xFFFE, 0xFFFF) for one in text)
    else:
        assert names(tmp_path / "a.xml", data.encode()) == [text or None]
