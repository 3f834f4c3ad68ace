"""Read a folder, a glob or one picture like a camera, in the order of the names."""

from __future__ import annotations

import glob
import re
import time
from pathlib import Path

from edge.capture.frame_source import BadPictureError, EndOfStream, Picture, describe_scaling, shrunk
from edge.config.camera_url import Source
from edge.errors import CaptureError
from edge.imaging.image import IMAGE_SUFFIXES, read_image

DEFAULT_FPS = 1.0


class FolderSource:
    """The pictures of a folder, 1/fps seconds apart."""

    def __init__(self, source: Source, max_px: int | None = None) -> None:
        """List the folder; scale pictures down to `max_px`, see `CaptureOptions`.

        Raises:
            CaptureError: the folder does not exist or holds no picture.
        """
        self._source, self._max_px = source, max_px
        self._fps = source.fps or DEFAULT_FPS
        self._paths = list_pictures(source.location)
        self._next = 0
        self._bad = 0
        self.decode_path = f"folder of {len(self._paths)} pictures{describe_scaling(max_px)}"

    def read(self, timeout_s: float) -> Picture | None:  # noqa: ARG002, a disk does not wait
        """Return the next picture.

        Raises:
            BadPictureError: this one cannot be decoded.
            EndOfStream: there are no more.
            CaptureError: none of them could be decoded.
        """
        if self._next == len(self._paths):
            if self._bad == len(self._paths):
                raise CaptureError(f"{self._source}: none of the {self._bad} pictures can be read")
            raise EndOfStream
        index, self._next = self._next, self._next + 1
        arrived_ns = time.monotonic_ns()
        try:
            image_rgb = read_image(self._paths[index])
        except CaptureError as error:
            self._bad += 1
            raise BadPictureError(str(error)) from error
        return Picture(shrunk(image_rgb, self._max_px), arrived_ns, index / self._fps, "file")

    def close(self) -> None:
        """Do nothing: no file stays open."""


def list_pictures(location: str) -> list[Path]:
    """Return the pictures of a folder, a glob or one path; numbers in names sort by value.

    Raises:
        CaptureError: there is no picture.
    """
    path = Path(location)
    if path.is_dir():
        found = [child for child in path.iterdir() if child.suffix.lower() in IMAGE_SUFFIXES]
    elif path.exists():
        return [path]
    else:
        found = [child for name in glob.glob(location, recursive=True) if (child := Path(name)).is_file()]  # noqa: PTH207, absolute patterns
    if not found:
        if path.is_dir():
            raise CaptureError(f"{location}: the folder holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
        raise CaptureError(f"{location}: no such folder or file, and no file matches")
    return sorted(found, key=_by_number)


def _by_number(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]
