"""Addresses of cameras."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config.camera_url import Source, parse_source, redact
from edge.errors import ConfigError


def test_password_may_contain_an_at_sign():
    source = parse_source("rtsp://admin:p@ss:w@10.0.0.5:8554/live?channel=1")
    assert (source.user, source.password) == ("admin", "p@ss:w")
    assert source.location == "rtsp://10.0.0.5:8554/live?channel=1"
    assert source.url == "rtsp://admin:p%40ss%3Aw@10.0.0.5:8554/live?channel=1"


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://admin:hunter2@cam/live",
        "rtsp://cam:554/user=admin&password=hunter2&channel=1&stream=0.sdp",
        "rtsp://cam/live?pwd=hunter2",
        "gst:rtspsrc location=rtsp://admin:hunter2@cam/live ! decodebin ! appsink name=sink",
        'gst:rtspsrc location=rtsp://cam user-pw="hunter2" ! decodebin ! appsink name=sink',
        "gst:rtspsrc location=rtsp://cam user-pw=hunter2 ! decodebin ! appsink name=sink",
    ],
)
def test_no_printed_form_shows_a_password(text):
    source = parse_source(text)
    for shown in (str(source), repr(source), f"{source}", source.scrub(f"cannot open {source.url}: {text}")):
        assert "hunter2" not in shown
    assert "***" in str(source)


def test_errors_show_no_password():
    with pytest.raises(ConfigError) as error:
        parse_source("rtsp://admin:hunter2/part@cam/live")
    assert "hunter2" not in str(error.value)
    with pytest.raises(ConfigError) as error:
        parse_source("http://admin:hunter2@cam/live")
    assert "hunter2" not in str(error.value)


def test_at_sign_in_the_path_ends_no_credentials():
    assert str(parse_source("rtsp://cam/live@1")) == "rtsp://cam/live@1"


def test_percent_encoded_credentials_are_decoded_once():
    source = parse_source("rtsp://us%65r:50%25@cam/live")
    assert (source.user, source.password) == ("user", "50%")


def test_ipv6_host():
    assert parse_source("rtsp://u:p@[fe80::1]:554/live").location == "rtsp://[fe80::1]:554/live"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v4l2://0", Source("v4l2", "/dev/video0", "v4l2://0")),
        ("v4l2:///dev/v4l/by-path/x", Source("v4l2", "/dev/v4l/by-path/x", "v4l2:///dev/v4l/by-path/x")),
        (
            "v4l2:///dev/video2?width=1280&height=720&fps=30",
            Source(
                "v4l2",
                "/dev/video2",
                "v4l2:///dev/video2?width=1280&height=720&fps=30",
                fps=30,
                width=1280,
                height=720,
            ),
        ),
        ("csi://0", Source("csi", "0", "csi://0")),
        ("file:///x/a%20b.mp4?loop=1", Source("file", "/x/a b.mp4", "file:///x/a%20b.mp4?loop=1", loop=True)),
        ("file://demo/stream.mp4", Source("file", "demo/stream.mp4", "file://demo/stream.mp4")),
        ("folder:///p/*.jpg?fps=2", Source("folder", "/p/*.jpg", "folder:///p/*.jpg?fps=2", fps=2)),
    ],
)
def test_addresses_are_parsed(text, expected):
    assert parse_source(text) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("x.mp4", "no known scheme"),
        ("file://", "nothing follows ://"),
        ("file:///x.mp4?lop=1", "'lop'"),
        ("folder:///x?fps=fast", "fps='fast'"),
        ("folder:///x?fps=0", "fps='0' is not a number from 0.001 to 1000"),
        ("v4l2://0?fps=nan", "fps='nan' is not a number from"),
        ("v4l2://0?width=0.5", "width='0.5' is not a whole number from 1 to 65535"),
        ("csi://0?height=720.5", "height='720.5' is not a whole number"),
        ("file:///x.mp4?loop=0.5", "loop='0.5' is not 0 or 1"),
        ("v4l2://0?width=640&width=1280", "key 'width' appears twice"),
        ("rtsp://", "no valid host"),
        ("rtsp://cam:99999/x", "no valid host"),
        ("gst:videotestsrc ! fakesink", "appsink name=sink"),
    ],
)
def test_error_names_the_problem(text, part):
    with pytest.raises(ConfigError, match=part.replace("?", r"\?")):
        parse_source(text)


def test_redact_leaves_plain_text_alone():
    assert redact("rtsp://cam/live is key to us") == "rtsp://cam/live is key to us"


PARTS = [
    "rtsp://",
    "rtsps://",
    "v4l2://",
    "csi://",
    "file://",
    "folder://",
    "gst:",
    "user:pass@",
    "@",
    ":",
    "/",
    "?",
    "#",
]
ODD = [
    "[::1]",
    "[.]",
    "[",
    "]",
    "fps=",
    "width=",
    "nan",
    "1e999",
    "-1",
    "&",
    "loop=1",
    "%zz",
    "65536",
    "\u0664",
    "\u2100",
    "\0",
]
ADDRESSES = st.lists(st.sampled_from([*PARTS, *ODD]) | st.text(max_size=6), max_size=12).map("".join)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(ADDRESSES)
def test_any_text_gives_a_source_or_a_config_error(text):
    with contextlib.suppress(ConfigError):
        source = parse_source(text)
        assert source.scrub(str(source)) == redact(str(source))
        assert source.kind != "rtsp" or (source.address[0] and source.url.startswith("rtsp"))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(user=TEXTS, password=TEXTS | st.none(), port=st.integers(1, 65535), path=st.from_regex(r"[a-z0-9/?=.@]{0,12}"))
def test_rtsp_address_survives_a_round_trip(user, password, port, path):
    source = Source("rtsp", f"rtsp://cam:{port}/{path}", "", user=user, password=password)
    parsed = parse_source(source.url)
    assert (parsed.location, parsed.user, parsed.password) == (source.location, user, password)
    assert parsed.address == ("cam", port)


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.from_regex(r"[A-Za-z0-9!$*+_-]{6,20}", fullmatch=True))
def test_no_printed_form_shows_any_password(password):
    source = parse_source(f"rtsp://admin:{password}@cam/live")
    assert password not in f"{source} {source!r} {source.scrub(source.url)}"


@pytest.mark.parametrize("host", ["[.]", "[::1", "\u2100", "cam:\u0664"])
def test_host_that_cannot_exist_is_a_config_error(host):
    with pytest.raises(ConfigError, match="no valid host:port"):
        parse_source(f"rtsp://{host}/live")
