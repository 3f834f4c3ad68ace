"""The one file of a form."""

import pytest

from edge.errors import PictureError
from edge.kiosk.http import file_of

TYPE = "multipart/form-data; boundary=frontier"
FILE = b'Content-Disposition: form-data; name="image"; filename="x.jpg"\r\nContent-Type: image/jpeg'
FIELD = b'Content-Disposition: form-data; name="note; filename=\\"y\\""'


def a_form(*parts, boundary=b"frontier"):
    return b"".join(b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, *part) for part in parts) + b"--%b--\r\n" % boundary


def refused(body, content_type=TYPE, most=1000):
    with pytest.raises(PictureError) as refusal_reason:
        file_of(body, content_type, most)
    return refusal_reason.value.reason


@pytest.mark.parametrize("content", [b"", b"jpeg", b"\r\n", b"--frontier", b"\r\n--front\r\n\r\n", bytes(range(256))])
def test_the_file_is_what_was_sent(content):
    assert file_of(a_form((FILE, content)), TYPE, 1000) == content


def test_other_fields_count_for_nothing():
    assert file_of(a_form((FIELD, b"hello"), (FILE, b"jpeg"), (FIELD, b"")), TYPE, 1000) == b"jpeg"


@pytest.mark.parametrize(
    "content_type",
    ['multipart/form-data; boundary="fr ont"', 'Multipart/Form-Data; charset=utf-8; BOUNDARY="fr ont"; more=1'],
)
def test_the_boundary_may_be_quoted_and_in_any_case(content_type):
    assert file_of(a_form((FILE, b"jpeg"), boundary=b"fr ont"), content_type, 1000) == b"jpeg"


def test_a_file_name_in_another_script_is_a_file_name_too():
    head = b"content-disposition: form-data; name=image; filename*=UTF-8''%c3%a4.jpg"
    assert file_of(a_form((head, b"jpeg")), TYPE, 1000) == b"jpeg"


def test_no_file_and_two_files_are_refused():
    assert refused(a_form((FIELD, b"hello"))) == "empty"
    assert refused(a_form()) == "empty"
    assert refused(a_form((FILE, b"one"), (FILE, b"two"))) == "broken"


def test_a_file_that_is_too_long_is_refused():
    assert file_of(a_form((FILE, b"x" * 1000)), TYPE, 1000) == b"x" * 1000
    assert refused(a_form((FILE, b"x" * 1001))) == "too_large"


def test_what_is_no_form_is_refused():
    assert refused(b"") == "broken"
    assert refused(b"\xff\xd8\xff") == "broken"
    assert refused(a_form((FILE, b"jpeg")), "multipart/form-data") == "broken"
    assert refused(a_form((FILE, b"jpeg")), "multipart/form-data; boundary=other") == "broken"
    assert refused(a_form((b"x" * 5000, b"jpeg"))) == "broken"
    assert refused(a_form(*[(FIELD, b"")] * 40)) == "broken"


@pytest.mark.parametrize("cut", range(1, 150, 7))
def test_a_form_that_is_cut_short_is_refused(cut):
    whole = a_form((FILE, b"jpeg"))
    assert refused(whole[: len(whole) - 4 - cut]) in {"truncated", "broken"}
