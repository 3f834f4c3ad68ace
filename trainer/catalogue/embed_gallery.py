"""Embed catalogue pictures into a gallery for a bundle, with the engine and preprocessing of the device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataset_formats.records import Sample
from edge.gallery.item_vectors import ENOUGH_PICTURES
from edge.inference.engine import Backend
from trainer.catalogue.embed_item import EmbedOptions, ItemEmbedder
from trainer.catalogue.items import Shard, collect_items
from trainer.catalogue.run_shard import default_parts, embed_shard, plan_work
from trainer.catalogue.seal_gallery import EmbeddedGallery, remove_shards, seal_gallery
from trainer.catalogue.storage import Folder


def embed_gallery(
    bundle: Path,
    samples: Sequence[Sample],
    out: Path,
    *,
    trimmed: Sequence[str] = ("catalogue",),
    negatives: Sequence[str] = (),
    per_item: int | None = None,
    few: int = ENOUGH_PICTURES,
    thumbnail_px: int = 96,
    backend: Backend = "onnxruntime",
    created_at: str | None = None,
    jobs: int | None = None,
) -> EmbeddedGallery:
    """Embed pictures and write a gallery generation: one store per category, with thumbnails.

    An item without a readable picture is left out, and its pictures are in `skipped`. A category that the bundle cannot
    embed is left out and counted. With a localiser in the bundle, the gallery also holds silhouettes of its pictures.
    What a killed run had embedded lies beside `out`, and the next run goes on from there.

    Args:
        bundle: folder with `bundle.json`.
        samples: pictures of every item; the first picture of an item becomes its thumbnail.
        out: folder of the generation.
        trimmed: splits whose pictures show one object on a plain background, see edge.imaging.image.trim.
        negatives: splits of negative pictures: an object that is nearest to one of their items is not named.
        per_item: most pictures of an item to use; None: all.
        few: items with fewer pictures also get augmented views, turned and closer; 0: never.
        thumbnail_px: longer side of the thumbnail.
        backend: inference engine.
        created_at: ISO 8601, UTC; None: now.
        jobs: threads; None: one for each core. The result is the same.

    Raises:
        TrainError: no picture can be read, or the bundle has no embedder for any of the categories.
        BundleError, EngineError, GalleryError: bundle, engine or gallery cannot be used.
    """
    options = EmbedOptions(tuple(trimmed), few, thumbnail_px, backend)
    embedder = ItemEmbedder(bundle, options)
    parts = Folder(default_parts(out))
    work = plan_work(collect_items(samples, negatives, per_item), embedder, options, Shard(), str(bundle))
    seal = embed_shard(work, embedder, parts, jobs)
    done = seal_gallery([(parts, seal)], embedder.manifest, out, created_at)
    remove_shards([parts])
    return done
