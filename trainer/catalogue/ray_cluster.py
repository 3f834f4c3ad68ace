"""Embed a shard on many machines: the door to Ray Data. A run reports nothing to anybody: Ray's usage report is off."""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when Ray is imported

import ray
import ray.data

from edge.errors import FinesightError, TrainError
from edge.imaging.image import set_threads
from trainer.catalogue.embed_item import EmbedOptions, ItemEmbedder
from trainer.catalogue.items import CatalogueItem
from trainer.catalogue.part_files import KnownRecords, Record, WrittenPart, read_known, write_part
from trainer.catalogue.run_shard import CHUNK_PICTURES, Work, seal_shard
from trainer.catalogue.shard_seals import ShardSeal
from trainer.catalogue.storage import Folder, copy_tree, local_path

LOCAL = "local"  # instead of an address: processes on this machine
_Orders = list[tuple[tuple[str, str], str]]  # category and id, and the key of the record, of each item


def embed_on_ray(
    work: Work, bundle: str, options: EmbedOptions, parts: Folder, address: str, jobs: int | None = None
) -> ShardSeal:
    """Embed the items of a shard with one actor per core of a cluster; write its parts and its seal.

    Args:
        work: the shard.
        bundle: folder or URL that every machine can read.
        options: what the gallery holds of each item.
        parts: folder or URL that every machine can write to.
        address: of the cluster, such as `auto` or `ray://head:10001`; `local`: processes on this machine.
        jobs: most actors; None: as many as the cluster has cores.

    Raises:
        TrainError: the cluster cannot be reached, or an actor failed.
    """
    known = read_known(parts)
    used: dict[tuple[str, str], str] = {}
    try:
        _connect(address, jobs)
        cores = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
        for reused, written in _embedded(work, bundle, options, parts, known, cores):
            used |= dict(reused)
            if written is not None:
                known.add(written)
                used |= dict(written.records)
    except FinesightError:
        raise
    except Exception as error:  # Ray raises whatever its parts raise
        raise TrainError(f"ray {address}: {_cause(error)}") from error
    finally:
        ray.shutdown()
    return seal_shard(work, parts, known, used)


def _connect(address: str, jobs: int | None) -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)  # its progress is not ours
    if address == LOCAL:
        ray.init(num_cpus=jobs, include_dashboard=False, logging_level="ERROR", configure_logging=False)
    else:
        ray.init(address=address, logging_level="ERROR", configure_logging=False)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _embedded(
    work: Work, bundle: str, options: EmbedOptions, parts: Folder, known: KnownRecords, cores: int
) -> Iterator[tuple[_Orders, WrittenPart | None]]:
    """Yield what each chunk of items gave: the records that were known, and the part that was written."""
    rows = [
        {"chunk": pickle.dumps([(item, known.keys(item.order)) for item in chunk])} for chunk in _chunks(work.items)
    ]
    if not rows:
        return
    actors = min(cores, len(rows))
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Embedding,
        fn_constructor_args=(bundle, options, parts.where),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
    )
    for row in done.iter_rows():
        result = pickle.loads(row["result"])  # noqa: S301  from our own actor
        if isinstance(result, str):
            raise TrainError(result)
        yield result


class _Embedding:
    """An actor: opens the bundle once, embeds chunks of items, and writes a part for each."""

    def __init__(self, bundle: str, options: EmbedOptions, parts: str) -> None:
        set_threads(1)
        self._parts = Folder(parts)
        self._problem: str | None = None
        try:
            with tempfile.TemporaryDirectory() as temporary:
                folder = local_path(bundle) or copy_tree(bundle, Path(temporary))
                self._embedder = ItemEmbedder(folder, options)
        except FinesightError as error:
            self._problem = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        results = [self._embed(pickle.loads(chunk)) for chunk in batch["chunk"]]  # noqa: S301  from our own driver
        return {"result": [pickle.dumps(result) for result in results]}

    def _embed(self, chunk: Sequence[tuple[CatalogueItem, frozenset[str]]]) -> tuple[_Orders, WrittenPart | None] | str:
        """Embed a chunk; an error is returned as its text."""
        if self._problem is not None:
            return self._problem
        try:
            results = [(item.order, self._embedder.embed(item, keys)) for item, keys in chunk]
            made = [result for _, result in results if isinstance(result, Record)]
            reused = [(order, result) for order, result in results if isinstance(result, str)]
            return reused, write_part(self._parts, made) if made else None
        except FinesightError as error:
            return str(error)


def _chunks(items: Sequence[CatalogueItem]) -> Iterator[list[CatalogueItem]]:
    """Cut the items of a shard as a run without Ray does."""
    chunk: list[CatalogueItem] = []
    for item in items:
        chunk.append(item)
        if sum(len(one.pictures) for one in chunk) >= CHUNK_PICTURES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _cause(error: BaseException) -> str:
    """Return the last line of an error of Ray, which names what went wrong; the lines before are a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
