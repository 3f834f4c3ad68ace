"""OpenCV's FFmpeg, which returns pictures that it has not written."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.capture import opencv_source
from edge.capture.frame_source import BackendError, BadPictureError, CaptureOptions
from edge.capture.opencv_source import OpenCvSource
from edge.config.camera_url import parse_source
from edge.errors import CaptureError

FILE = parse_source("file:///v/x.mp4")
# As x264 and an MPEG-2 encoder write them, 320x240
PROGRESSIVE = bytes.fromhex("00000167640014acb20283f602d418181a94000003000400000300f23c50a9200000000168ebccb22c")
INTERLACED = bytes.fromhex("00000167640015ace405043f2e02d418181a940000030004000003007a7c50a9200000000168fb8cb22c")
MPEG2 = bytes.fromhex("000001b31400f013ffffe018000001b5148200010000")  # progressive_sequence is 0


class FakeCapture:
    """A stand-in for cv2.VideoCapture that gives out a list of pictures."""

    def __init__(self, pictures, extradata=b"", fourcc=b"h264", properties=None):
        self._pictures, self._at, self._extradata = pictures, -1, extradata
        self._properties = {
            cv2.CAP_PROP_FOURCC: int.from_bytes(fourcc, "little"),
            cv2.CAP_PROP_CODEC_EXTRADATA_INDEX: 1,
            cv2.CAP_PROP_FPS: 25,
            **(properties or {}),
        }

    def get(self, number):
        return float(self._at * 40 if number == cv2.CAP_PROP_POS_MSEC else self._properties.get(number, 0))

    def set(self, *_):
        return True

    def grab(self):
        self._at += 1
        return self._at < len(self._pictures)

    def retrieve(self, flag=0):
        if flag == 1:
            return bool(self._extradata), np.frombuffer(self._extradata, np.uint8)
        picture = self._pictures[self._at]
        return picture is not None, picture

    def release(self):
        pass


def noise(seed):
    return np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8)


@pytest.fixture
def read(monkeypatch):
    """Read every picture of a fake capture."""

    def read_all(source, count, capture):
        monkeypatch.setattr(opencv_source, "open_video", lambda *_: capture)
        opened = OpenCvSource(source, CaptureOptions())
        return [opened.read(0).image_rgb for _ in range(count)]

    return read_all


@pytest.mark.parametrize(("fourcc", "extradata"), [(b"h264", INTERLACED), (b"avc1", INTERLACED), (b"mpg2", MPEG2)])
def test_repeated_picture_of_a_stream_that_may_be_interlaced(read, fourcc, extradata):
    """OpenCV has not written it: it is the picture before."""
    with pytest.raises(BackendError, match=r"file:///v/x\.mp4: OpenCV cannot read interlaced video; use backend: gst"):
        read(FILE, 4, FakeCapture([noise(1), noise(2), noise(2), noise(3)], extradata, fourcc))
    assert len(read(FILE, 3, FakeCapture([noise(1), noise(2), noise(3)], extradata, fourcc))) == 3


@pytest.mark.parametrize("extradata", [PROGRESSIVE, b""])
def test_repeated_picture_of_a_progressive_stream_is_one(read, extradata):
    assert len(read(FILE, 3, FakeCapture([noise(1), noise(1), noise(1)], extradata))) == 3


def test_first_picture_that_was_not_written_is_recognised(monkeypatch):
    capture = FakeCapture([None])

    def unwritten(flag=0):
        return (False, None) if flag else (True, np.full((24, 32, 3), 77, np.uint8))

    capture.retrieve = unwritten
    monkeypatch.setattr(opencv_source, "open_video", lambda *_: capture)
    monkeypatch.setattr(opencv_source.secrets, "choice", lambda _: 77)
    with pytest.raises(BackendError, match="interlaced"):
        OpenCvSource(FILE, CaptureOptions()).read(0)


@pytest.mark.parametrize(
    ("picture", "error"),
    [
        (None, CaptureError),
        (np.zeros((0, 0, 3), np.uint8), CaptureError),
        (np.zeros((24, 32), np.uint8), BackendError),
        (np.zeros((24, 32, 4), np.uint8), BackendError),
        (np.zeros((24, 32, 3), np.uint16), BackendError),
    ],
)
def test_picture_of_another_shape_never_passes(read, picture, error):
    with pytest.raises(error, match=r"x\.mp4"):
        read(FILE, 1, FakeCapture([picture]))


GREY = np.full((24, 32, 3), 130, np.uint8)


def test_picture_of_which_nothing_arrived_is_unreadable(read):
    with pytest.raises(BadPictureError, match="a picture arrived empty"):
        read(FILE, 1, FakeCapture([GREY]))
    wall = GREY.copy()
    wall[20, 20] = 131
    assert len(read(FILE, 1, FakeCapture([wall]))) == 1


def test_camera_that_stays_grey_shows_grey(monkeypatch):
    monkeypatch.setattr(opencv_source, "open_video", lambda *_: FakeCapture([noise(1), *[GREY] * 40, noise(2), GREY]))
    opened, found = OpenCvSource(FILE, CaptureOptions()), []
    for _ in range(43):
        try:
            found.append(opened.read(0) is not None)
        except BadPictureError:
            found.append(False)
    assert found == [True, *[False] * 30, *[True] * 10, True, False]


@pytest.mark.parametrize(
    ("across", "down", "shape"),
    [(16, 11, (24, 47, 3)), (1, 2, (48, 32, 3)), (0, 1, (24, 32, 3)), (1, 0, (24, 32, 3)), (1000, 1, (24, 32, 3))],
)
def test_pixel_shape_that_cannot_be_true_is_ignored(read, across, down, shape):
    properties = {cv2.CAP_PROP_SAR_NUM: across, cv2.CAP_PROP_SAR_DEN: down}
    assert read(FILE, 1, FakeCapture([noise(1)], properties=properties))[0].shape == shape
