"""Embeds the pictures of one item with a published bundle, as a gallery made from a folder of pictures has them.

Rules this module keeps:
1. The models, their preprocessing and the runtime are those of the device. The files of the bundle are verified first.
2. Only the models that an item needs are loaded: its embedder, what this depends on, and the localiser.
3. A picture that cannot be read is an error: nothing is published from half of the pictures.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.errors import SyncError
from edge.gallery.item_vectors import ENOUGH_PICTURES, augment_views
from edge.imaging import image
from edge.imaging.pyramid import Pyramid
from edge.inference.stages import Embedder, Localiser, load_stages
from edge.manifest.manifest import Manifest
from edge.telemetry.timing import Timings
from edge.types import FloatArray, Image
from gallery_sync.formats.fields import ObjectRef, object_path
from gallery_sync.repository.folder import object_problem

_THUMBNAIL_PX = 96  # longer side
_AT_ONCE = 8  # pictures of one run, or what the model allows
MOST_PICTURES = 1000  # of one item


@dataclass(frozen=True, slots=True)
class EmbeddedPictures:
    """What a gallery keeps of the pictures of an item."""

    space_id: str
    vectors: FloatArray  # (n, dim), rows of unit length
    silhouettes: bytes | None  # one of each picture that shows the object; None: the bundle has no localiser
    thumbnail: bytes  # JPEG, of the first picture


def embed_pictures(
    repo: Path, manifest: Manifest, category: str, pictures: Sequence[Path], *, trim: bool = False
) -> EmbeddedPictures:
    """Embed the pictures of an item.

    Args:
        repo: the repository folder, which has the objects of the bundle.
        manifest: of the bundle.
        category: of the item.
        pictures: files, the first one for the thumbnail. Fewer than four are embedded turned and enlarged, too.
        trim: each shows one object on a plain background, which is cut out first.

    Raises:
        SyncError: the bundle has no embedder for the category, an object is damaged, or there are too many pictures.
        CaptureError: a picture cannot be read.
        EngineError: a model cannot run on this machine.
    """
    model = manifest.embedder_for(category)
    if model is None:
        raise SyncError(f"bundle {manifest.bundle_id} has no embedder for category {category[:80]!r}; give --vectors")
    if not 1 <= len(pictures) <= MOST_PICTURES:
        raise SyncError(f"found {len(pictures)} pictures, expected 1 to {MOST_PICTURES}")
    shown = [image.read_image(path) for path in pictures]
    if trim:
        shown = [image.trim(one, model.preprocess.crop_margin) for one in shown]
    needed = manifest.model_copy(
        update={
            "detector": None,
            "finder": None,
            "embedders": [model],
            "classifier": manifest.classifier if model.classifier_share else None,
        }
    )
    with tempfile.TemporaryDirectory(prefix="finesight-embed-") as folder:
        _copy_files(repo, manifest, Path(folder))
        stages = load_stages(Path(folder), needed, "onnxruntime")
        embedder = stages.embedders[category]
        vectors = _vectors(embedder, shown, plain=trim)
        silhouettes = _silhouettes(stages.localiser, shown) if stages.localiser else None
    small = image.shrink(shown[0], _THUMBNAIL_PX)
    return EmbeddedPictures(model.space_id, vectors, silhouettes or None, image.encode_image(small, ".jpg"))


def _copy_files(repo: Path, manifest: Manifest, folder: Path) -> None:
    for entry in manifest.files:
        ref = ObjectRef(sha256=entry.sha256, size=entry.size)
        if wrong := object_problem(repo, ref):
            raise SyncError(f"bundle {manifest.bundle_id}: {wrong}")
        (folder / entry.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repo / object_path(entry.sha256), folder / entry.path)


def _vectors(embedder: Embedder, pictures: Sequence[Image], *, plain: bool) -> FloatArray:
    """Return the vectors of the pictures, then those of the views of each: (n, dim)."""
    views = []
    if len(pictures) < ENOUGH_PICTURES:
        views = [view for one in pictures for view in augment_views([one])[1:]]
    every, count = [Pyramid(one) for one in (*pictures, *views)], min(_AT_ONCE, embedder.model.max_batch)
    parts = [every[start : start + count] for start in range(0, len(every), count)]
    return np.concatenate([embedder.embed_whole(part, Timings(), plain=plain) for part in parts])


def _silhouettes(localiser: Localiser, pictures: Sequence[Image]) -> bytes:
    found = []
    for one in pictures:
        whole = (0.0, 0.0, float(one.shape[1]), float(one.shape[0]))
        found += localiser.silhouettes(one, [whole], Timings())
    return b"".join(one.tobytes() for one in found if one is not None)
