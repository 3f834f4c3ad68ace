"""Held-out photos, asked of models whose answers are scripted."""

from __future__ import annotations

from pathlib import Path

from dataset_formats.records import Sample
from edge.types import Decision, Hit, Match
from learn import judge as judging
from tests.learn.toy_scenes import draw_scene

JAM = Decision(None, Match("jam", "Jam", 0.9, 0.5, None), None, (Hit("jam", "Jam", 0.9),))


def test_an_unreadable_photo_spoils_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "load_models", lambda *_: None)
    monkeypatch.setattr(judging, "recognise_image", lambda *_: JAM)
    draw_scene(tmp_path / "whole.jpg", 1)
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:200])
    samples = [Sample(tmp_path / f"{name}.jpg", "val", "food", "jam") for name in ("broken", "whole", "absent")]
    verdict = judging.judge(Path("bundle"), Path("gallery"), samples)
    assert (len(verdict.answers), verdict.count("right"), len(verdict.unreadable)) == (1, 1, 2)
    assert "broken.jpg" in verdict.unreadable[0]
    assert verdict.as_json()["unreadable"] == 2
