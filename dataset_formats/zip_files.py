"""Opens zip files from outside: nothing in them decides how much memory reading them takes.

Rules this module keeps:
1. The directory is read only if so many entries can need it: `zipfile` makes an object of each entry at once.
2. `METHODS` are unpacked piece by piece. The others ignore the requested size and unpack all that was read at once.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import IO

from edge.errors import DataError

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# what zipfile raises for a damaged file
BAD_ZIP = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, KeyError, OverflowError, RuntimeError,
    NotImplementedError, IndexError, MemoryError,
)  # fmt: skip
_ENTRY_BYTES, _MORE_BYTES = 256, 64 << 10  # of a directory: for each entry, and for a few long names


def open_zip(file: IO[bytes], most_entries: int) -> zipfile.ZipFile:
    """Open a zip file; the caller closes `file`. The number of entries is still to be checked.

    Raises:
        DataError: its directory is larger than that of so many entries.
        zipfile.BadZipFile: it is none, or damaged; see BAD_ZIP.
    """
    bounded = _Bounded(file, most_entries)
    packed = zipfile.ZipFile(bounded)
    bounded.is_directory = False
    return packed


class _Bounded:
    """A file that refuses to read a large directory, which zipfile reads in one piece."""

    def __init__(self, file: IO[bytes], most_entries: int) -> None:
        self._file, self._most_entries = file, most_entries
        self.is_directory = True
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes."""
        if self.is_directory and size > _MORE_BYTES + _ENTRY_BYTES * self._most_entries:
            raise DataError(f"the zip file has more than {self._most_entries:,} files, or long names; send several")
        return self._file.read(size)
