"""`edge-train embed` and `edge-train seal`: a catalogue becomes a gallery, at once or shard by shard."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import TrainError
from edge.gallery.item_vectors import ENOUGH_PICTURES

if TYPE_CHECKING:
    from trainer.catalogue.seal_gallery import EmbeddedGallery
    from trainer.catalogue.shard_seals import ShardSeal
    from trainer.catalogue.storage import Folder

log = logging.getLogger(__name__)


def add_embed(commands: Any) -> None:
    """Add the arguments of `edge-train embed`."""
    text = "embed catalogue pictures into a gallery for a bundle"
    embed = commands.add_parser("embed", help=text, description=f"{text[0].upper()}{text[1:]}.")
    embed.add_argument("--bundle", required=True, help="bundle folder, or its URL")
    embed.add_argument("--data", required=True, help="data set of any layout, such as an index.csv, or its URL")
    embed.add_argument("--root", help="folder or URL that paths in the index are relative to; default: its own folder")
    embed.add_argument(
        "--split",
        help="splits of the pictures to embed, comma-separated; default: catalogue, else train",
    )
    embed.add_argument(
        "--negative", help="split of negative pictures: an object that is nearest to one of them is not named"
    )
    embed.add_argument("--per-item", type=int, help="largest number of pictures to use for each item")
    embed.add_argument(
        "--few",
        type=int,
        default=ENOUGH_PICTURES,
        help="augment the views of items with fewer pictures than this; 0: never; default: %(default)s",
    )
    embed.add_argument("-o", "--out", required=True, help="folder or URL for the gallery generation")
    embed.add_argument("--jobs", type=int, help="threads, or processes with --ray; default: one for each core")
    embed.add_argument(
        "--shard", metavar="I/N", help="embed only part I of N, for edge-train seal to join; the parts go to --parts"
    )
    embed.add_argument(
        "--parts",
        help="folder or URL that keeps what is embedded, for a later run to go on from; default: OUT.parts, which is "
        "removed when the gallery is whole",
    )
    embed.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="embed on a Ray cluster, such as auto or ray://head:10001; local: in processes on this machine",
    )


def add_seal(commands: Any) -> None:
    """Add the arguments of `edge-train seal`."""
    text = "join the shards that edge-train embed --shard has written into a gallery"
    seal = commands.add_parser("seal", help=text, description=f"{text[0].upper()}{text[1:]}.")
    seal.add_argument("parts", nargs="+", metavar="PARTS", help="folders or URLs of the shards' parts")
    seal.add_argument("--bundle", required=True, help="the bundle that embedded them: its folder or URL")
    seal.add_argument("-o", "--out", required=True, help="folder or URL for the gallery generation")


def run_embed(args: argparse.Namespace) -> dict[str, object]:
    """Run `edge-train embed`; return its answer.

    Raises:
        FinesightError: the data, the bundle, an engine or a folder cannot be used.
    """
    from edge.imaging.image import set_threads
    from trainer.catalogue.embed_item import EmbedOptions, ItemEmbedder
    from trainer.catalogue.items import Shard, collect_items, parse_shard
    from trainer.catalogue.run_shard import default_parts, embed_shard, plan_work
    from trainer.catalogue.seal_gallery import remove_shards
    from trainer.catalogue.storage import Folder, url_of

    for option, number in (("--jobs", args.jobs), ("--per-item", args.per_item)):
        if number is not None and number < 1:
            raise TrainError(f"{option}: found {number}, expected 1 or more")
    shard = parse_shard(args.shard) if args.shard else Shard()
    chosen, never = _choose(args)
    samples = [*chosen.samples, *(never.samples if never else ())]
    where = url_of if _is_remote(args) else str
    items = collect_items(samples, never.splits if never else (), args.per_item, where)
    parts = Folder(args.parts or default_parts(args.out))
    options = EmbedOptions(few=args.few)
    set_threads(1)  # the jobs keep the cores busy
    with _local_bundle(args.bundle) as bundle:
        embedder = ItemEmbedder(bundle, options)
        work = plan_work(items, embedder, options, shard, args.bundle)
        if args.ray:
            from trainer.catalogue.ray_cluster import embed_on_ray

            seal = embed_on_ray(work, args.bundle, options, parts, args.ray, args.jobs)
        else:
            seal = embed_shard(work, embedder, parts, args.jobs)
        answer: dict[str, object] = {"splits": list(chosen.splits)}
        if args.shard:
            return answer | {"parts": parts.where, "shard": seal.name, "items": seal.items} | seal.counts
        done = _seal([(parts, seal)], bundle, args.out)
    if not args.parts:
        remove_shards([parts])
    return answer | done


def run_seal(args: argparse.Namespace) -> dict[str, object]:
    """Run `edge-train seal`; return its answer.

    Raises:
        FinesightError: a shard is missing, there twice, damaged or of something else.
    """
    from trainer.catalogue.shard_seals import read_seals
    from trainer.catalogue.storage import Folder

    seals = read_seals([Folder(one) for one in args.parts])
    with _local_bundle(args.bundle) as bundle:
        return _seal(seals, bundle, args.out)


def _choose(args: argparse.Namespace) -> tuple[Any, Any]:
    """Return the pictures to embed, and the negative ones or None."""
    from trainer.catalogue.storage import local_path
    from trainer.catalogue.url_listing import list_url
    from trainer.data.asked_splits import choose_asked, choose_references
    from trainer.data.dataset import read_samples

    source = local_path(args.data) or Path(args.data)
    if _is_remote(args):
        listed = list_url(args.data, args.root)
    else:
        listed = read_samples(source, local_path(args.root) if args.root else None)
    chosen = choose_references(listed, args.split, source)
    if chosen.why:
        log.warning("%s: %s", args.data, chosen.why)
    return chosen, choose_asked(listed, args.negative, source, "--negative") if args.negative else None


def _is_remote(args: argparse.Namespace) -> bool:
    """Return whether the index or its pictures are in object storage."""
    from trainer.catalogue.storage import local_path

    return any(local_path(where) is None for where in (args.data, args.root) if where)


def _seal(seals: Sequence[tuple[Folder, ShardSeal]], bundle: Path, out: str) -> dict[str, object]:
    """Write the gallery; return what the command answers."""
    from trainer.catalogue.embed_item import read_manifest
    from trainer.catalogue.seal_gallery import seal_gallery
    from trainer.catalogue.storage import Folder, local_path

    manifest = read_manifest(bundle)
    if (folder := local_path(out)) is not None:
        return _answer(out, seal_gallery(seals, manifest, folder))
    with tempfile.TemporaryDirectory() as temporary:
        done = seal_gallery(seals, manifest, Path(temporary))
        for path in sorted(Path(temporary).iterdir(), key=lambda one: one.suffix == ".json"):  # the index comes last
            Folder(out).upload(path)
        return _answer(out, done)


def _answer(out: str, done: EmbeddedGallery) -> dict[str, object]:
    return {
        "out": out,
        "generation": done.gallery.generation,
        "items": done.gallery.items,
        "pictures": done.pictures,
        "skipped": len(done.skipped),
        "not_embedded": done.not_embedded,
        "damaged_parts": done.damaged_parts,
    }


@contextmanager
def _local_bundle(where: str) -> Iterator[Path]:
    """Give the folder of a bundle; one in object storage is copied."""
    from trainer.catalogue.storage import copy_tree, local_path

    if (folder := local_path(where)) is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield copy_tree(where, Path(temporary))
