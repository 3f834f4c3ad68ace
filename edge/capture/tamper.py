"""Whether the picture of a live camera can be believed: frozen, obstructed, or neither, with evidence.

Rules:
1. Frozen is a picture in which nothing new shows. A real camera's noise makes every key frame a new picture, so single
   pixels are compared exactly: averages of them would stand still in a still scene, too.
2. What was seen shortly before is not new: an encoder that is fed one picture for ever repeats itself by key frame. But
   what moves is, however often it comes again: a clip that is played in a loop is no frozen camera.
3. An encoder that keeps to a bit rate shows one picture in ever new qualities. Now and then it comes to one that it had
   before, and the whole picture is again, exactly, what it was. Noise does not bring a picture back, unless the encoder
   drops it: where it does, it drops fine detail, too, and such a picture proves nothing.
4. Blocks without detail say nothing: clipped black or white, or a wall that the encoder sends as one colour.
5. A few blocks near the upper or lower border may change all the same: a burnt-in clock. Larger ones need a mask.
6. Obstructed is a picture that is plain, or has lost its edges compared with what this camera usually shows. It is in
   doubt at once, and obstructed when the doubt lasts. What is usual is learned slowly, so that dusk does not obstruct.
7. A picture in doubt is not recognised, and counted; the camera stays online meanwhile, for a hand that passes the lens
   is no news, and ends no presence.

A frozen camera is not found out while its encoder never repeats itself, changes a block as much as motion does, or
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

# measured on 1280x720, one busy core: 300 us a check, four checks a second; frames between two checks share a verdict
_INTERVAL_S = 0.25

_ROWS, _COLUMNS, _SIDE = 12, 16, 8  # blocks, and sampled pixels along each side of one
_DETAIL = 6  # grey levels between the darkest and the brightest sample of a block that says something
_ENOUGH = 0.1  # of all blocks must say something
_REMEMBERED = 64  # contents of a block
_MOVED = 8.0  # mean grey levels of a block: more than an encoder changes one picture by
_FINE = 2.0  # mean second difference of grey levels: an encoder that leaves this leaves noise
_BROAD = 0.5  # of all blocks have fine detail, and have changed, when a picture comes back
_RETURNS = 3  # prove it
_PICTURES = 4096  # remembered, as a number each: 17 minutes
_CLOCK_BLOCKS = 4
_CLOCK_ROWS = 2  # from the upper and from the lower border

_SMALL = (64, 36)  # pixels
_ENOUGH_PX = 180  # of the shorter side, to make those of
_PLAIN, _NOT_PLAIN = 4.0, 6.0  # standard deviation of grey levels
_LOST, _FOUND = 0.15, 0.3  # edges, relative to what is usual
_KNOWN_S = 30.0  # of pictures, before what is usual is known
_LEARNED_S = 600.0  # how slowly it changes
_RELEARNED_S = 3600.0  # the same while obstructed: a camera that was turned to another scene is not lost for ever

_Digests = NDArray[np.uint64]
_Blocks = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one picture says of its camera."""

    state: Literal["online", "frozen", "obstructed"]
    doubt: Literal["frozen", "obstructed"] | None = None  # why this picture is not to be recognised
    evidence: str = ""


class View:
    """Judges the pictures of one camera, in order."""

    def __init__(self, config: ViewConfig) -> None:
        self._obstructed_after_s = config.obstructed_after_s
        self._stillness = None if config.frozen_after_s is None else _Stillness(config.frozen_after_s, config.mask)
        self._clarity = _Clarity()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Expect the pictures of another opening; what is usual for the camera stays known."""
        self._verdict = Verdict("online")
        self._checked_s = float("-inf")
        self._doubted_s: float | None = None  # since when
        if self._stillness is not None:
            self._stillness.begin_anew()

    def judge(self, image_rgb: Image, now_s: float) -> Verdict:
        """Say whether the next picture can be believed.

        Args:
            image_rgb: the picture.
            now_s: when it was taken; a time before the last one begins anew.
        """
        if 0 <= now_s - self._checked_s < _INTERVAL_S:
            return self._verdict
        if now_s < self._checked_s:
            self.begin_anew()
        elapsed_s = now_s - self._checked_s if np.isfinite(self._checked_s) else 0.0
        self._checked_s = now_s
        self._verdict = self._obstruction(image_rgb, elapsed_s, now_s) or self._frost(image_rgb, now_s)
        return self._verdict

    def _obstruction(self, image_rgb: Image, elapsed_s: float, now_s: float) -> Verdict | None:
        if self._obstructed_after_s is None:
            return None
        evidence = self._clarity.doubt(image_rgb, elapsed_s)
        if evidence is None:
            self._doubted_s = None
            return None
        self._doubted_s = now_s if self._doubted_s is None else self._doubted_s
        lasting = now_s - self._doubted_s >= self._obstructed_after_s
        # the state stays what it was until the doubt has lasted; the picture is not recognised from the first
        return Verdict("obstructed", "obstructed", evidence) if lasting else Verdict("online", "obstructed")

    def _frost(self, image_rgb: Image, now_s: float) -> Verdict:
        evidence = self._stillness.doubt(image_rgb, now_s) if self._stillness is not None else None
        return Verdict("frozen", "frozen", evidence) if evidence is not None else Verdict("online")


class _Stillness:
    """Finds pictures in which nothing new shows."""

    def __init__(self, after_s: float, mask: tuple[tuple[float, float, float, float], ...]) -> None:
        self._after_s = after_s
        self._watched = ~_masked_blocks(mask)
        self._echoes = _Echoes(after_s, self._watched)
        # a digest of a block is the sum of its samples times fixed odd numbers, modulo 2^64
        numbers = np.random.default_rng(0).integers(0, 2**63, (_ROWS, _SIDE, _COLUMNS, _SIDE), dtype=np.uint64)
        self._numbers = numbers * np.uint64(2) + np.uint64(1)
        self._block = np.indices((_ROWS, _COLUMNS))
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what was seen."""
        self._known: _Digests = np.zeros((_REMEMBERED, _ROWS, _COLUMNS), np.uint64)
        self._oldest = np.zeros((_ROWS, _COLUMNS), np.int64)
        self._new_s = np.full((_ROWS, _COLUMNS), -np.inf)
        self._before: NDArray[np.int16] | None = None  # samples of the last check
        self._echoes.begin_anew()

    def doubt(self, image_rgb: Image, now_s: float) -> str | None:
        """Evidence that the picture is frozen; None when it is not, or cannot be known."""
        samples = _sampled(image_rgb)
        digests = np.asarray((samples * self._numbers).sum(axis=(1, 3)), np.uint64)
        new = ~(self._known == digests).any(axis=0)
        self._known[self._oldest[new], self._block[0][new], self._block[1][new]] = digests[new]
        self._oldest[new] = (self._oldest[new] + 1) % _REMEMBERED
        self._new_s[new | self._moved(samples)] = now_s

        telling = self._watched & (samples.max(axis=(1, 3)) - samples.min(axis=(1, 3)) >= _DETAIL)
        echoed_s = self._echoes.still_s(samples, digests, now_s)
        if echoed_s is not None:
            return f"the same picture in qualities that come again for {echoed_s:.0f} s"
        if telling.sum() < _ENOUGH * telling.size:
            return None
        alive = telling & (now_s - self._new_s < self._after_s)
        if alive.any() and not _may_be_clock(alive):
            return None
        still = telling & ~alive
        if not still.any():
            return None
        still_s = now_s - self._new_s[still].max()
        clock = f", but for {alive.sum()} near the border that may be a clock" if alive.any() else ""
        return f"nothing new for {still_s:.0f} s in {still.sum()} blocks with detail{clock}"

    def _moved(self, samples: NDArray[np.uint8]) -> _Blocks:
        """The blocks that changed by much since the last check, (rows, columns)."""
        before, self._before = self._before, samples.astype(np.int16)
        return _differ(samples, self._before if before is None else before)


class _Echoes:
    """Finds out for how long the whole picture has come back again and again, with nothing moving meanwhile."""

    def __init__(self, after_s: float, watched: _Blocks) -> None:
        self._after_s = after_s
        self._watched = watched
        self._inner = watched.copy()  # where no clock is
        self._inner[:_CLOCK_ROWS] = self._inner[-_CLOCK_ROWS:] = False
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what was seen."""
        self._reference: NDArray[np.int16] | None = None  # samples that nothing has moved since
        self._before: _Digests = np.zeros((_ROWS, _COLUMNS), np.uint64)
        self._first_s: dict[int, float] = {}  # when a picture was first seen
        self._since_s = self._until_s = float("-inf")  # from and to when it was the same picture
        self._returns = 0  # that say so

    def still_s(self, samples: NDArray[np.uint8], digests: _Digests, now_s: float) -> float | None:
        """How long nothing but the encoder has changed the picture; None when that is not known, or not long."""
        if self._reference is None or self._has_moved(samples, self._reference):
            self.begin_anew()
            self._reference = samples.astype(np.int16)
        changed = self._inner & (digests != self._before)
        self._before = digests
        picture = int(digests[self._inner].sum())
        first_s = self._first_s.setdefault(picture, now_s)
        if len(self._first_s) > _PICTURES:
            del self._first_s[next(iter(self._first_s))]
        if first_s < now_s and (changed & _has_fine(samples)).sum() >= _BROAD * self._inner.sum() > 0:
            if first_s > self._until_s:
                self._since_s, self._returns = first_s, 0
            self._since_s = min(self._since_s, first_s)
            self._until_s = now_s
            self._returns += 1
        proved = self._returns >= _RETURNS and self._until_s - self._since_s >= self._after_s
        return now_s - self._since_s if proved and now_s - self._until_s < self._after_s else None

    def _has_moved(self, samples: NDArray[np.uint8], reference: NDArray[np.int16]) -> bool:
        moved = self._watched & _differ(samples, reference)
        return bool(moved.any()) and not _may_be_clock(moved)


class _Clarity:
    """Finds pictures that are plain or have lost their edges."""

    def __init__(self) -> None:
        self._usual = 0.0  # edges
        self._learned_s = 0.0
        self._doubted = False

    def doubt(self, image_rgb: Image, elapsed_s: float) -> str | None:
        """Evidence that something is between the camera and the scene; None when the picture is clear."""
        step = max(1, min(image_rgb.shape[:2]) // _ENOUGH_PX)
        green = np.ascontiguousarray(image_rgb[::step, ::step, 1])
        small = image.resize(green, *_SMALL, "area").astype(np.float32)
        contrast = float(small.std())
        edges = float(np.abs(np.diff(small, axis=0)).mean() + np.abs(np.diff(small, axis=1)).mean())
        plain = contrast < (_NOT_PLAIN if self._doubted else _PLAIN)
        known = self._learned_s >= _KNOWN_S
        lost = known and edges < (_FOUND if self._doubted else _LOST) * self._usual
        self._doubted = plain or lost
        if not (plain and not known):  # a camera that begins covered has shown nothing usual yet
            self._learn(edges, elapsed_s)
        if not self._doubted:
            return None
        share = f", edges {edges / max(self._usual, 1e-6):.0%} of usual" if known else ""
        return f"luma {small.mean():.0f} with deviation {contrast:.1f}{share}"

    def _learn(self, edges: float, elapsed_s: float) -> None:
        span_s = _RELEARNED_S if self._doubted else min(_LEARNED_S, self._learned_s + elapsed_s)
        gain = min(1.0, elapsed_s / span_s) if span_s > 0 else 1.0
        self._usual += gain * (edges - self._usual)
        self._learned_s += elapsed_s


def _sampled(image_rgb: Image) -> NDArray[np.uint8]:
    """Evenly spread pixels of the green plane, which is most of luma: (rows, side, columns, side) by block."""
    height, width = image_rgb.shape[:2]
    y = (np.arange(_ROWS * _SIDE) * height + height // 2) // (_ROWS * _SIDE)
    x = (np.arange(_COLUMNS * _SIDE) * width + width // 2) // (_COLUMNS * _SIDE)
    return np.asarray(image_rgb[y[:, None], x, 1], np.uint8).reshape(_ROWS, _SIDE, _COLUMNS, _SIDE)


def _has_fine(samples: NDArray[np.uint8]) -> _Blocks:
    """The blocks with fine detail, (rows, columns)."""
    return np.asarray(np.abs(np.diff(samples.astype(np.int16), 2, axis=3)).mean(axis=(1, 3)) >= _FINE, np.bool_)


def _differ(samples: NDArray[np.uint8], others: NDArray[np.int16]) -> _Blocks:
    """The blocks that differ by much, (rows, columns)."""
    return np.asarray(np.abs(samples - others).mean(axis=(1, 3)) > _MOVED, np.bool_)


def _masked_blocks(mask: tuple[tuple[float, float, float, float], ...]) -> _Blocks:
    """The blocks that a mask touches, (rows, columns)."""
    masked = np.zeros((_ROWS, _COLUMNS), np.bool_)
    for x0, y0, x1, y1 in mask:
        masked[int(y0 * _ROWS) : int(np.ceil(y1 * _ROWS)), int(x0 * _COLUMNS) : int(np.ceil(x1 * _COLUMNS))] = True
    return masked


def _may_be_clock(alive: _Blocks) -> bool:
    """Whether so few blocks change, so near to the upper or lower border, that they may be a burnt-in clock."""
    inner = alive[_CLOCK_ROWS:-_CLOCK_ROWS]
    return not inner.any() and int(alive.sum()) <= _CLOCK_BLOCKS
