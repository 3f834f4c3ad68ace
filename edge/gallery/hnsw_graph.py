"""An HNSW graph of hnswlib, which proposes the rows near a query (Malkov and Yashunin 2018).

Rules this module keeps:
1. The graph of the same rows is the same: a fixed seed, one thread.
2. A damaged file crashes the process inside hnswlib (hnswlib #673). So a file is opened if its SHA-256 is the one that
   was written down beside it, and then first in a process of its own.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np

from edge.durable import replace_file, sha256_of, write_durably
from edge.gallery.row_blocks import RowBlocks, Rows
from edge.types import FloatArray

log = logging.getLogger(__name__)

_M, _EF_BUILD, _EF, _SEED = 16, 200, 64, 1
_OPEN_LIMIT_S = 60.0


class HnswGraph:
    """A graph of rows, by their places."""

    def __init__(self, graph: Any, count: int) -> None:
        """Wrap a graph of hnswlib.

        Args:
            graph: the graph.
            count: of its rows, at least one.
        """
        self._graph = graph
        self.count = count
        graph.set_num_threads(1)

    @classmethod
    def of(cls, rows: RowBlocks, count: int) -> HnswGraph:
        """Build the graph of the first rows; takes minutes for 100,000."""
        graph = hnswlib.Index(space="ip", dim=rows.dim)
        graph.init_index(count, ef_construction=_EF_BUILD, M=_M, random_seed=_SEED)
        graph.set_num_threads(1)
        for start, chunk in rows.chunks():
            part = slice(start, min(start + len(chunk), count))
            unit = chunk[: part.stop - start].astype(np.float32) * rows.weights.reshape(-1)[part, None]
            graph.add_items(unit, np.arange(part.start, part.stop))
        return cls(graph, count)

    def propose(self, query: FloatArray, count: int) -> Rows | None:
        """Return rows near a query, (dim,): None, if the search reached fewer than that many (hnswlib #321)."""
        self._graph.set_ef(max(_EF, count))
        try:
            rows: Rows = self._graph.knn_query(query[None], k=min(count, self.count))[0][0].astype(np.int64)
        except RuntimeError:
            log.warning("an HNSW search reached fewer than %s rows; all rows are read instead", count)
            return None
        return rows

    def save(self, path: Path, names: str) -> None:
        """Write the graph, and beside it what it is of and its hash.

        Args:
            path: the file.
            names: what the rows are.

        Raises:
            OSError: it cannot be written.
        """
        partial = path.with_name(path.name + ".partial")
        try:
            self._graph.save_index(str(partial))
            if partial.stat().st_size != self._graph.index_file_size():  # a full disk is no error of hnswlib
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            digest = sha256_of(partial)
            replace_file(partial, path)
        except RuntimeError as error:
            raise OSError(0, str(error)) from error
        finally:
            partial.unlink(missing_ok=True)  # a useless part must not keep a full disk full
        write_durably(_sidecar(path), f"{names}\n{digest}\n".encode())


def open_graph(path: Path, names: str, count: int, dim: int) -> HnswGraph | None:
    """Open a graph that was saved: None, if there is none of these rows or it is damaged.

    Args:
        path: the file.
        names: what the rows are, as given to `HnswGraph.save`.
        count: of the rows.
        dim: their length.
    """
    try:
        written = _sidecar(path).read_text(errors="replace")
        if written != f"{names}\n{sha256_of(path)}\n":
            return None
    except OSError:
        return None
    command = [sys.executable, "-m", "edge.gallery.hnsw_graph", str(path), str(count), str(dim)]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        if subprocess.run(command, capture_output=True, timeout=_OPEN_LIMIT_S, check=False).returncode == 0:
            with contextlib.suppress(OSError):
                os.utime(path)  # the cache drops what was not used for longest
            return HnswGraph(_load(path, count, dim), count)
    return None


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _load(path: Path, count: int, dim: int) -> Any:
    graph = hnswlib.Index(space="ip", dim=dim)
    graph.load_index(str(path), max_elements=count)
    if graph.get_current_count() != count:
        raise RuntimeError(f"found {graph.get_current_count()} rows, expected {count}")
    return graph


if __name__ == "__main__":
    _load(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
