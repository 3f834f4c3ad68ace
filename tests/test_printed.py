"""The rule for what an output may differ in from the one that a page prints."""

from __future__ import annotations

import pytest

from tests.printed import Block, blocks_of, first_that_differs

DEMO = """
  time  camera   event  item          score  latency
  0.1s  shelf    new    Pop cola       0.99     7 ms
  ...
 19.3s  shelf    new    Corvid estate  0.96     7 ms
events published 63 of 63, dropped 0
objects 30: right 30 -> 100.0% identified correctly
gallery fc16ceb6da75d0ab, {"top": […]}
"""
CAME = """setup: installed
  time  camera   event  item          score  latency
  0.1s  shelf    new    Pop cola       0.97    41 ms
  0.2s  shelf    new    Volt energy    0.97    41 ms
 19.3s  shelf    new    Corvid estate  0.92   1.5 ms

events published 63 of 63, dropped 0
objects 30: right 30 -> 96.7% identified correctly
gallery 0123456789abcdef, {"top": [1, 2]}
demo passed
"""


def test_times_ids_gaps_and_small_differences_do_not_count():
    assert first_that_differs(DEMO, CAME) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("63 of 63", "62 of 62"),  # a count
        ("right 30", "right 29"),
        ("Pop cola", "Pop colas"),
        ("0.97    41 ms\n  0.2s", "0.93    41 ms\n  0.2s"),  # a score
        ("96.7%", "94.9%"),
        ("score  latency", "score"),
        ("events published 63 of 63, dropped 0\n", ""),
        ("estate  0.92   1.5 ms\n", "estate  0.92   1.5 ms\nwarning\n"),  # a line between two that are printed together
    ],
)
def test_what_changed_is_told(old, new):
    assert CAME.count(old) == 1
    told = first_that_differs(DEMO, CAME.replace(old, new))
    assert told is not None
    assert told.startswith("printed: ")


def test_line_that_differs_is_told_with_what_came():
    told = first_that_differs("a 1\nb 2\n", "a 1\nb 3\n")
    assert told == "printed: b 2\ncame: b 3"


def test_empty_output_is_told():
    assert first_that_differs("a\n", "") == "printed: a\ncame: "


def test_order_counts():
    assert first_that_differs("a\n...\nb\n", "b\na\n") is not None


def test_text_block_belongs_to_the_commands_before_it(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```none\ntree\n```\n```sh\none\n```\n\nIt prints:\n\n```text\n1\n```\n```sh\ntwo\n```\n"
        "```console\n$ a \\\n  b\n```\n```text\n3\n```\n"
        "```sh\ncat > a.yaml <<'YAML'\na: 1\nYAML\n```\n"
    )
    assert blocks_of(page) == [
        Block("sh", "one\n", "1\n"),
        Block("sh", "two\n", None),
        Block("console", "a \\\n  b\n", "3\n"),
        Block("sh", "cat > a.yaml <<'YAML'\na: 1\nYAML\n", None),
    ]
