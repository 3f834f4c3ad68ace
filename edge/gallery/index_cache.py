"""Keep the lists or graphs of large categories in files, so that a start need not build them again.

Rules this module keeps:
1. A file is a copy of what can be computed, never an authority: one that is missing, damaged or of other rows is
   ignored, counted, and written again. The vectors themselves come from the store.
2. A file of lists is plain arrays behind a header and a SHA-256: nothing in it is run, and its sizes are checked before
   they are used. For a graph see edge.gallery.hnsw_graph.
3. The folder is bounded: the files that were used longest ago go first.
4. Nothing stays of a store that is gone: it may have been removed because items were deleted from it. Whoever removes
   a store removes the files of the folder afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edge.durable import make_folder, oldest_first, set_aside, write_durably
from edge.gallery.inverted_lists import LEVELS, MAX_LISTS, Clustering
from edge.telemetry.counters import Counters
from edge.types import Counts

log = logging.getLogger(__name__)

CACHE_NAME = "gallery_lists"  # of its folder in the cache of a device
_SUFFIX, _GRAPH_SUFFIX = ".lists", ".hnsw"
_MAGIC = b"finesight lists 1\n"  # the number changes with the format and with how lists are made
_HEADER = struct.Struct(f"<32sIII{LEVELS}I{LEVELS}f")  # SHA-256 of the key; rows, dim, lists; reads, enough
_DIGEST_BYTES = 32
_MAX_BYTES = 64 << 20  # of all files
_MAX_GRAPH_BYTES = 2 << 30  # of all HNSW graphs; the newest stays, however large


@dataclass(slots=True)
class IndexCache:
    """A folder of clusterings and graphs, by a key that names the rows."""

    folder: Path
    counts: Counts = field(default_factory=Counters)  # `gallery_cache` by result
    max_bytes: int = _MAX_BYTES
    source: Path | None = None  # the store that the rows come from; None: from none

    def of(self, source: Path) -> IndexCache:
        """Return the same folder, for the rows of one store."""
        return replace(self, source=source)

    def read(self, key: str, rows: int, dim: int) -> Clustering | None:
        """Return the clustering of the rows with this key, None if there is none that fits.

        Args:
            key: names the rows and their order.
            rows: how many there are.
            dim: their length.
        """
        path = self._path(key)
        size = _size(rows, dim, MAX_LISTS)
        try:
            with path.open("rb") as file:
                data = file.read(size + 1)
        except FileNotFoundError:
            self.counts.add("gallery_cache", result="miss")
            return None
        except OSError as error:
            self._ignore(path, str(error.strerror))
            return None
        clustering = _decode(data, key, rows, dim)
        if clustering is None:
            self._ignore(path, "damaged, or of other rows")
            return None
        self.counts.add("gallery_cache", result="hit")
        with contextlib.suppress(OSError):
            os.utime(path)
        return clustering

    def graph_path(self, key: str) -> Path:
        """Return where the HNSW graph of the rows with this key belongs."""
        return self._path(key, _GRAPH_SUFFIX)

    def write(self, key: str, clustering: Clustering) -> None:
        """Write a clustering. A failure is counted and logged: the next start builds the lists again."""
        data = _encode(key, clustering)
        self._write(self._path(key), lambda path: write_durably(path, data), self.max_bytes)

    def write_graph(self, key: str, save: Callable[[Path, str], None]) -> None:
        """Write an HNSW graph, as `write`.

        Args:
            key: names its rows.
            save: writes it to a path, with the key beside it.
        """
        self._write(self.graph_path(key), lambda path: save(path, key), _MAX_GRAPH_BYTES)

    def _write(self, path: Path, save: Callable[[Path], None], max_bytes: int) -> None:
        try:
            if self._is_source_gone():
                return
            make_folder(self.folder)
            set_aside(path)
            save(path)
            if self._is_source_gone():  # it went meanwhile
                self._remove(path)
            self._trim(path.suffix, max_bytes)
        except OSError as error:
            self.counts.add("gallery_cache", result="not_written")
            log.warning("%s: cannot keep the index of a gallery: %s", self.folder, error.strerror)

    def _trim(self, suffix: str, max_bytes: int) -> None:
        """Remove the files that were used longest ago, each with what lies beside it, down to a size or one file."""
        files = oldest_first(self.folder, f"*{suffix}")
        excess = sum(size for _, size in files) - max_bytes
        for path, size in files[:-1]:
            if excess > 0:
                self._remove(path)
                excess -= size

    def _remove(self, path: Path) -> None:
        """Remove a file and what lies beside it."""
        for one in self.folder.glob(f"{path.name}*"):
            one.unlink(missing_ok=True)

    def _is_source_gone(self) -> bool:
        if self.source is None or self.source.exists():
            return False
        self.counts.add("gallery_cache", result="not_written")
        log.info("%s: is gone; the index of its rows is not kept", self.source)
        return True

    def _path(self, key: str, suffix: str = _SUFFIX) -> Path:
        return self.folder / f"{_hash(key).hex()[:32]}{suffix}"

    def _ignore(self, path: Path, why: str) -> None:
        self.counts.add("gallery_cache", result="damaged")
        log.warning("%s: %s; the lists are built again", path, why)


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _size(rows: int, dim: int, lists: int) -> int:
    return len(_MAGIC) + _HEADER.size + 4 * lists * dim + 2 * rows + _DIGEST_BYTES


def _encode(key: str, one: Clustering) -> bytes:
    lists, dim = one.centres.shape
    header = _HEADER.pack(_hash(key), len(one.list_of), dim, lists, *one.reads, *one.enough)
    body = one.centres.astype("<f4").tobytes() + one.list_of.astype("<u2").tobytes()
    data = _MAGIC + header + body
    return data + hashlib.sha256(data).digest()


def _decode(data: bytes, key: str, rows: int, dim: int) -> Clustering | None:
    """Return the clustering in a file, None if it is not one of these rows."""
    start = len(_MAGIC) + _HEADER.size
    if not data.startswith(_MAGIC) or len(data) < start:
        return None
    found_key, found_rows, found_dim, lists, *levels = _HEADER.unpack_from(data, len(_MAGIC))
    reads, enough = tuple(levels[:LEVELS]), tuple(levels[LEVELS:])
    if (found_key, found_rows, found_dim) != (_hash(key), rows, dim) or len(data) != _size(rows, dim, lists):
        return None
    if hashlib.sha256(data[:-_DIGEST_BYTES]).digest() != data[-_DIGEST_BYTES:] or not all(
        1 <= a <= lists for a in reads
    ):
        return None
    centres = np.frombuffer(data, "<f4", lists * dim, start).astype(np.float32).reshape(lists, dim)
    list_of = np.frombuffer(data, "<u2", rows, start + 4 * lists * dim).astype(np.uint16)
    if not np.all(np.isfinite(enough)) or not np.all(np.isfinite(centres)) or int(list_of.max(initial=0)) >= lists:
        return None
    return Clustering(centres, list_of, reads, enough)
