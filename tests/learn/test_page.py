"""The page that says how good a recogniser is: its words, its pictures, and no percentage of few photos."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dataset_formats.records import Sample
from learn.judge import Answer, Verdict
from learn.page import headline, render_page
from learn.plan import Photos
from tests.learn.test_photos import write_photo

PHOTOS = Photos(2, 3, 40, 0, 12)


def verdict(right, unknown, wrong, path=Path("none.jpg")):
    outcomes = ["right"] * right + ["unknown"] * unknown + ["wrong"] * wrong
    sample = Sample(path, "val", "fruit", "apple")
    answers = [Answer(sample, o, "pear" if o == "wrong" else "apple", category_right=True) for o in outcomes]  # type: ignore[arg-type]
    return Verdict(tuple(answers), 12.0)


def page(judged, advice=(), warnings=(), path=Path("none.jpg"), labels=("<Apple>", "Pear")):
    shown = {n: Sample(path, "train", "fruit", n, label) for n, label in zip(("apple", "pear"), labels, strict=True)}
    return render_page("Shop & co", PHOTOS, judged, "Trained.", list(advice), shown, list(warnings))


@pytest.mark.parametrize(("counts", "text"), [((50, 30, 20), "names 50 rightly"), ((10, 5, 5), "25")])
def test_many_held_out_photos_give_shares(counts, text):
    assert text in headline(verdict(*counts))
    assert "Of 100 photos" in headline(verdict(*counts))


def test_few_held_out_photos_give_counts_and_no_percentage():
    text = page(verdict(3, 2, 1))
    assert "Of 6 photos that it had not seen, it named 3 rightly" in text
    assert "too few photos for a percentage" in text
    assert not re.search(r"\d ?%", re.sub(r"<style>.*</style>", "", text, flags=re.DOTALL))


def test_nothing_held_out_says_that_nobody_knows():
    text = page(verdict(0, 0, 0))
    assert "nobody knows yet how good it is" in text
    assert "Worst confusions" not in text


def test_confusions_are_shown_as_pictures(tmp_path):
    write_photo(tmp_path / "a.jpg")
    text = page(verdict(20, 0, 3, tmp_path / "a.jpg"), path=tmp_path / "a.jpg")
    assert "&lt;Apple&gt; was taken for Pear, 3 times" in text
    assert text.count("<img") == 2


def test_names_and_advice_are_escaped():
    text = page(verdict(1, 0, 0), ["<b>: 1 photo"], ["a & b"])
    assert "Shop &amp; co" in text
    assert "&lt;b&gt;: 1 photo" in text
    assert "a &amp; b" in text
