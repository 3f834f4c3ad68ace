"""Sequence parameter sets of H.264."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.video_headers.h264_parameters import H264Parameters, read_h264_parameters

# as x264 wrote them for 320x240
ANNEX_B_30_HZ = "00000167640014acb20283f602d418181a94000003000400000300f23c50a9200000000168ebccb22c"
ANNEX_B_INTERLACED = "00000167640015ace405043f2e02d418181a940000030004000003007a7c50a9200000000168fb8cb22c"
AVCC_422 = "017a000dffe1001b677a000dbcd94141fb016a0c0c0c80000003008000000f478a14cb01000568ebecb22c"
AVCC_10_BITS = "016e000dffe1001e676e000da6cd94141fb016a0c0c0d4a0000003002000000303d1e28532c001000568ebecb22c"


@pytest.mark.parametrize(
    ("extradata", "expected"),
    [
        (ANNEX_B_30_HZ, H264Parameters(may_be_interlaced=False, rate_hz=30)),
        (ANNEX_B_INTERLACED, H264Parameters(may_be_interlaced=True, rate_hz=15)),
        (AVCC_422, H264Parameters(may_be_interlaced=False, rate_hz=15)),
        (AVCC_10_BITS, H264Parameters(may_be_interlaced=False, rate_hz=15)),
        ("", None),
        ("000001b31400f013ffffe018", None),  # MPEG-2
        ("0000016764", None),  # cut short
    ],
)
def test_extra_data_of_encoders(extradata, expected):
    assert read_h264_parameters(bytes.fromhex(extradata)) == expected


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([b"", b"\0\0\1\x67", b"\1\x64\0\x1f\xff\xe1\0\x20\x67"]))
def test_any_bytes_give_parameters_or_none(data, start):
    found = read_h264_parameters(start + data)
    assert found is None or found.rate_hz is None or 0 < found.rate_hz <= 1000
