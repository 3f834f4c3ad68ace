"""The one file of a multipart/form-data body (RFC 7578), as `curl -F image=@x.jpg` and web pages send it.

The body is in memory, and of a bounded size, before this looks at it; no part is copied but the file's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from edge.errors import PictureError

FORM = "multipart/form-data"

_MOST_PARTS = 32
_MOST_HEADER_BYTES = 4096  # of one part
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s";,]{1,70}))', re.IGNORECASE)
_QUOTED = re.compile(rb'"(?:\\.|[^"\\])*"')
_FILE = re.compile(rb"^content-disposition:.*;\s*filename\*?\s*=", re.IGNORECASE | re.MULTILINE)


def file_of(body: bytes, content_type: str, most: int) -> bytes:
    """The file that a form carries; its other fields are nobody's business.

    Args:
        body: of the request, whole.
        content_type: of the request; names the boundary between the parts.
        most: bytes of the file.

    Raises:
        PictureError: no form, a form cut short, or another number of files than one; or the file is too long.
    """
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        raise PictureError("broken", "form: found no boundary in its content type, expected one")
    files = [
        (begin, end)
        for head, begin, end in _parts(body, b"--" + (boundary[1] or boundary[2]).encode("latin-1"))
        if _FILE.search(_QUOTED.sub(b'""', head))
    ]
    if len(files) != 1:
        raise PictureError("broken" if files else "empty", f"form: found {len(files)} files, expected one")
    begin, end = files[0]
    if end - begin > most:
        raise PictureError("too_large", f"form: found a file of {end - begin} bytes, expected at most {most}")
    return body[begin:end]


def _parts(body: bytes, boundary: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The header lines of each part, and where its content begins and ends."""
    if not body.startswith(boundary):
        raise PictureError("broken", "form: found something else at its beginning, expected its boundary")
    at = len(boundary)
    for _ in range(_MOST_PARTS):
        if body.startswith(b"--", at):
            return
        begin = body.find(b"\r\n\r\n", at, at + _MOST_HEADER_BYTES)
        if begin < 0 or not body.startswith(b"\r\n", at):
            expected = f"a header of at most {_MOST_HEADER_BYTES} bytes"
            raise PictureError("broken", f"form: found a part without a header, expected {expected}")
        end = body.find(b"\r\n" + boundary, begin + 4)
        if end < 0:
            raise PictureError("truncated", f"form: found {len(body)} bytes, expected it to its end")
        yield body[at:begin], begin + 4, end
        at = end + 2 + len(boundary)
    raise PictureError("broken", f"form: found more than {_MOST_PARTS} parts, expected at most that")
