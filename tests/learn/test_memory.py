"""What `learn` remembers of earlier runs."""

from __future__ import annotations

import json

import pytest

from learn.memory import Memory, read_memory, write_memory
from learn.plan import Plan, Speed
from learn.scene_plan import ScenePlan

PLAN, SCENE_PLAN = Plan("trained", 128, 96, 9, 11, "it fits"), ScenePlan(416, 320, 40, 128, 16, 20.0)
MEMORY = Memory("photos", PLAN, "scenes", SCENE_PLAN, Speed(0.1, 0.02), "bundle", ("ein Schlüssel fehlt",))


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
        json.dumps({"learned_from": "", "plan": {"px": 1}, "packed_from": "", "warnings": []}),
        json.dumps({"learned_from": "", "plan": None, "packed_from": "", "warnings": None}),
    ],
)
def test_damaged_memory_is_none(tmp_path, text):
    (tmp_path / "learn.json").write_text(text)
    assert read_memory(tmp_path / "learn.json") == read_memory(tmp_path / "missing.json") == Memory()
