"""Items that a picture may show, by the models of a device."""

from __future__ import annotations

from pathlib import Path

from edge.gallery.writer import GalleryWriter
from edge.types import Hit
from tests.edge.kiosk.kiosk_samples import scripted_models
from tests.fakes_engine import FixedIndex
from tests.store_samples import HEADS, SPACE, unit_rows
from tests.trainer.inbox.inbox_samples import jpeg
from trainer.inbox.proposals import Proposer
from trainer.inbox.state import Proposal, Taken

HITS = [
    Hit("c9", "Never named", 0.99, negative=True),
    Hit("c1", "Oat flakes", 0.9),
    Hit("c2", "Corn flakes", 0.4),
    Hit("c3", "Rice", 0.3),
    Hit("c4", "Wheat", 0.2),
]


def group(folder: Path, *names):
    for name in names:
        (folder / name).write_bytes(jpeg())
    found = [Taken(sha256="a", kind="unknown", group="g", device="d", id="", pictures=names, bits="0", thumb="0")]
    (folder / "damaged.jpg").write_bytes(b"x")
    return [found[0], found[0].model_copy(update={"pictures": ("damaged.jpg",)})]


def test_three_nearest_items_are_proposed_but_none_that_must_not_be_named(tmp_path):
    proposer = Proposer(scripted_models(indexes={"carton": FixedIndex(HITS)}), tmp_path)
    likeliest, proposals = proposer.propose(tmp_path, group(tmp_path, "a.jpg", "b.jpg"))
    assert likeliest == "carton"
    assert [(one.item, one.score) for one in proposals] == [("c1", 0.9), ("c2", 0.4), ("c3", 0.3)]


def test_proposal_shows_the_picture_of_its_item(tmp_path):
    with GalleryWriter(tmp_path, "carton", SPACE, HEADS) as writer:
        writer.add("c1", "Oat flakes", unit_rows(1), thumbnail=b"\xff\xd8\xff")
    proposer = Proposer(scripted_models(), tmp_path)
    near = Proposal(category="carton", item="c1", label="Oat flakes", score=0.5)
    assert proposer.thumbnail(near) == b"\xff\xd8\xff"
    assert proposer.thumbnail(near.model_copy(update={"item": "gone"})) is None
