"""Forms with files, piece by piece, and forms that no browser sends."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from console.web import form
from console.web.form import FormWriter
from edge.errors import ConsoleError

TYPE = "multipart/form-data; boundary=limit"


def part(data=b"data", **names):
    named = "".join(f'; {key}="{value}"' for key, value in names.items())
    return f"--limit\r\nContent-Disposition: form-data{named}\r\n\r\n".encode() + data + b"\r\n"


END = b"--limit--\r\n"


def read(folder, body, content_type=TYPE, size=None):
    """Return the fields and files of a form that arrives in pieces of a size."""
    folder.mkdir(exist_ok=True)
    writer = FormWriter(folder, content_type)
    try:
        for begin in range(0, len(body), size or len(body) or 1):
            writer.write(body[begin : begin + (size or len(body))])
        writer.end()
    finally:
        writer.close()
    return writer.fields, [(one.name, one.path.read_bytes(), one.size) for one in writer.files]


@pytest.mark.parametrize("size", [1, 2, 7, 64, None])
def test_files_and_fields_in_pieces_of_any_size(tmp_path, size):
    data = b"\r\n--limi\r\n--\r\n\x00\xff" * 20
    body = part(b"3", name="set") + part(data, name="files", filename="a.jpg") + part(b"", name="note") + END
    assert read(tmp_path, body, size=size) == ([("set", "3"), ("note", "")], [("a.jpg", data, len(data))])


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "..", "C:\\x.jpg", "a/b/c.jpg", "ü\N{SNOWMAN}.jpg", "x" * 1000, ".", "-rf"],
)
def test_names_of_files_are_texts_and_never_paths(tmp_path, name):
    _, files = read(tmp_path / "in", part(name="files", filename=name) + END)
    assert len(files) == 1
    assert len(files[0][0]) <= 255
    assert [one.name for one in tmp_path.rglob("*")] == ["in", "0"]


def test_control_characters_in_a_name_are_replaced(tmp_path):
    _, files = read(tmp_path, part(name="files", filename="a\x00b\x1b[31m\x7f\xff.jpg") + END)
    assert files[0][0].isprintable()
    assert files[0][0].endswith(".jpg")


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("say %22hi%22.jpg", 'say "hi".jpg'),
        ("50%25 %2e%2F.jpg", "50%25 %2e%2F.jpg"),
        ("a%0D%0Ab.jpg", "a\ufffd\ufffdb.jpg"),
    ],
)
def test_a_name_is_what_the_file_was_called_before_a_browser_escaped_it(tmp_path, sent, name):
    _, files = read(tmp_path, part(name="files", filename=sent) + END)
    assert [one[0] for one in files] == [name]


def test_empty_field_for_files_is_no_file(tmp_path):
    assert read(tmp_path, part(b"", name="files", filename="") + END) == ([], [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "without the last boundary"),
        (part(name="a"), "without the last boundary"),
        (part(name="files", filename="a.jpg")[:-10], "without the last boundary"),
        (b"--other\r\n\r\n--other--", "form: "),
        (b"{}", "form: "),
        (part() + END, "no name"),
        (part(name="") + END, "no name"),
        (part(filename="a.jpg") + END, "no name"),
        (b"--limit\r\nX: y\r\n\r\ndata\r\n" + END, "no name"),
        (b"--limit\r\n" + b"X: y\r\n" * 50 + b"\r\ndata\r\n" + END, "form: "),
        (b"--limit\r\nX: " + b"y" * 100_000 + b"\r\n\r\ndata\r\n" + END, "form: "),
        (part(b"x" * 100_001, name="a") + END, "too long"),
        (b"".join(part(name=f"f{n}") for n in range(201)) + END, "too many fields"),
    ],
)
def test_wrong_forms_are_refused(tmp_path, body, text):
    with pytest.raises(ConsoleError, match=text) as caught:
        read(tmp_path, body)
    assert caught.value.reason in ("invalid", "too_large")


@pytest.mark.parametrize(
    ("content_type", "reason"),
    [
        ("", "unsupported"),
        ("application/json", "unsupported"),
        ("multipart/form-data", "invalid"),
        ("multipart/form-data; boundary=", "invalid"),
        ("multipart/form-data; boundary=" + "x" * 71, "invalid"),
        ('multipart/form-data; boundary="a\r\nb"', "invalid"),
    ],
)
def test_wrong_content_types_are_refused(tmp_path, content_type, reason):
    with pytest.raises(ConsoleError) as caught:
        FormWriter(tmp_path, content_type)
    assert caught.value.reason == reason


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(form, "MOST_FILES", 3)
    with pytest.raises(ConsoleError, match="at most 3 at once"):
        read(tmp_path, part(name="files", filename="a") * 4 + END)


def test_full_disk_is_noticed_while_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(form, "_CHECK_BYTES", 1000)
    writer = FormWriter(tmp_path, TYPE)
    writer.write(part(b"", name="files", filename="a")[:-2])
    monkeypatch.setattr(form, "KEEP_FREE_BYTES", 2**62)
    with pytest.raises(ConsoleError, match="too full") as caught:
        writer.write(b"x" * 2000)
    writer.close()
    assert caught.value.reason == "storage"


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    pieces=st.lists(
        st.sampled_from(
            [b"--limit\r\n", b"--limit--", b"\r\n", b"--", b"Content-Disposition: form-data", b'; name="a"', b"\x00",
             b'; filename="b"', b"; filename*=UTF-8''%ff", b":", b"x" * 100, b'"', b"\\", b"=", b" ", b"\xff"]
        )
    )
)  # fmt: skip
def test_anything_is_read_or_refused(tmp_path, pieces):
    try:
        fields, files = read(tmp_path, b"".join(pieces))
    except ConsoleError:
        return
    assert len(fields) + len(files) <= len(pieces)
