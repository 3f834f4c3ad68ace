"""Cached proposals are used only for exactly the same picture and settings."""

from __future__ import annotations

import numpy as np

from trainer.labelling.cue_cache import CUE_CACHE_FILE, CueCache
from trainer.labelling.proposals import Proposal

SEEN = [Proposal((1.0, 2.0, 3.0, 4.0), 0.5, "proposer", {"edge": 0.25})]
PICTURE = np.full((8, 8, 3), 7, np.uint8)


def test_later_run_finds_cached_proposals(tmp_path):
    CueCache(tmp_path, "a").put("x.png", PICTURE, SEEN)
    assert CueCache(tmp_path, "a").get("x.png", PICTURE) == SEEN


def test_other_picture_or_setting_misses_the_cache(tmp_path):
    CueCache(tmp_path, "a").put("x.png", PICTURE, SEEN)
    assert CueCache(tmp_path, "a").get("x.png", PICTURE + 1) is None
    assert CueCache(tmp_path, "a").get("y.png", PICTURE) is None
    assert CueCache(tmp_path, "b").get("x.png", PICTURE) is None


def test_truncated_cache_line_is_ignored(tmp_path):
    kept = CueCache(tmp_path, "a")
    kept.put("x.png", PICTURE, SEEN)
    kept.put("y.png", PICTURE, [])
    path = tmp_path / CUE_CACHE_FILE
    path.write_text(path.read_text()[:-4])
    again = CueCache(tmp_path, "a")
    assert again.get("y.png", PICTURE) is None
    again.put("y.png", PICTURE, [])
    last = CueCache(tmp_path, "a")
    assert (last.get("x.png", PICTURE), last.get("y.png", PICTURE)) == (SEEN, [])
