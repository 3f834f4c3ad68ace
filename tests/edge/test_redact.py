"""Secrets are hidden in any text, by their form."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.redact import has_ambiguous_credentials, redact, redact_address, redact_fields, secrets_in

ADDRESSES = [  # hunter2 is the secret of each
    "rtsp://admin:hunter2@cam/live",
    "rtsp://hunter2@cam/live",
    "RTSP://admin:hunter2@CAM/live",
    "rtsp:/admin:hunter2@cam/live",
    "rtsp:///admin:hunter2@cam/live",
    "rtsp//admin:hunter2@cam/live",
    "rtsp;//admin:hunter2@cam/live",
    "rtsp:\\\\admin:hunter2@cam\\live",
    "rtsp:admin:hunter2@cam/live",
    "admin:hunter2@cam/live",
    "rtsp://u:p@ss/hunter2@192.0.2.8/s",
    "rtsp://admin:a/hunter2@cam/live",
    "rtsp://admin:a?hunter2@cam/live",
    "rtsp://admin:a#hunter2@cam/live",
    "rtsp://admin:12/hunter2@cam/live",
    "rtsp://admin:a@b:hunter2@cam/live",
    "rtsp://admin:my hunter2@cam/live",
    "rtsp://admin:hunter2/10.0.0.5/live",
    "rtsp://[fe80::1%25eth0]:hunter2/live",
    "https://h/x?apikey=hunter2",
    "https://h/x?api_key=hunter2&channel=1",
    "https://h/x?access_token=hunter2",
    "https://h/x?psw=hunter2",
    "https://h/x?sig=hunter2",
    "https://h/x?login=hunter2",
    "https://h/x?whatever=hunter2",
    "https://h/x?channel=hunter2%20with%20more",
    "https://h/x?hunter2",
    "https://h/x?a=1;b=hunter2",
    "https://h/x#hunter2",
    "https://h/x#access_token=hunter2",
    "https://b.s3.example/t.zip?X-Amz-Date=2026&X-Amz-Signature=hunter2",
    "rtsp://10.0.0.5:554/user=admin&password=hunter2&channel=1&stream=0.sdp",
    "rtsp://10.0.0.5:554/user=admin_password=hunter2_channel=1_stream=0.sdp?real_stream",
    "rtsp://10.0.0.5:554/user=admin&password=p@hunter2&channel=1",
    "rtsp://cam/live;token=hunter2",
    "gst:rtspsrc location=rtsp://admin:hunter2@cam/live ! decodebin ! appsink name=sink",
    "gst:rtspsrc location=rtsp://cam user-id=hunter2 user-pw=hunter2 ! appsink name=sink",
    "gst:rtspsrc location=rtsp://cam user-pw='hunter2' ! appsink name=sink",
    'gst:souphttpsrc location=http://cam extra-headers="x,Authorization=Bearer hunter2" ! appsink name=sink',
    "gst:souphttpsrc location=http://cam unheard-of=hunter2 ! appsink name=sink",
    "gst:srtsrc uri=srt://cam:7001?passphrase=hunter2&mode=caller ! appsink name=sink",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_form_of_an_address_shows_its_secret(address):
    shown = redact_address(address)
    assert "hunter2" not in shown
    assert "***" in shown
    assert any("hunter2" in value for value in secrets_in(address))


@pytest.mark.parametrize("address", [text for text in ADDRESSES if "unheard-of" not in text])
@pytest.mark.parametrize("around", ["{}", "camera door: cannot open '{}': 401", '{{"source": "{}", "n": 1}}', "({})."])
def test_no_text_around_an_address_shows_its_secret(address, around):
    assert "hunter2" not in redact(around.format(address))


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://cam/live is key to us",
        "rtsp://10.0.0.5:8554/live/h264Preview_01_main?channel=1&subtype=0",
        "rtsp://[fe80::1]:554/Streaming/Channels/101",
        "rtsp://cam/live@1",
        "file:///videos/VID_20261128_101500.mp4?loop=1",
        "v4l2:///dev/v4l/by-path/pci-0000:00:14.0-usb?width=1280&height=720&fps=30",
        "folder:///photos/*.jpg?fps=2",
        f"https://updates.example/targets/{'0a' * 32}.onnx",
        "kiosk: http://127.0.0.1:8090/",
        "/etc/finesight/device.yaml:12: kiosk.token: this key is missing; add it",
        "mail to support@example.com; 3 of 4 at 12:30",
        "keyframes=5 passes=2 design=new",
        "gst:videotestsrc is-live=true pattern=18 ! video/x-raw,width=640,format=BGR ! appsink name=sink drop=true",
    ],
)
def test_harmless_text_stays(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter2 for bob", "password=*** for bob"),
        ("https://h/x?sig=hunter2: refused (token=hunter2).", "https://h/x?sig=***: refused (token=***)."),
        ("smtp_password='a b' x", "smtp_password=*** x"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("GET /upload?X-Amz-Signature=abc&part=2 HTTP/1.1", "GET /upload?X-Amz-Signature=***&part=*** HTTP/1.1"),
        ("rtsps://nvr:7441/AbCdEfGh1234IjKl?enableSrtp", "rtsps://nvr:7441/***?enableSrtp"),
        ("https://hooks.example/T0/0123456789abcdef0123456789abcdef", "https://hooks.example/T0/***"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----", "-----PRIVATE KEY ***-----"),
        ("a rtsp://u:p@c/1,rtsp://c/2,rtsp://u:p@c/3", "a rtsp://***@c/3"),
        ("rtsp://c/2,rtsp://u:p@c/3", "rtsp://c/2,rtsp://***@c/3"),
    ],
)
def test_secret_is_hidden_and_the_rest_stays(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password: hunter2", "password: ***"),
        ('{"tls_key_passwd": "a\\"b", "n": 1}', '{"tls_key_passwd": "***", "n": 1}'),
        ("mqtt: {password: 'a b', port: 1}", "mqtt: {password: ***, port: 1}"),
        ("client_secret:\thunter2", "client_secret:\t***"),
    ],
)
def test_fields_that_name_a_secret_are_hidden(text, shown):
    assert redact_fields(text) == shown


@pytest.mark.parametrize(
    ("address", "ambiguous"),
    [
        ("rtsp://u:p@ss/w@host/s", True),
        ("rtsp://u:12/w@host/s", True),
        ("rtsp://u@ss/w@host/s", True),
        ("rtsp://host/live@1", False),
        ("rtsp://10.0.0.5:554/live@1", False),
        ("rtsp://[fe80::1%25eth0]:554/live@1", False),
        ("rtsp://u:p%40ss%2Fw@host/s", False),
    ],
)
def test_address_whose_host_is_not_clear_is_known(address, ambiguous):
    assert has_ambiguous_credentials(address) is ambiguous


@pytest.mark.parametrize("part", ["a://", "a;//", "rtsp://c/1,", "key_", "a:/ "])
def test_long_hostile_text_is_redacted(part):
    assert "hunter2" not in redact(f"{part * 3000}rtsp://admin:hunter2@cam")


PASSWORD = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), min_size=6, max_size=12)
BEFORE = st.sampled_from(["rtsp://", "rtsp:/", "rtsp//", "https://", "", "rtsps://", "mqtt://", "RTSP://", "rtsp:\\\\"])


@settings(derandomize=True, max_examples=150, deadline=None)
@given(BEFORE, st.sampled_from(["admin:", "a.b:", "x@y:"]), PASSWORD, st.sampled_from(["cam", "10.0.0.5:554", "[::1]"]))
def test_no_address_shows_any_password(scheme, user, password, host):
    address = f"{scheme}{user}secret{password}@{host}/live"
    for shown in (redact_address(address), redact(f"cannot open '{address}': 401")):
        assert "secret" not in shown


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab1:/?#@=&;.,'\" \\[]%*"), max_size=40))
def test_redacting_twice_changes_nothing_more(text):
    assert redact(redact(text)) == redact(text)
    assert redact_address(redact_address(text)) == redact_address(text)
