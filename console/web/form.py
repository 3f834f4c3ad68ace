"""Writes a multipart form (RFC 7578) to a folder as it arrives. The console's only user of python_multipart.

Rules this module keeps:
1. Files go to disk at once; memory holds one part of the body and the small fields.
2. The name that a browser gives a file is a text, never a path: the files are called 0, 1, 2 ….
3. The number of files and fields, the length of a field and of its head are bounded.
"""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from console.web.routing import UploadedFile
from edge.errors import ConsoleError

if TYPE_CHECKING:  # the library has it for type checkers only
    from python_multipart.multipart import MultipartCallbacks

MOST_FILES, MOST_FIELDS = 2000, 200
KEEP_FREE_BYTES = 256 * 1024**2  # an upload never fills the disk of the database
_FIELD_BYTES = 100_000
_MAX_HEADERS, _MAX_HEADER_BYTES = 8, 4096  # of one part
_CHECK_BYTES = 16 * 1024**2  # how often the free space is looked at
_NAME_CHARACTERS = 255
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046 5.1.1
_ESCAPED = re.compile("%(22|0D|0A)")  # all that browsers escape in a file name (HTML, "multipart/form-data")
_SILENT = logging.Logger(__name__, logging.CRITICAL + 1)  # noqa: LOG001  the sender gets the error, not the log


class FormWriter:
    """Takes the body of a form piece by piece, and writes its files to a folder."""

    def __init__(self, folder: Path, content_type: str) -> None:
        """Begin a form.

        Raises:
            ConsoleError: the content type names no form or no valid boundary.
        """
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data":
            raise ConsoleError("unsupported", "send the files as a form, multipart/form-data")
        if not _BOUNDARY.fullmatch(boundary):
            raise ConsoleError("invalid", "form: the content type names no valid boundary")
        self.fields: list[tuple[str, str]] = []
        self.files: list[UploadedFile] = []
        self._folder, self._is_complete = folder, False
        self._file: BinaryIO | None = None
        self._size, self._unchecked = 0, 0
        self._header, self._value = b"", b""
        self._name: bytes | None = None
        self._file_name: bytes | None = None
        self._data = bytearray()
        self._parser = MultipartParser(
            boundary, self._callbacks(), max_header_count=_MAX_HEADERS, max_header_size=_MAX_HEADER_BYTES
        )
        self._parser.logger = _SILENT

    def write(self, data: bytes) -> None:
        """Take a piece of the body.

        Raises:
            ConsoleError: it is no form, or holds too much, or the disk is full.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise ConsoleError("invalid", f"form: {str(error)[:200]}") from None
        except OSError as error:
            raise ConsoleError("storage", f"the upload cannot be written: {error.strerror}") from error

    def end(self) -> None:
        """Check that the form is complete.

        Raises:
            ConsoleError: the last boundary is missing.
        """
        if not self._is_complete:
            raise ConsoleError("invalid", "form: it ends without the last boundary; send it again")

    def close(self) -> None:
        """Close the file at hand."""
        if self._file is not None:
            self._file.close()

    def _callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._part_data,
            "on_part_end": self._end_part,
            "on_end": self._end_form,
        }

    def _begin_part(self) -> None:
        self._name = self._file_name = None
        self._data.clear()
        self._size = 0

    def _header_field(self, data: bytes, begin: int, end: int) -> None:
        self._header += data[begin:end]

    def _header_value(self, data: bytes, begin: int, end: int) -> None:
        self._value += data[begin:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name, self._file_name = options.get(b"name"), options.get(b"filename")
        self._header = self._value = b""

    def _end_headers(self) -> None:
        if not self._name:
            raise ConsoleError("invalid", "form: a part has no name")
        if self._file_name is None:
            if len(self.fields) >= MOST_FIELDS:
                raise ConsoleError("too_large", f"form: it has too many fields; send at most {MOST_FIELDS}")
            return
        if len(self.files) >= MOST_FILES:
            raise ConsoleError("too_large", f"form: it has too many files; send at most {MOST_FILES} at once")
        check_free_space(self._folder, 0)
        self._file = (self._folder / str(len(self.files))).open("wb")

    def _part_data(self, data: bytes, begin: int, end: int) -> None:
        self._size += end - begin
        if self._file is None:
            if self._size > _FIELD_BYTES:
                raise ConsoleError("too_large", f"form: a field is too long; send at most {_FIELD_BYTES} bytes")
            self._data += data[begin:end]
            return
        self._file.write(memoryview(data)[begin:end])
        self._unchecked += end - begin
        if self._unchecked >= _CHECK_BYTES:
            self._unchecked = 0
            check_free_space(self._folder, 0)

    def _end_part(self) -> None:
        if self._file is None:
            self.fields.append((_text(self._name), self._data.decode("utf-8", "replace")))
            return
        path = Path(self._file.name)
        self._file.close()
        self._file = None
        if self._file_name == b"" and self._size == 0:  # of an empty field for files
            path.unlink()
            return
        self.files.append(UploadedFile(_file_name(self._file_name), path, self._size))

    def _end_form(self) -> None:
        self._is_complete = True


def check_free_space(folder: Path, size: int) -> None:
    """Check that so many bytes may be written, and some space stays.

    Raises:
        ConsoleError: the disk is too full.
    """
    free = shutil.disk_usage(folder).free
    if free - size < KEEP_FREE_BYTES:
        raise ConsoleError(
            "storage",
            f"the disk of the console is too full: {free / 1e6:,.0f} MB are free, and {KEEP_FREE_BYTES / 1e6:,.0f} MB "
            "must stay; free some, then send it again",
        )


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")


def _file_name(data: bytes | None) -> str:
    """Return the name of a file as text that can be shown and stored."""
    written = _ESCAPED.sub(lambda code: chr(int(code[1], 16)), _text(data))
    shown = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in written)
    return shown[-_NAME_CHARACTERS:]
