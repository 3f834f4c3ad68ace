"""Cuts the gallery of a smaller embedder out of a stored one, without embedding its pictures again.

A smaller embedder keeps some heads of a whole one, or the first numbers of each (US 12,386,883: class and local, or
class and outline, on small devices; `edge-train shrink`). Its vectors are parts of the whole one's.

Rules this module keeps:
1. Only a measurement shows that one embedder is a part of another: both embed the same pictures, and the cut vectors
   of the whole one must be those of the smaller one. Otherwise nothing is written.
2. The gallery must be of the whole embedder's space.
3. Ids, labels, metadata, thumbnails, silhouettes and the time of embedding stay.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from edge.durable import fsync_folder, fsync_tree
from edge.errors import GalleryError
from edge.gallery.generation import INDEX_NAME, Gallery, read_gallery, write_gallery_index
from edge.gallery.limits import parse_metadata
from edge.gallery.store import new_store_path, read_category, read_thumbnails
from edge.gallery.store_file import open_store
from edge.gallery.writer import GalleryWriter
from edge.imaging.image import decode_image
from edge.inference.stages import Embedder
from edge.manifest.embedder import EmbedderModel, Head
from edge.telemetry.timing import Timings
from edge.types import FloatArray, Image

_PICTURES = 16  # that both embedders embed
# Cosines of both embedders' vectors of one picture. Measured on the demo's embedders (benchmarks/gallery_cut.py): INT8
# against FP32 0.9986 and above, embedders that were trained apart 0.19 and below.
LEAST_MEAN, LEAST_COSINE = 0.97, 0.9
_WHOLE_ONLY = ("sum", "whitened")  # heads that cannot be separated


@dataclass(frozen=True, slots=True)
class CutCategory:
    """One category of the gallery that was cut."""

    category: str
    items: int
    numbers: int  # of each vector
    before: int
    cosine: float | None  # mean, of both embedders' vectors of the same pictures; None: the embedder is the same


def cut_vectors(vectors: FloatArray, whole: Sequence[Head], part: Sequence[Head], share: float = 0.0) -> FloatArray:
    """Return the joint vectors that the smaller embedder gives.

    Args:
        vectors: (n, dim of all heads of `whole`).
        whole: heads of the whole embedder, in order.
        part: heads of the smaller one, in the same order; each may be shorter.
        share: of the classifier's descriptor in the smaller one's cosines.

    Returns:
        (n, dim of all heads of `part`) float32, rows of unit length.
    """
    starts = dict(zip([head.name for head in whole], np.cumsum([0, *(head.dim for head in whole)]), strict=False))
    parts = [_unit(vectors[:, starts[head.name] : starts[head.name] + head.dim]) for head in part]
    own = sum(head.name != "classifier" for head in part)
    weights = [np.sqrt(share) if head.name == "classifier" else np.sqrt((1.0 - share) / own) for head in part]
    return np.asarray(np.hstack([weight * one for weight, one in zip(weights, parts, strict=True)]), np.float32)


def _unit(rows: FloatArray) -> FloatArray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12), np.float32)


def cut_gallery(
    gallery: Gallery, whole: Mapping[str, Embedder], part: Mapping[str, Embedder], out: Path
) -> tuple[Gallery, list[CutCategory]]:
    """Write the gallery of the smaller embedders.

    Args:
        gallery: of the whole embedders.
        whole: the whole embedders, by category.
        part: the smaller ones, by category.
        out: folder to create.

    Raises:
        GalleryError: the gallery is of another space, an embedder is missing or is no part of the whole one, or the
            folder exists.
        EngineError: an embedder failed.
    """
    if out.exists():
        raise GalleryError(f"{out} already exists; choose a new --out folder")
    pairs = {name: _pair_of(gallery, name, whole, part) for name in gallery.categories}
    cosines = {name: _measured(gallery.path(name), *pair) for name, pair in pairs.items()}
    cut = []
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for name, (before, after) in pairs.items():
            entry = gallery.categories[name]
            if cosines[name] is None:
                shutil.copyfile(gallery.path(name), new_store_path(folder, name))
            else:
                _cut_store(gallery.path(name), name, before.model, after.model, folder)
            cut.append(CutCategory(name, entry.items, after.model.dim, before.model.dim, cosines[name]))
        write_gallery_index(folder, gallery.created_at)
        folder.chmod(0o755)
        fsync_tree(folder)
        folder.rename(out)
        fsync_folder(out.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return read_gallery(out), cut


def _pair_of(
    gallery: Gallery, category: str, whole: Mapping[str, Embedder], part: Mapping[str, Embedder]
) -> tuple[Embedder, Embedder]:
    """Return both embedders of a category, once their manifests allow a cut."""
    where = f"{gallery.folder / INDEX_NAME}: category {category!r}"
    for role, embedders in ("--whole", whole), ("--bundle", part):
        if category not in embedders:
            raise GalleryError(f"{where}: the bundle of {role} has no embedder of it; give one that has")
    before, after = whole[category].model, part[category].model
    found = gallery.categories[category].space_id
    if found != before.space_id:
        raise GalleryError(
            f"{where}: found embedding space {found[:12]}, expected that of --whole, {before.space_id[:12]}; give the "
            "bundle that the gallery was embedded with"
        )
    if after.space_id != before.space_id and (problem := _heads_problem(before.heads, after.heads)):
        raise GalleryError(f"{where}: {problem}")
    return whole[category], part[category]


def _heads_problem(whole: Sequence[Head], part: Sequence[Head]) -> str | None:
    """Return why no vectors of `part` can be cut out of those of `whole`; None if they can."""
    dims = {head.name: head.dim for head in whole}
    if fixed := [head.name for head in (*whole, *part) if head.name in _WHOLE_ONLY]:
        return f"vectors with the head {fixed[0]!r} cannot be cut; embed the gallery with --bundle"
    listed = [head.name for head in whole if head.name in {one.name for one in part}]
    if [head.name for head in part] != listed or any(head.dim > dims[head.name] for head in part):
        found, expected = (" + ".join(f"{head.name} {head.dim}" for head in heads) for heads in (part, whole))
        return f"the heads {found} are no part of {expected}; embed the gallery with --bundle"
    return None


def _measured(store: Path, whole: Embedder, part: Embedder) -> float | None:
    """Return the mean cosine of cut and own vectors of the same pictures; None if both embedders are the same.

    Raises:
        GalleryError: the smaller embedder is no part of the whole one.
    """
    if whole.model.space_id == part.model.space_id:
        return None
    pictures = _pictures(store)
    before, after = (one.embed_whole(pictures, Timings()) for one in (whole, part))
    cut = cut_vectors(before, whole.model.heads, part.model.heads, part.model.classifier_share)
    cosines = (cut * after).sum(axis=1)
    if cosines.mean() < LEAST_MEAN or cosines.min() < LEAST_COSINE:
        raise GalleryError(
            f"{store}: the embedder of --bundle is no part of that of --whole: of {len(pictures)} pictures, the cut "
            f"vectors and its own have a mean cosine of {cosines.mean():.3f}, expected {LEAST_MEAN} or more, and each "
            f"{LEAST_COSINE}; embed the gallery with --bundle"
        )
    return float(cosines.mean())


def _pictures(store: Path) -> list[Image]:
    """Return thumbnails of the store; random pictures where it has none."""
    shown = [decode_image(data, f"{store}: thumbnail of {item}") for item, data in _spread(store)]
    if shown:
        return shown
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (_PICTURES, 8, 8, 3)).astype(np.uint8)
    return list(coarse.repeat(16, axis=1).repeat(16, axis=2))


def _spread(store: Path) -> Iterator[tuple[str, bytes]]:
    """Yield some thumbnails of a store, from all over it."""
    with open_store(store) as opened:
        (count,) = opened.execute("SELECT count(*) FROM items").fetchone()
    found = list(islice(read_thumbnails(store, max(1, count // _PICTURES)), _PICTURES))
    yield from found or islice(read_thumbnails(store), _PICTURES)


def _cut_store(store: Path, category: str, whole: EmbedderModel, part: EmbedderModel, out: Path) -> None:
    """Write the store of one category with cut vectors."""
    items = read_category(store, whole.space_id, whole.dim)
    ends = np.searchsorted(items.row_item, np.arange(len(items.item_ids) + 1))
    query = "SELECT item_id, label, metadata, thumbnail, outline FROM items WHERE deleted = 0 ORDER BY rowid"
    with GalleryWriter(out, category, part.space_id, list(part.heads)) as writer, open_store(store) as opened:
        for number, (item_id, label, metadata, thumbnail, outline) in enumerate(opened.execute(query)):
            rows = slice(ends[number], ends[number + 1])
            vectors = items.vectors_i8[rows].astype(np.float32) * items.scales[rows, None]
            cut = cut_vectors(vectors, whole.heads, part.heads, part.classifier_share)
            try:
                writer.add(item_id, label, cut, parse_metadata(metadata), thumbnail, outline)
            except ValueError as error:
                raise GalleryError(f"{store}: item {item_id!r}: damaged metadata: {error}") from error
