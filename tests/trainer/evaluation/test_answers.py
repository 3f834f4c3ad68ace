"""The answers that a report lists, for people to review."""

from __future__ import annotations

from pathlib import Path

from dataset_formats.records import Sample
from trainer.evaluation.answers import answers_of_queries, list_answers
from trainer.evaluation.open_set import QueryResult


def test_wrong_answers_come_first_and_the_surest_on_top():
    results = [
        QueryResult("a", True, "a", "a", 0.9, 0.98765),
        QueryResult("b", True, "a", "a", 0.5, 0.6),
        QueryResult("c", True, None, None, float("-inf")),
        QueryResult("d", False, "a", "a", 0.7, 0.8),
    ]
    queries = [
        Sample(Path(f"{one.true_item}.png"), "test", "tool", one.true_item, label=one.true_item.upper())
        for one in results
    ]
    found = list_answers(answers_of_queries(queries, results))
    assert [(one["item"], one["outcome"], one["nearest"]) for one in found] == [
        ("d", "wrong", "a"), ("b", "wrong", "a"), ("c", "unknown", ""), ("a", "right", "a"),
    ]  # fmt: skip
    assert (found[0]["path"], found[0]["label"]) == (str(Path("d.png").absolute()), "D")
    assert [one["probability"] for one in found] == [0.8, 0.6, None, 0.9877]
