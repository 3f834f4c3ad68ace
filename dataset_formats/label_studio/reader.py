"""Label Studio: the exports JSON and JSON-MIN, and tasks with predictions for it to import."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dataset_formats.decode import upright_size
from dataset_formats.exported_names import other_spellings
from dataset_formats.label_studio.regions import read_results
from dataset_formats.label_studio.tasks import (
    Task,
    in_order,
    is_answer,
    is_finished,
    is_label_studio,
    picture_of,
    tasks_in,
)
from dataset_formats.listings import add_scenes, class_names, drop_repeated_boxes, finish, settle_splits
from dataset_formats.notices import Notices, lost_all, printable
from dataset_formats.picture_names import PictureFinder
from dataset_formats.records import Annotation, Annotations, Listing, NamedBox
from dataset_formats.text_files import read_json, write_text
from dataset_formats.values import sha256_or_empty
from edge.errors import CaptureError, DataError

SizeOf = Callable[[str], tuple[int, int] | None]  # width and height of the picture that a name means
LOCAL_FILES = "/data/local-files/?d="  # before a path below Label Studio's folder of local files


def parse_label_studio(path: Path, size_of: SizeOf = lambda _: None) -> Annotations:
    """Read an export of Label Studio: JSON or JSON-MIN.

    A task that somebody skipped or that nobody annotated, and one whose annotation holds no rectangle, polygon or
    ellipse, is no answer: it is left out. An annotation without results is the answer "no object".

    Args:
        path: the file.
        size_of: for annotations that do not state the size of their picture.

    Raises:
        DataError: the file cannot be read, or is not an export of Label Studio.
    """
    tree = read_json(path)
    if not is_label_studio(tree):
        raise DataError(f"{path}: not an export of Label Studio: no list of tasks; export JSON or JSON-MIN")
    return _Reader(path, Notices(path), size_of).read(tree)


def looks_like_label_studio(path: Path) -> bool:
    """Return whether a file is an export of Label Studio."""
    try:
        return is_label_studio(read_json(path))
    except DataError:
        return False


def read_label_studio(path: Path, root: Path | None) -> Listing:
    """Read an export of Label Studio whose pictures are here.

    Args:
        path: the file.
        root: folder of the pictures; None: that of the file.

    Raises:
        DataError: the file cannot be read, or none of its pictures is found.
    """
    base = root or path.parent
    finder = PictureFinder([base], base)
    found: dict[str, Path | str] = {}

    def find(name: str) -> Path | str:
        if name not in found:
            tried = [finder.find(one) for one in [name, *other_spellings(name)]]
            found[name] = next((one for one in tried if isinstance(one, Path)), tried[0])
        return found[name]

    def size_of(name: str) -> tuple[int, int] | None:
        place = find(name)
        try:
            return upright_size(place) if isinstance(place, Path) else None
        except CaptureError:
            return None

    parsed = parse_label_studio(path, size_of)
    listing = Listing("label_studio", names=parsed.names, left_out=parsed.left_out, noticed=parsed.noticed)
    add_scenes(listing, ((f"{path}: {one.name}", one, find(one.name)) for one in parsed.pictures))
    settle_splits(listing)
    return finish(listing, path, "holds no task; export one with pictures")


def write_label_studio(pictures: Sequence[Annotation], path: Path, answered: Collection[str] = ()) -> None:
    """Write tasks for Label Studio to import: proposals as predictions, a person's boxes as annotations.

    The tasks name local files: Label Studio must serve the folder that the names are relative to
    (LOCAL_FILES_DOCUMENT_ROOT). The labelling interface needs `<Image name="image" value="$image"/>` and
    `<RectangleLabels name="label" toName="image">` with the class names.

    Args:
        pictures: with declared_size_px.
        path: the JSON file to write.
        answered: names of the pictures whose boxes a person drew or confirmed.

    Raises:
        DataError: the file cannot be written.
    """
    tasks = []
    for number, one in enumerate(pictures, 1):
        about: dict[str, Any] = {"result": [_result(box_number, one, box) for box_number, box in enumerate(one.boxes)]}
        if one.name in answered:
            parts = {"annotations": [about | {"was_cancelled": False}]}
        else:
            scores = [box.score for box in one.boxes if box.score is not None]
            mean = {"score": round(sum(scores) / len(scores), 4)} if scores else {}
            parts = {"predictions": [about | {"model_version": "edge-train label"} | mean]}
        data = {"image": LOCAL_FILES + quote(os.fsencode(one.name))} | ({"sha256": one.sha256} if one.sha256 else {})
        tasks.append({"id": number, "data": data} | parts)
    write_text(path, json.dumps(tasks, indent=1), durably=True)


def _result(number: int, picture: Annotation, box: NamedBox) -> dict[str, Any]:
    """Return one region: per cent of the picture."""
    if picture.declared_size_px is None:
        raise DataError(f"{picture.name}: its size is unknown; Label Studio needs it")
    width, height = picture.declared_size_px
    x0, y0, x1, y1 = box.box_px
    value = {"x": x0 / width * 100, "y": y0 / height * 100, "rotation": 0, "rectanglelabels": [box.item]}
    value |= {"width": (x1 - x0) / width * 100, "height": (y1 - y0) / height * 100}
    about = {"id": f"box-{number}", "type": "rectanglelabels", "from_name": "label", "to_name": "image"}
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    return about | size | {"value": value} | ({} if box.score is None else {"score": box.score})


@dataclass(slots=True)
class _Reader:
    """Reads tasks into annotations, and counts what deserves a look."""

    file: Path
    notices: Notices
    size_of: SizeOf
    found: list[Annotation] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)  # results by type
    around: Counter[str] = field(default_factory=Counter)  # shapes that are no upright box, by kind

    def read(self, tree: Any) -> Annotations:
        """Read all tasks."""
        by_picture: dict[str, list[Task]] = defaultdict(list)
        for task in tasks_in(tree):
            if isinstance(task, str):
                self.notices.leave_out(*task.split(": ", 1))  # which one, and why
                continue
            try:
                by_picture[picture_of(task)].append(task)
            except ValueError as error:
                self.notices.leave_out(task.where, str(error))
        for picture, tasks in by_picture.items():
            self._read_picture(picture, tasks)
        found, repeated = drop_repeated_boxes(self.found)
        noticed = [*self.notices.noticed(), *repeated]
        for what, counts in (
            ("results of types that are not read", self.unread),
            ("shapes, read as the box around them", self.around),
        ):
            noticed += [printable(f"{self.file}: {what}: {_counts(counts)}")] if counts else []
        return Annotations(found, class_names(found), self.notices.left_out, noticed)

    def _read_picture(self, picture: str, tasks: list[Task]) -> None:
        """Read the best answer of one picture; tasks of the same picture are as several answers of one task."""
        where = tasks[0].where if len(tasks) == 1 else f"{tasks[0].where} and {len(tasks) - 1} more of this picture"
        finished = [one for task in tasks for one in task.annotations if is_finished(one)]
        answers = in_order([one for one in finished if is_answer(one)])
        if not answers:
            self._leave_unanswered(picture, where, tasks, finished)
            return
        drawn = read_results(answers[0]["result"], None)
        if drawn.size_px is None:
            drawn = read_results(answers[0]["result"], self.size_of(picture))
        self.unread.update(drawn.unread)
        self.around.update(drawn.around)
        for line in drawn.left_out:
            self.notices.leave_out(where, line)
        if answers[0]["result"] and not drawn.boxes:
            self.notices.leave_out(f"{where}: {picture}", lost_all("results"))
            return
        if len(answers) > 1:
            what = "pictures with several annotations, of which the ground truth was read, or else the newest"
            self.notices.notice(what, f"{picture} ({len(answers)})")
        hashes = {sha256_or_empty(task.data.get("sha256")) for task in tasks}
        sha256 = hashes.pop() if len(hashes) == 1 else ""
        self.found.append(Annotation(picture, tuple(drawn.boxes), declared_size_px=drawn.size_px, sha256=sha256))

    def _leave_unanswered(self, picture: str, where: str, tasks: list[Task], finished: list[Any]) -> None:
        types: Counter[str] = sum((read_results(one["result"], None).unread for one in finished), Counter())
        if finished:
            self.unread.update(types)
            reason, why = "only other types", f"has only results of {_counts(types)}; draw boxes"
        elif any(isinstance(one, dict) and one.get("was_cancelled") for task in tasks for one in task.annotations):
            reason, why = "skipped", "was skipped; annotate it"
        elif any(task.proposed for task in tasks):
            reason, why = "only predictions or drafts", "has only predictions or drafts; submit it"
        else:
            reason, why = "never annotated", "was never annotated; annotate it"
        self.notices.notice(f"pictures without an answer, {reason}", picture)
        self.notices.leave_out(f"{where}: {picture}", why)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))
