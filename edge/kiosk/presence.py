"""Tell whether something is in front of a kiosk's camera that is not part of its empty counter.

Rules this module keeps:
1. A place differs from the background by its edges and its colour, never by its brightness: auto exposure, slow light
   and soft shadows change brightness alone. Edges are ratios of neighbours; the tint of the whole picture is no colour.
2. The first picture that holds still is the background. Where nothing differs, the background follows the picture.
3. Something that was there at the start and is taken away leaves fewer edges than the background has there: the new
   picture is then the background at once, unless the old one has come back before. What stays in place unchanged for
   long, such as moved clutter, becomes background, too. Nobody holds a thing in the hand that still.
4. The latest few backgrounds are remembered: clutter that is put back, and what it hid, are no news.
5. A thing in the hand is never quite still, but it stays in one place. What passes does not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.imaging.pyramid import pyramid_of
from edge.types import FloatArray, Frame, Image

LEARN_S = 2.0  # a picture that holds still for this long can be the background
ABSORB_S = 60.0  # what stays in place for this long is part of the background

_SIZE = (96, 72)  # pixels of the compared picture
_DARK = 0.15  # of the mean brightness, added before ratios are taken: noise in the dark is no edge
_EDGE = 0.12  # difference of two edges, in logarithms of brightness
_EDGE_SHARE = 0.5  # the same as a share of the edges that are there: a picture of many edges is never quite the same
_COLOUR = 0.05  # difference of two colours, as shares of the brightness
_LEAST_AREA = 0.012  # share of the picture that differs where there is something
_STILL_AREA = 0.005  # the same where something moved
_FEWER_EDGES = 0.6  # of the background's, where something was taken away
_FOLLOW_S = 10.0  # time constant of the background where nothing differs
_REMEMBERED = 4  # backgrounds
_BLOCK = 8  # side in pixels of the blocks that a place is made of
_SAME_PLACE = 0.5  # blocks that two places share, of all blocks of both


@dataclass(frozen=True, slots=True)
class _View:
    """What a picture is compared by."""

    edges: FloatArray  # (2, rows, columns), across and down
    colour: FloatArray  # (2, rows, columns)
    has_returned: bool = False  # a background that was there again after something else


class PresenceDetector:
    """Watches the pictures of one camera, in order."""

    def __init__(self) -> None:
        self._backgrounds: deque[_View] = deque(maxlen=_REMEMBERED)  # newest last
        self._still: _View | None = None  # the view since which nothing has moved
        self._still_since_s = self._seen_s = 0.0
        self._place: NDArray[np.bool_] | None = None  # where something has been since _there_since_s
        self._there_since_s = 0.0

    def update(self, picture: Image | Frame, now_s: float) -> float | None:
        """Return since when something has been in one place before the background; None: nothing, or none is known yet.

        Args:
            picture: the next.
            now_s: monotonic time.
        """
        view = _view_of(picture)
        if not self._is_something(view, now_s):
            self._place = None
            return None
        place = _blocks(_changed(view, self._backgrounds[-1]))
        if self._place is None or (place & self._place).sum() < _SAME_PLACE * (place | self._place).sum():
            self._place, self._there_since_s = place, now_s
        return self._there_since_s

    def _is_something(self, view: _View, now_s: float) -> bool:
        if self._still is None or _changed(view, self._still).mean() > _STILL_AREA:
            self._still, self._still_since_s = view, now_s
        still_s, elapsed_s, self._seen_s = now_s - self._still_since_s, now_s - self._seen_s, now_s
        if not self._backgrounds:
            if still_s >= LEARN_S:
                self._backgrounds.append(view)
            return False
        known = next((b for b in reversed(self._backgrounds) if _changed(view, b).mean() < _LEAST_AREA), None)
        if known is not None:
            self._follow(known, view, elapsed_s)
            return False
        newest = self._backgrounds[-1]
        taken_away = still_s >= LEARN_S and not newest.has_returned and _has_fewer_edges(view, newest)
        if taken_away or still_s >= ABSORB_S:
            self._backgrounds.append(view)
            return False
        return True

    def _follow(self, known: _View, view: _View, elapsed_s: float) -> None:
        """Make a background the newest, and move it towards the view."""
        gain = min(1.0, max(0.0, elapsed_s) / _FOLLOW_S)
        moved = replace(
            known,
            has_returned=known.has_returned or self._place is not None,
            edges=known.edges + gain * (view.edges - known.edges),
            colour=known.colour + gain * (view.colour - known.colour),
        )
        self._backgrounds = deque((b for b in self._backgrounds if b is not known), maxlen=_REMEMBERED)
        self._backgrounds.append(moved)


def _view_of(picture: Image | Frame) -> _View:
    small = pyramid_of(picture).resized(*_SIZE).astype(np.float32)
    dark = _DARK * float(small.mean()) + 1.0
    brightness = np.log(small.mean(axis=2) + dark)
    edges = np.zeros((2, *brightness.shape), np.float32)
    edges[0, :, 1:] = np.diff(brightness, axis=1)
    edges[1, 1:] = np.diff(brightness, axis=0)
    red, green, blue = np.moveaxis(small, 2, 0)
    total = red + green + blue + 3 * dark
    return _View(edges, np.stack([(red - green) / total, (blue - green) / total]))


def _changed(view: _View, other: _View) -> NDArray[np.bool_]:
    """Return which pixels differ, (rows, columns)."""
    tint = view.colour - other.colour
    tint -= np.median(tint, axis=(1, 2), keepdims=True)  # the white balance of the whole picture
    edges = np.abs(view.edges - other.edges).max(axis=0)
    there = np.abs(other.edges).max(axis=0)
    return np.asarray((edges > _EDGE + _EDGE_SHARE * there) | (np.abs(tint).max(axis=0) > _COLOUR), np.bool_)


def _blocks(changed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which blocks have changed pixels, (rows, columns)."""
    rows, columns = changed.shape
    blocks = changed.reshape(rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK)
    return np.asarray(blocks.any(axis=(1, 3)), np.bool_)


def _has_fewer_edges(view: _View, background: _View) -> bool:
    """Return whether a view has clearly fewer edges than the background in the places where they differ."""
    changed = _changed(view, background)
    now, before = (float(np.abs(one.edges[:, changed]).sum()) for one in (view, background))
    return now < _FEWER_EDGES * before
