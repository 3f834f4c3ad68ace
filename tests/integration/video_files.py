"""Video files for tests, written by GStreamer or OpenCV when a test needs them."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

RED, GREEN, BLUE, WHITE = (210, 30, 30), (30, 200, 30), (30, 30, 210), (230, 230, 230)
STORED = (RED, GREEN, BLUE, WHITE)  # upper left, upper right, lower left, lower right
# How an upright picture looks whose stored corners are STORED, by its EXIF orientation, written down by hand
UPRIGHT = {
    1: (RED, GREEN, BLUE, WHITE),
    2: (GREEN, RED, WHITE, BLUE),
    3: (WHITE, BLUE, GREEN, RED),
    4: (BLUE, WHITE, RED, GREEN),
    5: (RED, BLUE, GREEN, WHITE),
    6: (BLUE, RED, WHITE, GREEN),
    7: (WHITE, GREEN, BLUE, RED),
    8: (GREEN, WHITE, RED, BLUE),
}
MATRICES = {  # a, b, c, d of the track header, by EXIF orientation
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


def write_with_gstreamer(path: Path, line: str) -> Path:
    """Run a pipeline that ends in an encoded, multiplexed stream, and write it to a file."""
    from edge.capture.gstreamer_source import Gst

    Gst.init(None)
    pipeline = Gst.parse_launch(f"{line} ! filesink name=file")
    pipeline.get_by_name("file").set_property("location", str(path))
    pipeline.set_state(Gst.State.PLAYING)
    message = pipeline.get_bus().timed_pop_filtered(20 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
    pipeline.set_state(Gst.State.NULL)
    assert message is not None
    assert message.type == Gst.MessageType.EOS, message.parse_error()
    return path


def moving_bars(frames: int, caps: str = "width=320,height=240,framerate=30/1", pixel_format: str = "I420") -> str:
    """The line of a source of vertical bars that move sideways, in front of an encoder."""
    source = f"videotestsrc num-buffers={frames} pattern=smpte75 horizontal-speed=12"
    return f"{source} ! video/x-raw,format={pixel_format},{caps}"


def write_interlaced(path: Path, frames: int = 20, to: str = "h264parse ! mp4mux") -> Path:
    """H.264 of two fields a frame, at different times."""
    line = f"{moving_bars(2 * frames)} ! interlace field-pattern=1:1 ! x264enc interlaced=true bframes=0 ! {to}"
    return write_with_gstreamer(path, line)


def write_corners(path: Path, orientation: int = 1, frames: int = 3) -> Path:
    """An MP4 file of 160x120 with a colour in each corner, and an orientation in its header."""
    picture = np.zeros((120, 160, 3), np.uint8)
    for corner, colour in enumerate(STORED):
        top, left = 60 * (corner // 2), 80 * (corner % 2)
        picture[top : top + 60, left : left + 80] = colour[::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (160, 120))
    for _ in range(frames):
        writer.write(picture)
    writer.release()
    path.write_bytes(with_orientation(path.read_bytes(), orientation))
    return path


def with_orientation(mp4: bytes, orientation: int) -> bytes:
    """The same file with another matrix in its first track header (version 0)."""
    a, b, c, d = (65536 * number for number in MATRICES[orientation])
    at = mp4.index(b"tkhd") + 44
    return mp4[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + mp4[at + 36 :]


def corners_of(image_rgb: np.ndarray) -> tuple[tuple[int, int, int], ...]:
    """Which of the four colours is in each corner of a picture."""
    height, width = image_rgb.shape[:2]
    found = []
    for y in (height // 4, 3 * height // 4):
        for x in (width // 4, 3 * width // 4):
            distances = [np.abs(image_rgb[y, x].astype(int) - colour).sum() for colour in STORED]
            found.append(STORED[int(np.argmin(distances))])
    return tuple(found)
