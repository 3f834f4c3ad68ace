"""Embeds the pictures of drafts with the newest bundle, and checks them as an enrolment at a kiosk does.

Rules this module keeps:
1. The pictures are embedded by the device's models: gallery_sync.repository.items.pictures.
2. A check warns; it refuses nothing. A picture that cannot be read is the draft's problem, and stops no other draft.
3. Of a draft that is withdrawn meanwhile nothing is kept.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from console.background.tasks import Progress
from console.galleries.drafts import Draft, find, listed
from console.galleries.items import store_of, vector_id
from console.galleries.lookalikes import LookAlike, nearest, quantised_mean
from console.galleries.repository import SignedGallery
from console.sets.crops import find_crop
from console.sets.images import crop_pixels
from console.sets.pictures import find_picture
from console.storage.database import Database
from edge.errors import ConsoleError, FinesightError, SyncError
from edge.gallery.store import quantise
from edge.imaging import image
from edge.kiosk.enrolment import EnrolmentWarning, enrolment_warnings, judge_picture, measure_picture
from edge.manifest.embedder import EmbedderModel, OpenSet
from edge.types import FloatArray, Hit
from gallery_sync.repository.items.pictures import EmbeddedPictures, embed_pictures

_MOST_SEARCHED = 50  # pictures whose look-alikes are looked for
_TAKEN_BACK = "this change was taken back meanwhile"
_WORDS = {
    "few_looks": "there are few pictures; three or more, from different sides, are recognised better",
    "same_pose": "all pictures show the same pose; add some from other sides",
    "not_recognised": "the pictures are not recognised",
}


def waiting(rows: sqlite3.Connection, space_of: dict[str, str]) -> list[Draft]:
    """Return the open drafts whose pictures are to be embedded, with a bundle of these spaces by category."""
    drafts = [one for one in listed(rows) if one.kind == "add" and not one.problem]
    return [
        one
        for one in drafts
        if not one.is_embedded or (one.category in space_of and one.space_id != space_of[one.category])
    ]


def embed_drafts(database: Database, gallery: SignedGallery, draft_ids: Sequence[int], progress: Progress) -> str:
    """Embed the pictures of some drafts, and return what was done in one sentence."""
    done = 0
    for number, draft_id in enumerate(draft_ids):
        progress(number, len(draft_ids))
        with database.read() as rows:
            draft = find(rows, draft_id)
        try:
            _embed(database, gallery, draft)
            done += 1
        except (FinesightError, OSError) as error:
            with database.write() as connection:
                connection.execute("UPDATE gallery_drafts SET problem = ? WHERE id = ?", (str(error)[:500], draft_id))
    return f"{done} of {len(draft_ids)} changes have their pictures embedded"


def _embed(database: Database, gallery: SignedGallery, draft: Draft) -> None:
    seen = gallery.see()
    model = seen.manifest.embedder_for(draft.category)
    if model is None:
        raise SyncError(
            f"bundle {seen.manifest.bundle_id} has no embedder for category {draft.category[:80]!r}; publish a bundle "
            "that knows it first"
        )
    paths = _cut(database, gallery.folder, draft, model.preprocess.crop_margin)
    found = embed_pictures(seen.published.repo, seen.manifest, draft.category, list(paths.values()))
    with database.read() as rows:
        warnings = _warnings(rows, draft, model, list(paths.values()), found)
    with database.write() as connection:
        changed = connection.execute(
            "UPDATE gallery_drafts SET space_id = ?, vectors = ?, silhouettes = ?, thumbnail = ?, warnings = ?, "
            "problem = '' WHERE id = ? AND state = 'open'",
            (
                found.space_id,
                found.vectors.astype(np.float32).tobytes(),
                found.silhouettes,
                found.thumbnail,
                json.dumps(warnings, ensure_ascii=False),
                draft.id,
            ),
        ).rowcount
        if not changed:
            raise ConsoleError("conflict", _TAKEN_BACK)
        connection.executemany(
            "INSERT OR IGNORE INTO gallery_origins VALUES (?, ?)", _origins(found.vectors, list(paths))
        )


def _origins(vectors: FloatArray, picture_ids: Sequence[int]) -> list[tuple[str, int]]:
    """Return each vector with its picture: those of the pictures come first, then the views of each."""
    count = len(picture_ids)
    views = max(1, (len(vectors) - count) // count)
    names = [vector_id(row) for row in quantise(vectors)[0]]
    return [
        (name, picture_ids[place if place < count else min((place - count) // views, count - 1)])
        for place, name in enumerate(names)
    ]


def _cut(database: Database, folder: Path, draft: Draft, margin: float) -> dict[int, Path]:
    """Cut the crops of a draft that are not cut yet; return the file of each picture by id.

    Raises:
        ConsoleError: a crop is gone (not_found), or the draft was taken back meanwhile (conflict).
        CaptureError: a picture cannot be read.
        OSError: the disk failed.
    """
    query = "SELECT * FROM gallery_pictures WHERE draft_id = ? ORDER BY number"
    with database.read() as rows:
        pictures = rows.execute(query, (draft.id,)).fetchall()
    found: dict[int, Path] = {}
    for row in pictures:
        if row["path"] is None:
            with database.read() as rows:
                crop = find_crop(rows, row["crop_id"])
                picture = find_picture(rows, crop.picture_id)
            path = folder / "pictures" / str(draft.id) / f"{row['number']}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.encode_image(crop_pixels(picture, crop.box_px, margin), ".png"))
            with database.write() as connection:
                kept = connection.execute(
                    "UPDATE gallery_pictures SET path = ?, name = ? WHERE id = ? AND "
                    "(SELECT state FROM gallery_drafts WHERE id = draft_id) = 'open'",
                    (str(path.relative_to(folder)), picture.name, row["id"]),
                ).rowcount
            if not kept:
                path.unlink(missing_ok=True)
                raise ConsoleError("conflict", _TAKEN_BACK)
            found[row["id"]] = path
        else:
            found[row["id"]] = folder / row["path"]
    if not found:
        raise ConsoleError("invalid", "this change has no pictures; take it back")
    return found


def _warnings(
    rows: sqlite3.Connection, draft: Draft, model: EmbedderModel, paths: Sequence[Path], found: EmbeddedPictures
) -> list[str]:
    """Return what to say about the pictures: of their files, then of their vectors."""
    vectors = found.vectors[: len(paths)]
    said = [*_of_pictures(paths, model), *_near_others(rows, draft, model, vectors)]
    others: list[LookAlike] = []
    try:
        store = store_of(rows, draft.category)
        others = nearest(rows, store, quantised_mean(vectors), [draft.item], 1)
    except ConsoleError:
        pass  # the plan says that there is no such category
    hits = {draft.category: [Hit(one.item, one.label, one.similarity) for one in others]}
    open_sets = {draft.category: model.open_set.get(draft.category, OpenSet())}
    known = rows.execute(
        "SELECT i.vectors FROM gallery_items i JOIN gallery_stores s ON s.id = i.store_id WHERE s.category = ? AND "
        "s.is_ready = 1 AND s.shown = 1 AND item = ?",
        (draft.category, draft.item),
    ).fetchone()
    for warning in enrolment_warnings({draft.category: vectors}, hits, open_sets, recognised=len(paths)):
        if warning.kind == "few_looks" and known is not None:
            continue
        said.append(_in_words(warning))
    return list(dict.fromkeys(said))[:50]


def _of_pictures(paths: Sequence[Path], model: EmbedderModel) -> list[str]:
    said = []
    shown = [image.read_image(path) for path in paths]
    measures = [measure_picture(one, is_still=True) for one in shown]
    sharpest = max(one.sharpness for one in measures)
    for number, (picture, measure) in enumerate(zip(shown, measures, strict=True), 1):
        height, width = picture.shape[:2]
        if 2 * max(width, height) < min(model.preprocess.width, model.preprocess.height):
            said.append(
                f"picture {number} is too small: {width} by {height} pixels, and the embedder looks at "
                f"{model.preprocess.width} by {model.preprocess.height}"
            )
        match judge_picture(measure, measures[: number - 1], sharpest, number + 1):
            case "same":
                said.append(f"picture {number} is nearly the same as an earlier one, and adds little")
            case "blurred":
                said.append(f"picture {number} is blurred")
    return said


def _near_others(rows: sqlite3.Connection, draft: Draft, model: EmbedderModel, vectors: FloatArray) -> list[str]:
    said = []
    threshold = model.open_set.get(draft.category, OpenSet()).threshold
    try:
        store = store_of(rows, draft.category)
    except ConsoleError:
        return []
    for number, vector in enumerate(vectors[:_MOST_SEARCHED], 1):
        best = nearest(rows, store, quantised_mean(vector[None]), [draft.item], 1)
        if best and best[0].similarity >= threshold:
            said.append(
                f"picture {number} looks like item {best[0].item!r}, {best[0].label!r} "
                f"(similarity {best[0].similarity:.2f})"
            )
    return said


def _in_words(warning: EnrolmentWarning) -> str:
    if warning.other is not None:
        return (
            f"the pictures together look like item {warning.other.item_id!r}, {warning.other.label!r} "
            f"(similarity {warning.other.score:.2f}); the two may be confused"
        )
    return _WORDS.get(warning.kind, warning.kind)
