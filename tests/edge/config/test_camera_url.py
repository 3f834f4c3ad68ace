"""Addresses of cameras."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config.camera_url import Source, parse_source
from edge.errors import ConfigError
from edge.redact import redact_address


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


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("rtsp://admin:hunter2/part@cam/live", "write /, ? and # in a password as %2F, %3F and %23"),
        ("rtsp://admin:p@ss/hunter2@cam/live", "write /, ? and # in a password as %2F, %3F and %23"),
        ("rtsp://admin:123/hunter2@cam/live", "write /, ? and # in a password as %2F, %3F and %23"),
        ("rtsp://admin:p@ss?hunter2@cam/live", "write /, ? and # in a password as %2F, %3F and %23"),
        ("http://admin:hunter2@cam/live", "no known scheme"),
        ("rtsp:/admin:hunter2@cam/live", "no known scheme"),
        ("rtsp:admin:hunter2@cam/live", "no known scheme"),
        ("rtsp//admin:my hunter2@cam/live", "no known scheme"),
        ("admin:hunter2@cam", "no known scheme"),
        ("rtsp://admin:hunter2/10.0.0.5/live", "no valid host:port"),
        ("file:///x.mp4?token=hunter2", "unknown key 'token'"),
        ("v4l2://?hunter2", "nothing follows ://"),
        ("gst:rtspsrc location=rtsp://cam user-pw=hunter2 ! fakesink", "appsink name=sink"),
    ],
)
def test_errors_say_what_to_do_and_show_no_password(text, fix):
    with pytest.raises(ConfigError) as error:
        parse_source(text)
    assert "hunter2" not in str(error.value)
    assert fix in str(error.value)
    assert "\n" not in str(error.value)


def test_at_sign_in_the_path_ends_no_credentials():
    for address in ("rtsp://cam/live@1", "rtsp://10.0.0.5:8554/live@1", "rtsp://[fe80::1]:8554/live@1"):
        assert str(parse_source(address)) == address


def test_percent_encoded_credentials_are_decoded_once():
    source = parse_source("rtsp://us%65r:50%25@cam/live")
    assert (source.user, source.password) == ("user", "50%")


@pytest.mark.parametrize(
    ("text", "location", "address"),
    [
        ("rtsp://u:p@[fe80::1]:554/live", "rtsp://[fe80::1]:554/live", ("fe80::1", 554)),
        ("rtsp://[fe80::1%25eth0]/live", "rtsp://[fe80::1%eth0]/live", ("fe80::1%eth0", 554)),  # RFC 6874
        ("rtsp://u:p@[fe80::1%enp3s0.4]:8554/x", "rtsp://[fe80::1%enp3s0.4]:8554/x", ("fe80::1%enp3s0.4", 8554)),
        ("RTSP://Cam/Live", "rtsp://Cam/Live", ("cam", 554)),
        ("RTSPS://cam/live", "rtsps://cam/live", ("cam", 322)),
        (" \t rtsp://cam/live\n", "rtsp://cam/live", ("cam", 554)),
        ("\ufeffrtsp://cam/live\u00a0", "rtsp://cam/live", ("cam", 554)),
        ("rtsp://cam.shop.local./live", "rtsp://cam.shop.local./live", ("cam.shop.local.", 554)),
        ("rtsp://kasse-büro.de/live", "rtsp://xn--kasse-bro-w9a.de/live", ("xn--kasse-bro-w9a.de", 554)),
        ("rtsp://cam/kanal ä?n=1", "rtsp://cam/kanal%20%C3%A4?n=1", ("cam", 554)),
        ("rtsp://cam/a%20b#c", "rtsp://cam/a%20b#c", ("cam", 554)),
    ],
)
def test_libraries_get_an_address_that_they_resolve(text, location, address):
    source = parse_source(text)
    assert (source.location, source.address) == (location, address)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///v/a b ü#1.mp4", "/v/a b ü#1.mp4"),
        ("file:///v/a%20b%20%C3%BC%231%3F.mp4?loop=1", "/v/a b ü#1?.mp4"),
        ("FILE:///v/100%.mp4", "/v/100%.mp4"),
        (" folder:///v/Fotos für heute/*.jpg?fps=2 ", "/v/Fotos für heute/*.jpg"),
        ("V4L2://3", "/dev/video3"),
    ],
)
def test_paths_may_hold_any_character(text, path):
    assert parse_source(text).location == path


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
        ("rtsp://cam:0/x", "no valid host"),
        ("rtsp://cam:/x", "no valid host"),
        ("rtsp://cam..local/x", "no valid host"),
        ("rtsp://" + "a" * 64 + "/x", "no valid host"),
        ("rtsp://[fe80::1%]/x", "no valid host"),
        ("rtsp://cam/x\r\nTeardown", "a line break or another invisible character"),
        ("file:///v/a?b.mp4", "write ? in a path as %3F"),
        ("file:///v/a%00.mp4", "cannot contain %00"),
        ("gst:videotestsrc ! fakesink", "appsink name=sink"),
    ],
)
def test_error_names_the_problem(text, part):
    with pytest.raises(ConfigError, match=part.replace("?", r"\?")):
        parse_source(text)


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
        assert source.scrub(str(source)) == redact_address(str(source)) == str(source)
        assert source.kind != "rtsp" or (source.address[0] and source.url.startswith("rtsp"))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    user=TEXTS,
    password=TEXTS | st.none(),
    port=st.integers(1, 65535),
    path=st.from_regex(r"[a-z0-9/?=.]{0,12}", fullmatch=True),
)
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
