"""File names for names in any script."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.file_names import distinct_file_names, file_name, hashed_file_name

PLAIN = ["bottle", "cola-0.5", "Granny-Smith", "_x", "-", "a.b_c-d", "7"]
OTHER = [
    "AM General", "Jus d'orange 1 l", "果汁", "عصير", "a/b", "..", ".", "", " leading blank", "tail ", "😀", "x" * 300,
    "a\\b", "a\0b", "é", unicodedata.normalize("NFD", "é"), "\udcff", "a~b",
]  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_plain_name_is_its_own_file_name(name):
    assert file_name(name) == name


def test_other_names_get_a_safe_name_of_their_own():
    names = [file_name(name) for name in OTHER]
    assert all(re.fullmatch(r"[a-z0-9-]{1,40}~[0-9a-f]{10}", name) for name in names)
    assert len(set(names)) == len(OTHER)


def test_file_name_is_stable():
    assert file_name("AM General") == "am-general~fa29e617c0"
    assert file_name("果汁") == "x~64c25f038c"


def test_names_that_differ_in_case_get_different_files():
    names = distinct_file_names(["Cola", "cola", "COLA", "tea", "Tea 1", "tea 1"])
    assert len({name.casefold() for name in names.values()}) == 6
    assert (names["cola"], names["tea"]) == ("cola", "tea")
    assert names["Cola"] == hashed_file_name("Cola")
    assert distinct_file_names(["Cola"]) == {"Cola": "Cola"}


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.sets(st.text(max_size=20), max_size=6))
def test_any_names_get_distinct_safe_files(names):
    files = distinct_file_names(names)
    assert len({file.casefold() for file in files.values()}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._~-]{0,79}", file) for file in files.values())
