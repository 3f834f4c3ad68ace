"""What cues saw is remembered for the very same picture and settings, and for nothing else."""

from __future__ import annotations

import numpy as np

from trainer.labelling.cue_cache import SIGHTINGS_FILE, Sightings
from trainer.labelling.proposals import Proposal

SEEN = [Proposal((1.0, 2.0, 3.0, 4.0), 0.5, "proposer", {"edge": 0.25})]
PICTURE = np.full((8, 8, 3), 7, np.uint8)


def test_what_was_kept_is_recalled_by_a_later_run(tmp_path):
    Sightings(tmp_path, "a").keep("x.png", PICTURE, SEEN)
    assert Sightings(tmp_path, "a").recall("x.png", PICTURE) == SEEN


def test_another_picture_or_setting_is_not_known(tmp_path):
    Sightings(tmp_path, "a").keep("x.png", PICTURE, SEEN)
    assert Sightings(tmp_path, "a").recall("x.png", PICTURE + 1) is None
    assert Sightings(tmp_path, "a").recall("y.png", PICTURE) is None
    assert Sightings(tmp_path, "b").recall("x.png", PICTURE) is None


def test_a_line_cut_off_by_a_kill_is_looked_at_again(tmp_path):
    kept = Sightings(tmp_path, "a")
    kept.keep("x.png", PICTURE, SEEN)
    kept.keep("y.png", PICTURE, [])
    path = tmp_path / SIGHTINGS_FILE
    path.write_text(path.read_text()[:-4])
    again = Sightings(tmp_path, "a")
    assert again.recall("y.png", PICTURE) is None
    again.keep("y.png", PICTURE, [])
    last = Sightings(tmp_path, "a")
    assert (last.recall("x.png", PICTURE), last.recall("y.png", PICTURE)) == (SEEN, [])
