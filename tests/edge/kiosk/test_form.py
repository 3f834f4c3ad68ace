"""Multipart forms."""

import logging
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import PictureError
from edge.kiosk.form import file_from_form

TYPE = "multipart/form-data; boundary=frontier"
FILE = b'Content-Disposition: form-data; name="image"; filename="x.jpg"\r\nContent-Type: image/jpeg'
FIELD = b'Content-Disposition: form-data; name="note; filename=\\"y\\""'


def make_form(*parts, boundary=b"frontier"):
    return b"".join(b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, *part) for part in parts) + b"--%b--\r\n" % boundary


def rejection(body, content_type=TYPE, most=1000):
    with pytest.raises(PictureError) as caught:
        file_from_form(body, content_type, most)
    return caught.value.reason


@pytest.mark.parametrize("content", [b"", b"jpeg", b"\r\n", b"--frontier", b"\r\n--front\r\n\r\n", bytes(range(256))])
def test_file_content_is_returned_unchanged(content):
    assert file_from_form(make_form((FILE, content)), TYPE, 1000) == content


def test_other_fields_are_ignored():
    assert file_from_form(make_form((FIELD, b"hello"), (FILE, b"jpeg"), (FIELD, b"")), TYPE, 1000) == b"jpeg"


@pytest.mark.parametrize(
    "content_type",
    ['multipart/form-data; boundary="fr ont"', 'Multipart/Form-Data; charset=utf-8; BOUNDARY="fr ont"; more=1'],
)
def test_boundary_may_be_quoted_and_in_any_case(content_type):
    assert file_from_form(make_form((FILE, b"jpeg"), boundary=b"fr ont"), content_type, 1000) == b"jpeg"


def test_extended_file_name_marks_a_file():
    head = b"content-disposition: form-data; name=image; filename*=UTF-8''%c3%a4.jpg"
    assert file_from_form(make_form((head, b"jpeg")), TYPE, 1000) == b"jpeg"


def test_no_file_and_two_files_are_rejected():
    assert rejection(make_form((FIELD, b"hello"))) == "empty"
    assert rejection(make_form()) == "empty"
    assert rejection(make_form((FILE, b"one"), (FILE, b"two"))) == "broken"


def test_file_that_is_too_long_is_rejected():
    assert file_from_form(make_form((FILE, b"x" * 1000)), TYPE, 1000) == b"x" * 1000
    assert rejection(make_form((FILE, b"x" * 1001))) == "too_large"


def test_body_that_is_not_a_form_is_rejected():
    assert rejection(b"") == "broken"
    assert rejection(b"\xff\xd8\xff") == "broken"
    assert rejection(make_form((FILE, b"jpeg")), "multipart/form-data") == "broken"
    assert rejection(make_form((FILE, b"jpeg")), "multipart/form-data; boundary=other") == "broken"
    assert rejection(make_form((b"x" * 5000, b"jpeg"))) == "broken"
    assert rejection(make_form(*[(FIELD, b"")] * 40)) == "broken"


@pytest.mark.parametrize("cut", range(1, 150, 7))
def test_truncated_form_is_rejected(cut):
    whole = make_form((FILE, b"jpeg"))
    assert rejection(whole[: len(whole) - 4 - cut]) in {"truncated", "broken"}


LINE = b"\r\n--frontier"
HOSTILE = {
    "thousands of parts": make_form(*[(FIELD, b"")] * 5000),
    "quotes without end": make_form((b'Content-Disposition: form-data; name="' + b'\\"' * 60_000, b"x")),
    "many quoted headers": make_form(*[(b'Content-Disposition: form-data; name="' + b'\\"' * 1000, b"x")] * 31),
    "semicolons in quotes": make_form(*[(b'Content-Disposition: form-data; name="' + b";" * 2000, b"x")] * 31),
    "endless header": b"--frontier\r\n" + b"X" * 5_000_000,
    "endless value": b"--frontier\r\nX: " + b"y" * 5_000_000,
    "many headers": make_form((b"\r\n".join([b"X: y"] * 100_000), b"x")),
    "almost boundaries": b"--frontier\r\n\r\n" + LINE * 400_000,
    "boundary with a dash": b"--frontier\r\n\r\n" + (LINE + b"-x") * 400_000,
    "line breaks": b"--frontier\r\n\r\n" + b"\r\n--" * 1_000_000,
    "nested form": make_form((b"Content-Type: multipart/mixed; boundary=frontier", make_form((FILE, b"x")))),
    "no end": make_form((FILE, b"x" * 5_000_000))[:-15],
    "padding": b"--frontier\r\n\r\n" + LINE + b" " * 2_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_form_is_rejected_at_once(name):
    started_s = time.process_time()
    assert rejection(HOSTILE[name], most=20_000_000) in {"broken", "truncated", "empty"}
    assert time.process_time() - started_s < 0.5


def test_bad_forms_do_not_fill_the_log(caplog):
    with caplog.at_level(logging.DEBUG):
        rejection(make_form((b"\0: x", b"jpeg")))
    assert caplog.records == []


LATIN = st.text(st.characters(max_codepoint=255), max_size=60)
PIECES = st.sampled_from(
    [b"--frontier", b"\r\n", b"\r\n\r\n", b"--", FILE, FIELD, b'"', b";", b"filename="]
) | st.binary(max_size=20)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(body=st.lists(PIECES, max_size=20).map(b"".join), content_type=st.just(TYPE) | LATIN)
def test_any_body_gives_a_file_or_a_picture_error(body, content_type):
    try:
        content = file_from_form(body, content_type, 1000)
    except PictureError as error:
        reason = error.reason
    else:
        reason = None
        assert content in body
    assert reason in {None, "broken", "empty", "truncated", "too_large"}


@settings(derandomize=True, max_examples=100, deadline=None)
@given(content=st.binary(max_size=200).filter(lambda data: b"--frontier" not in data))
def test_any_file_content_round_trips(content):
    assert file_from_form(make_form((FILE, content)), TYPE, 1000) == content
