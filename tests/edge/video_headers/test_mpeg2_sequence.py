"""Sequence headers of MPEG-2."""

from __future__ import annotations

import pytest

from edge.video_headers.mpeg2_sequence import mpeg2_may_be_interlaced

HEADER = bytes.fromhex("000001b31400f013ffffe018")


@pytest.mark.parametrize(
    ("extradata", "expected"),
    [
        (HEADER + bytes.fromhex("000001b5148200010000"), True),
        (HEADER + bytes.fromhex("000001b5148a00010000"), False),  # progressive_sequence
        (HEADER + bytes.fromhex("000001b5248a00010000"), False),  # of a display extension only
        (HEADER + bytes.fromhex("000001b514"), False),  # cut short
        (HEADER, False),  # MPEG-1
        (b"", False),
    ],
)
def test_stream_that_may_be_interlaced(extradata, expected):
    assert mpeg2_may_be_interlaced(extradata) is expected
