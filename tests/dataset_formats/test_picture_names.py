"""Which picture a name means."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_formats.picture_names import NameIndex, PictureFinder, match_names, parts_of

KNOWN = ["shop/a.jpg", "yard/a.jpg", "yard/b.jpg", "café.jpg"]


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("yard/b.jpg", "yard/b.jpg"),
        ("yard\\a.jpg", "yard/a.jpg"),
        ("C:\\photos\\shop\\a.jpg", "shop/a.jpg"),
        ("/elsewhere/someone/set/images/yard/a.jpg", "yard/a.jpg"),
        ("./shop//a.jpg", "shop/a.jpg"),
        ("SHOP/A.JPG", "shop/a.jpg"),
        ("b.jpg", "yard/b.jpg"),
        (unicodedata.normalize("NFD", "café.jpg"), "café.jpg"),
    ],
)
def test_names_of_other_systems_match(name, picture):
    assert NameIndex(KNOWN).match(name) == [picture]


def test_a_name_of_two_pictures_matches_both_and_is_told():
    matches = match_names(["a.jpg"], NameIndex(KNOWN))
    assert matches.found == {}
    assert matches.problems["a.jpg"].startswith("2 pictures have this name")


@pytest.mark.parametrize("name", ["1a.jpg", "a.jp", "a", "ya.jpg", "", "..", "x/c.jpg"])
def test_a_part_of_a_name_matches_nothing(name):
    assert NameIndex(KNOWN).match(name) == []


def test_the_exact_path_keeps_a_picture_that_two_names_mean():
    matches = match_names(["other/b.jpg", "yard/b.jpg"], NameIndex(KNOWN))
    assert matches.found == {"yard/b.jpg": "yard/b.jpg"}
    assert matches.problems == {"other/b.jpg": "2 names mean yard/b.jpg (other/b.jpg, yard/b.jpg); keep one"}


def test_two_wrong_paths_of_one_picture_match_nothing():
    matches = match_names(["x/b.jpg", "y/b.jpg"], NameIndex(KNOWN))
    assert matches.found == {}
    assert set(matches.problems) == {"x/b.jpg", "y/b.jpg"}


def test_letter_case_decides_between_two_files():
    assert NameIndex(["a.JPG", "a.jpg"]).match("set/a.jpg") == ["a.jpg"]


@given(st.lists(st.text(max_size=8), max_size=6), st.lists(st.text(max_size=8), max_size=6))
def test_every_name_is_found_once_or_has_a_problem(names, known):
    matches = match_names(names, NameIndex(known))
    assert set(matches.found) | set(matches.problems) == set(names)
    assert not set(matches.found) & set(matches.problems)
    assert len(set(matches.found.values())) == len(matches.found)
    assert set(matches.found.values()) <= set(known)


@given(st.lists(st.text("abc.", min_size=1, max_size=3), min_size=1, max_size=4))
def test_cleaning_a_path_twice_changes_nothing(parts):
    once = parts_of("\\".join(parts))
    assert parts_of("/".join(once)) == once


def test_finder_prefers_its_places_and_searches_below(tmp_path):
    for name in ("images/a.jpg", "other/a.jpg", "deep/er/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    finder = PictureFinder([tmp_path / "images"], tmp_path)
    assert finder.find("a.jpg") == tmp_path / "images/a.jpg"
    assert finder.find("elsewhere\\b.jpg") == tmp_path / "deep/er/b.jpg"
    assert "not found in" in finder.find("gone.jpg")
    assert finder.find("") == "the name is empty"


def test_finder_names_two_candidates(tmp_path):
    for name in ("x/a.jpg", "y/a.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert "2 pictures below" in PictureFinder([tmp_path], tmp_path).find("z/a.jpg")


def test_a_name_that_no_file_can_have_is_not_found(tmp_path):
    finder = PictureFinder([tmp_path], tmp_path)
    assert "not found" in finder.find("a\0.jpg")
    assert "not found" in finder.find("x" * 5000 + ".jpg")
    assert "not found" in finder.find("\udcff.jpg")


def test_finder_does_not_follow_a_loop_of_links(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/again").symlink_to(tmp_path)
    assert "not found" in PictureFinder([tmp_path], tmp_path).find("gone.jpg")
