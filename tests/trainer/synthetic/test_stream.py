"""The stream: objects stay in the frame, and the same seed gives the same bytes."""

from __future__ import annotations

import hashlib

from trainer.synthetic.items import catalogue
from trainer.synthetic.stream import stream

ITEMS = catalogue()


def test_stream_objects_stay_inside_the_frame() -> None:
    seen: dict[int, tuple[str, list[int]]] = {}
    for frame in stream(3, ITEMS, 160, 96, fps=5, seconds=6):
        assert frame.image_rgb.shape == (96, 160, 3)
        for one in frame.objects:
            item_id, frames = seen.setdefault(one.object_id, (one.item_id, []))
            frames.append(frame.index)
            x0, y0, x1, y1 = one.box_px
            assert item_id == one.item_id
            assert 0 <= x0 < x1 <= 160
            assert 0 <= y0 < y1 <= 96
            assert 0 < one.visible_fraction <= 1
    assert len(seen) >= 6
    assert {"car"} < {item_id.split("-")[0] for item_id, _ in seen.values()}
    for _, frames in seen.values():  # an object passes once
        assert frames[-1] - frames[0] < 5 * 4


def test_same_seed_gives_the_same_stream() -> None:
    first, second = (
        hashlib.sha256(b"".join(frame.image_rgb.tobytes() for frame in stream(4, ITEMS, 160, 96, 3, 2))).hexdigest()
        for _ in range(2)
    )
    assert first == second
