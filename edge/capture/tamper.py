"""Detect frozen and obstructed live cameras from their pictures.

Rules:
1. A camera is frozen when its pictures contain nothing new. A real camera's noise makes every key frame a new picture.
   Single pixels are compared exactly, because averages of them stay the same in a still scene, too.
2. Content seen shortly before is not new: an encoder that always gets the same picture repeats itself at every key
   frame. Motion always counts as new, however often it repeats: a clip played in a loop is not a frozen camera.
3. An encoder that holds a bit rate encodes the same picture in ever new qualities. Now and then it repeats a quality,
   and then the whole picture is exactly as before. Noise does not bring a picture back unless the encoder removes the
   noise. Such an encoder removes fine detail, too, so pictures without fine detail do not count.
4. Blocks without detail do not count: clipped black or white, or a wall that the encoder sends as one colour.
5. A few blocks near the upper or lower border may change in a frozen picture: a burnt-in clock. A larger one needs a
   mask.
6. A camera is obstructed when its picture is plain, or has lost its edges compared with this camera's usual pictures.
   The first such picture makes it suspected; it is obstructed when this lasts. The usual edges are learned slowly, so
   that dusk does not count as an obstruction.
7. A suspected picture is counted and not recognised. The camera stays online meanwhile: a hand passing the lens sends
   no status and ends no track.

A frozen camera stays undetected while its encoder never repeats itself, changes a block as much as motion does, or
leaves no fine detail. Measured with x264: rule 3 calls no still scene frozen whose noise is 0.15 grey levels or more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.config.schema import ViewConfig
from edge.imaging import image
from edge.types import Image

# measured on 1280x720, one busy core: 300 us a check, four checks a second; frames between two checks share a state
_INTERVAL_S = 0.25

_ROWS, _COLUMNS, _SIDE = 12, 16, 8  # blocks, and sampled pixels along each side of one
_DETAIL = 6  # grey levels between the darkest and the brightest sample of a block with detail
_MIN_DETAILED = 0.1  # share of all blocks that must have detail
_REMEMBERED = 64  # latest contents of a block
_MOVED = 8.0  # mean grey levels of a block: more than an encoder changes one picture by
_FINE = 2.0  # mean second difference of grey levels: an encoder that keeps this keeps noise
_MIN_CHANGED = 0.5  # share of all blocks that must have fine detail and have changed when a picture comes back
_MIN_REPEATS = 3  # exact repeats from which a picture counts as frozen
_PICTURES = 4096  # remembered, as a number each: 17 minutes
_CLOCK_BLOCKS = 4
_CLOCK_ROWS = 2  # from the upper and from the lower border

_SMALL = (64, 36)  # pixels
_SAMPLED_PX = 180  # sampled along the shorter side, at least; enough to shrink to _SMALL
_PLAIN, _NOT_PLAIN = 4.0, 6.0  # standard deviation of grey levels
_LOST, _FOUND = 0.15, 0.3  # edges, relative to the usual edges
_KNOWN_S = 30.0  # of pictures, before the usual edges are known
_LEARNED_S = 600.0  # time constant of learning
_RELEARNED_S = 3600.0  # the same while obstructed: a camera turned to another scene recovers by itself

_Digests = NDArray[np.uint64]
_Blocks = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TamperState:
    """Whether a camera is frozen or obstructed, and whether its latest picture may be recognised."""

    state: Literal["online", "frozen", "obstructed"]
    suspected: Literal["frozen", "obstructed"] | None = None  # None: the picture may be recognised
    reason: str = ""


class TamperDetector:
    """Checks the pictures of one camera, in order."""

    def __init__(self, config: ViewConfig) -> None:
        self._obstructed_after_s = config.obstructed_after_s
        self._freeze = None if config.frozen_after_s is None else _FreezeDetector(config.frozen_after_s, config.mask)
        self._obstruction = _ObstructionDetector()
        self.reset()

    def reset(self) -> None:
        """Expect the pictures of a newly opened source; the camera's usual edges stay known."""
        self._latest = TamperState("online")
        self._checked_s = float("-inf")
        self._suspected_since_s: float | None = None
        if self._freeze is not None:
            self._freeze.reset()

    def update(self, image_rgb: Image, now_s: float) -> TamperState:
        """Check the next picture; return the camera's state.

        Args:
            image_rgb: the picture.
            now_s: when it was taken; a time before the last one resets the detector.
        """
        if 0 <= now_s - self._checked_s < _INTERVAL_S:
            return self._latest
        if now_s < self._checked_s:
            self.reset()
        elapsed_s = now_s - self._checked_s if np.isfinite(self._checked_s) else 0.0
        self._checked_s = now_s
        self._latest = self._check_obstructed(image_rgb, elapsed_s, now_s) or self._check_frozen(image_rgb, now_s)
        return self._latest

    def _check_obstructed(self, image_rgb: Image, elapsed_s: float, now_s: float) -> TamperState | None:
        if self._obstructed_after_s is None:
            return None
        reason = self._obstruction.update(image_rgb, elapsed_s)
        if reason is None:
            self._suspected_since_s = None
            return None
        self._suspected_since_s = now_s if self._suspected_since_s is None else self._suspected_since_s
        lasting = now_s - self._suspected_since_s >= self._obstructed_after_s
        # the state changes once the suspicion has lasted; no picture is recognised from the first suspected one on
        return TamperState("obstructed", "obstructed", reason) if lasting else TamperState("online", "obstructed")

    def _check_frozen(self, image_rgb: Image, now_s: float) -> TamperState:
        reason = self._freeze.update(image_rgb, now_s) if self._freeze is not None else None
        return TamperState("frozen", "frozen", reason) if reason is not None else TamperState("online")


class _FreezeDetector:
    """Detects pictures that contain nothing new."""

    def __init__(self, after_s: float, mask: tuple[tuple[float, float, float, float], ...]) -> None:
        self._after_s = after_s
        self._watched = ~_masked_blocks(mask)
        self._repeat_detector = _RepeatDetector(after_s, self._watched)
        # a digest of a block is the sum of its samples times fixed odd numbers, modulo 2^64
        numbers = np.random.default_rng(0).integers(0, 2**63, (_ROWS, _SIDE, _COLUMNS, _SIDE), dtype=np.uint64)
        self._numbers = numbers * np.uint64(2) + np.uint64(1)
        self._block = np.indices((_ROWS, _COLUMNS))
        self.reset()

    def reset(self) -> None:
        """Forget earlier pictures."""
        self._recent: _Digests = np.zeros((_REMEMBERED, _ROWS, _COLUMNS), np.uint64)
        self._oldest = np.zeros((_ROWS, _COLUMNS), np.int64)
        self._new_s = np.full((_ROWS, _COLUMNS), -np.inf)
        self._before: NDArray[np.int16] | None = None  # samples of the last check
        self._repeat_detector.reset()

    def update(self, image_rgb: Image, now_s: float) -> str | None:
        """Return why the picture counts as frozen; None when it is not frozen, or that cannot be known."""
        samples = _sampled(image_rgb)
        digests = np.asarray((samples * self._numbers).sum(axis=(1, 3)), np.uint64)
        new = ~(self._recent == digests).any(axis=0)
        self._recent[self._oldest[new], self._block[0][new], self._block[1][new]] = digests[new]
        self._oldest[new] = (self._oldest[new] + 1) % _REMEMBERED
        self._new_s[new | self._moved(samples)] = now_s

        detailed = self._watched & (samples.max(axis=(1, 3)) - samples.min(axis=(1, 3)) >= _DETAIL)
        repeated_s = self._repeat_detector.still_s(samples, digests, now_s)
        if repeated_s is not None:
            return f"the same picture, encoded again and again, for {repeated_s:.0f} s"
        if detailed.sum() < _MIN_DETAILED * detailed.size:
            return None
        changing = detailed & (now_s - self._new_s < self._after_s)
        if changing.any() and not _may_be_clock(changing):
            return None
        still = detailed & ~changing
        if not still.any():
            return None
        still_s = now_s - self._new_s[still].max()
        clock = f", except {changing.sum()} near the border that may be a clock" if changing.any() else ""
        return f"nothing new for {still_s:.0f} s in {still.sum()} blocks with detail{clock}"

    def _moved(self, samples: NDArray[np.uint8]) -> _Blocks:
        """Return which blocks changed by much since the last check, (rows, columns)."""
        before, self._before = self._before, samples.astype(np.int16)
        return _differ(samples, self._before if before is None else before)


class _RepeatDetector:
    """Measures for how long the whole picture has kept repeating exactly, without motion."""

    def __init__(self, after_s: float, watched: _Blocks) -> None:
        self._after_s = after_s
        self._watched = watched
        self._inner = watched.copy()  # without the rows that may hold a clock
        self._inner[:_CLOCK_ROWS] = self._inner[-_CLOCK_ROWS:] = False
        self.reset()

    def reset(self) -> None:
        """Forget earlier pictures."""
        self._reference: NDArray[np.int16] | None = None  # samples of the picture since which nothing has moved
        self._before: _Digests = np.zeros((_ROWS, _COLUMNS), np.uint64)
        self._first_s: dict[int, float] = {}  # when a picture was first seen
        self._since_s = self._until_s = float("-inf")  # first and last time of the same picture
        self._repeats = 0  # counted towards _MIN_REPEATS

    def still_s(self, samples: NDArray[np.uint8], digests: _Digests, now_s: float) -> float | None:
        """Return for how long only the encoder has changed the picture; None when that is unknown, or too short."""
        if self._reference is None or self._has_moved(samples, self._reference):
            self.reset()
            self._reference = samples.astype(np.int16)
        changed = self._inner & (digests != self._before)
        self._before = digests
        picture = int(digests[self._inner].sum())
        first_s = self._first_s.setdefault(picture, now_s)
        if len(self._first_s) > _PICTURES:
            del self._first_s[next(iter(self._first_s))]
        if first_s < now_s and (changed & _has_fine(samples)).sum() >= _MIN_CHANGED * self._inner.sum() > 0:
            if first_s > self._until_s:
                self._since_s, self._repeats = first_s, 0
            self._since_s = min(self._since_s, first_s)
            self._until_s = now_s
            self._repeats += 1
        has_repeated = self._repeats >= _MIN_REPEATS and self._until_s - self._since_s >= self._after_s
        return now_s - self._since_s if has_repeated and now_s - self._until_s < self._after_s else None

    def _has_moved(self, samples: NDArray[np.uint8], reference: NDArray[np.int16]) -> bool:
        moved = self._watched & _differ(samples, reference)
        return bool(moved.any()) and not _may_be_clock(moved)


class _ObstructionDetector:
    """Detects pictures that are plain or have lost their edges."""

    def __init__(self) -> None:
        self._usual_edges = 0.0
        self._learned_s = 0.0
        self._suspected = False

    def update(self, image_rgb: Image, elapsed_s: float) -> str | None:
        """Return why the camera counts as obstructed; None when the picture is clear."""
        step = max(1, min(image_rgb.shape[:2]) // _SAMPLED_PX)
        green = np.ascontiguousarray(image_rgb[::step, ::step, 1])
        small = image.resize(green, *_SMALL, "area").astype(np.float32)
        contrast = float(small.std())
        edges = float(np.abs(np.diff(small, axis=0)).mean() + np.abs(np.diff(small, axis=1)).mean())
        plain = contrast < (_NOT_PLAIN if self._suspected else _PLAIN)
        known = self._learned_s >= _KNOWN_S
        lost = known and edges < (_FOUND if self._suspected else _LOST) * self._usual_edges
        self._suspected = plain or lost
        if not (plain and not known):  # a camera that starts covered has shown no usual edges yet
            self._learn(edges, elapsed_s)
        if not self._suspected:
            return None
        share = f", edges {edges / max(self._usual_edges, 1e-6):.0%} of usual" if known else ""
        return f"luma {small.mean():.0f} with deviation {contrast:.1f}{share}"

    def _learn(self, edges: float, elapsed_s: float) -> None:
        span_s = _RELEARNED_S if self._suspected else min(_LEARNED_S, self._learned_s + elapsed_s)
        gain = min(1.0, elapsed_s / span_s) if span_s > 0 else 1.0
        self._usual_edges += gain * (edges - self._usual_edges)
        self._learned_s += elapsed_s


def _sampled(image_rgb: Image) -> NDArray[np.uint8]:
    """Return evenly spread pixels of the green plane, most of luma: (rows, side, columns, side) by block."""
    height, width = image_rgb.shape[:2]
    y = (np.arange(_ROWS * _SIDE) * height + height // 2) // (_ROWS * _SIDE)
    x = (np.arange(_COLUMNS * _SIDE) * width + width // 2) // (_COLUMNS * _SIDE)
    return np.asarray(image_rgb[y[:, None], x, 1], np.uint8).reshape(_ROWS, _SIDE, _COLUMNS, _SIDE)


def _has_fine(samples: NDArray[np.uint8]) -> _Blocks:
    """Return which blocks have fine detail, (rows, columns)."""
    return np.asarray(np.abs(np.diff(samples.astype(np.int16), 2, axis=3)).mean(axis=(1, 3)) >= _FINE, np.bool_)


def _differ(samples: NDArray[np.uint8], others: NDArray[np.int16]) -> _Blocks:
    """Return which blocks differ by much, (rows, columns)."""
    return np.asarray(np.abs(samples - others).mean(axis=(1, 3)) > _MOVED, np.bool_)


def _masked_blocks(mask: tuple[tuple[float, float, float, float], ...]) -> _Blocks:
    """Return which blocks a mask touches, (rows, columns)."""
    masked = np.zeros((_ROWS, _COLUMNS), np.bool_)
    for x0, y0, x1, y1 in mask:
        masked[int(y0 * _ROWS) : int(np.ceil(y1 * _ROWS)), int(x0 * _COLUMNS) : int(np.ceil(x1 * _COLUMNS))] = True
    return masked


def _may_be_clock(changing: _Blocks) -> bool:
    """Return whether few blocks change, all near the upper or lower border: they may be a burnt-in clock."""
    inner = changing[_CLOCK_ROWS:-_CLOCK_ROWS]
    return not inner.any() and int(changing.sum()) <= _CLOCK_BLOCKS
