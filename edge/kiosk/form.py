"""Find the file in a multipart form (RFC 7578). The only module that imports python_multipart."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from edge.errors import PictureError

if TYPE_CHECKING:  # the library has it for type checkers only
    from python_multipart.multipart import MultipartCallbacks

_MAX_PARTS = 32
_MAX_HEADERS, _MAX_HEADER_BYTES = 8, 2048  # of one part
_EXTENDED_NAME = re.compile(rb";\s*filename\*=", re.IGNORECASE)  # RFC 5987, which browsers do not send
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046 5.1.1

_SILENT = logging.Logger(__name__, logging.CRITICAL + 1)  # noqa: LOG001  of a parser, whose warnings are counted instead


def file_from_form(body: bytes, content_type: str, max_bytes: int) -> bytes:
    """Return the file in a multipart form. Other fields are ignored.

    Args:
        body: of the request, complete.
        content_type: of the request; names the boundary between the parts.
        max_bytes: of the file.

    Raises:
        PictureError: the body is not a form, is truncated, holds no file or several, or the file is too long.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise PictureError("broken", "form: the content type names no valid boundary; send one")
    if not body.startswith(b"--" + boundary):
        raise PictureError("broken", "form: the body does not begin with the boundary")
    delimiter = b"\r\n--" + boundary
    # the parser is slow at what only looks like a boundary, and at spaces after one
    if body.count(delimiter) > _MAX_PARTS:
        raise PictureError("broken", f"form: too many parts; send at most {_MAX_PARTS}")
    if any(body.startswith(space, len(delimiter) - 2) or delimiter + space in body for space in (b" ", b"\t")):
        raise PictureError("broken", "form: a space follows a boundary; send the boundary alone")
    form = _Form()
    try:
        parser = MultipartParser(
            boundary, form.callbacks(), max_header_count=_MAX_HEADERS, max_header_size=_MAX_HEADER_BYTES
        )
        parser.logger = _SILENT
        parser.write(body)
    except FormParserError as error:
        raise PictureError("broken", f"form: {error}") from None
    if not form.is_complete:
        raise PictureError("truncated", f"form: the body ends after {len(body)} bytes without the last boundary")
    if len(form.files) != 1:
        raise PictureError("broken" if form.files else "empty", f"form: it holds {len(form.files)} files; send one")
    begin, end = form.files[0]
    if end - begin > max_bytes:
        raise PictureError("too_large", f"form: the file has {end - begin} bytes; send at most {max_bytes}")
    return body[begin:end]


class _Form:
    """Where the files of a form are, as its parser tells; the form is given to the parser in one piece."""

    def __init__(self) -> None:
        self.files: list[tuple[int, int]] = []  # begin and end
        self.is_complete = False
        self._name = self._value = b""  # of the header at hand
        self._is_file, self._begin, self._end = False, 0, 0

    def callbacks(self) -> MultipartCallbacks:
        """Return what the parser calls."""
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._end_header,
            "on_part_data": self._part_data,
            "on_part_end": self._end_part,
            "on_end": self._end_form,
        }

    def _begin_part(self) -> None:
        self._is_file, self._begin, self._end = False, 0, 0

    def _header_field(self, data: bytes, begin: int, end: int) -> None:
        self._name += data[begin:end]

    def _header_value(self, data: bytes, begin: int, end: int) -> None:
        self._value += data[begin:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            unquoted = b"".join(self._value.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
            is_named = b"filename" in parse_options_header(self._value)[1]
            self._is_file = is_named or _EXTENDED_NAME.search(unquoted) is not None
        self._name = self._value = b""

    def _part_data(self, _: bytes, begin: int, end: int) -> None:
        self._begin, self._end = self._begin or begin, end

    def _end_part(self) -> None:
        if self._is_file:
            self.files.append((self._begin, self._end))

    def _end_form(self) -> None:
        self.is_complete = True
