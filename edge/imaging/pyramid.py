"""Scale a picture several times: one pyramid of halves for all who need a smaller picture.

Rules:
1. `area` averages pixels. OpenCV has vector code for averages of 2 x 2 pixels only: from 720p to 320x180, `area` took 4
   times as long as two halvings. So a picture is halved while it stays at least as large as the result. What is left, a
   factor below 2, is averaged where that is cheap, as in crops (linear cost one of 303 objects), else linear: in frames
   within a grey level of the average.
2. Where the result has another shape, the side that is still too long is halved on its own.
3. An odd side is halved without its last column or row; the last step places every pixel by the true size.
4. `linear` samples the full picture, as models that were trained with it expect.
5. A crop is halved on its own: in halves of the frame its edges would lie up to a pixel away.
"""

from __future__ import annotations

from typing import Literal

from edge.imaging import image
from edge.types import Box, Frame, Image

Interpolation = Literal["linear", "area"]

_SMALL = 3 * 256 * 256  # values of a picture that is averaged in at most a millisecond


class Pyramid:
    """A picture and its halves, each made when it is first needed and then kept; from any thread.

    The pictures that it returns are shared: do not write into them.
    """

    __slots__ = ("_crops", "_halves", "_resized", "image_rgb")

    def __init__(self, image_rgb: Image, halves: dict[int, Image] | None = None) -> None:
        """Wrap a picture.

        Args:
            image_rgb: (h, w, 3) uint8, not empty.
            halves: the picture halved 1, 2, ... times, to add to; None: none is made yet.
        """
        self.image_rgb = image_rgb
        self._halves: dict[int, Image] = {} if halves is None else halves
        self._crops: dict[tuple[int, int, int, int], Pyramid] = {}
        self._resized: dict[tuple[int, int, Interpolation], Image] = {}

    @property
    def width(self) -> int:
        """Of the full picture, in pixels."""
        return int(self.image_rgb.shape[1])

    @property
    def height(self) -> int:
        """Of the full picture, in pixels."""
        return int(self.image_rgb.shape[0])

    def crop(self, box_px: Box, margin: float = 0.0) -> Pyramid:
        """Return what `image.crop` cuts out, as a pyramid of its own; the same one for the same pixels."""
        left, top, right, bottom = bounds = image.crop_bounds(self.width, self.height, box_px, margin)
        if bounds == (0, 0, self.width, self.height):
            return self
        found = self._crops.get(bounds)
        if found is None:
            found = self._crops[bounds] = Pyramid(self.image_rgb[top:bottom, left:right])
        return found

    def resized(self, width: int, height: int, interpolation: Interpolation = "area") -> Image:
        """Return the picture scaled to exactly width x height, (height, width, 3) uint8."""
        key = (width, height, interpolation)
        found = self._resized.get(key)
        if found is None:
            found = self._resized[key] = self._resize(width, height, interpolation)
        return found

    def _resize(self, width: int, height: int, interpolation: Interpolation) -> Image:
        if interpolation == "linear" or width > self.width or height > self.height:
            return image.resize(self.image_rgb, width, height, "linear")
        halvings_x, halvings_y = (self.width // width).bit_length() - 1, (self.height // height).bit_length() - 1
        level = self._halved(min(halvings_x, halvings_y))
        for _ in range(halvings_x - halvings_y):  # a result of another shape: one side is still too long
            level = image.resize(level[:, : level.shape[1] // 2 * 2], level.shape[1] // 2, level.shape[0], "linear")
        for _ in range(halvings_y - halvings_x):
            level = image.resize(level[: level.shape[0] // 2 * 2], level.shape[1], level.shape[0] // 2, "linear")
        if level.shape[1] << halvings_x == self.width and level.shape[0] << halvings_y == self.height:
            return image.resize(level, width, height, "area" if level.size <= _SMALL else "linear")
        factor_x, factor_y = self.width / width / 2**halvings_x, self.height / height / 2**halvings_y
        return image.resample(level, width, height, factor_x, factor_y)

    def _halved(self, times: int) -> Image:
        if times == 0:
            return self.image_rgb
        found = self._halves.get(times)
        if found is None:
            larger = self._halved(times - 1)
            height, width = larger.shape[0] // 2, larger.shape[1] // 2
            found = self._halves[times] = image.resize(larger[: 2 * height, : 2 * width], width, height, "area")
        return found


def pyramid_of(picture: Image | Frame | Pyramid) -> Pyramid:
    """Return the pyramid of a picture; that of a frame shares its halves with all others of that frame."""
    if isinstance(picture, Pyramid):
        return picture
    return Pyramid(picture.image_rgb, picture.halves) if isinstance(picture, Frame) else Pyramid(picture)
