"""What `learn` remembers of earlier runs."""

from __future__ import annotations

import json

import pytest

from learn.memory import Memory, read_memory, write_memory
from learn.plan import Plan

MEMORY = Memory("photos", Plan("trained", 128, 96, 9, 11, "it fits"), "bundle", 3, ("ein Schlüssel fehlt",))


def test_memory_is_read_as_written(tmp_path):
    for memory in (MEMORY, Memory()):
        write_memory(tmp_path / "learn.json", memory)
        assert read_memory(tmp_path / "learn.json") == memory


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "{" * 99_999,
        json.dumps({"learned_from": "", "plan": {"px": 1}, "packed_from": "", "sequence": 0, "warnings": []}),
        json.dumps({"learned_from": "", "plan": None, "packed_from": "", "sequence": "x", "warnings": []}),
    ],
)
def test_damaged_memory_is_none(tmp_path, text):
    (tmp_path / "learn.json").write_text(text)
    assert read_memory(tmp_path / "learn.json") == read_memory(tmp_path / "missing.json") == Memory()
