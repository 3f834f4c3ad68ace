"""Reads a file of annotations from outside: which format it is, what it says of each picture, and who says so."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from console.exchange.archives import MAX_FILE_BYTES, is_archive, unpack
from console.exchange.exports import STATES_FILE
from dataset_formats.label_studio.reader import parse_label_studio
from dataset_formats.label_studio.tasks import Task, is_finished, is_label_studio, picture_of, tasks_in
from dataset_formats.picture_names import parts_of
from dataset_formats.records import Annotation, Annotations
from dataset_formats.text_files import BAD_DATA, read_json, read_text
from dataset_formats.xml_files import read_children, root_tag
from dataset_formats.yolo.reader import looks_like_yolo
from edge.errors import ConsoleError, DataError
from trainer.labelling.imports import read_annotations

SizeOf = Callable[[str], tuple[int, int] | None]


@dataclass(slots=True)
class Read:
    """What a file says."""

    annotations: Annotations
    proposed: set[str] = field(default_factory=set)  # names of pictures for which nobody answered: a model did
    empty_is_answer: set[str] = field(default_factory=set)  # names of those where somebody said "no object"


def read_upload(path: Path, name: str, work: Path, size_of: SizeOf) -> Read:
    """Read an uploaded file.

    Args:
        path: the file.
        name: its name, as the browser said it.
        work: folder to unpack into; must not exist.
        size_of: width and height of the picture that a name means.

    Raises:
        ConsoleError: the file is too large, damaged, or of another format.
    """
    shown = printable_name(name)
    try:
        if is_archive(path):
            unpack(path, work)
            source = work
        else:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ConsoleError("too_large", f"{shown} is larger than {MAX_FILE_BYTES >> 20} MiB; split it")
            work.mkdir(parents=True)
            source = work / (re.sub(r"[^\w.-]+", "_", shown)[-100:].lstrip(".") or "upload")
            shutil.copyfile(path, source)
        return _read(_single(source), size_of)
    except DataError as error:
        raise ConsoleError("invalid", str(error).replace(f"{work}/", "").replace(str(work), shown)) from error
    except (*BAD_DATA, OSError) as error:
        raise ConsoleError("invalid", f"{shown} cannot be read; export it again") from error


def printable_name(name: str) -> str:
    """Return the last part of the name of an uploaded file, to show it."""
    parts = parts_of(name)
    return "".join(one for one in (parts[-1] if parts else "") if one.isprintable())[:100] or "the file"


def _single(source: Path) -> Path:
    """Return the folder of an archive that holds it all, past folders that hold a single folder."""
    while source.is_dir():
        inner = list(source.iterdir())
        if len(inner) != 1 or not inner[0].is_dir():
            break
        source = inner[0]
    return source


def _read(source: Path, size_of: SizeOf) -> Read:
    if source.is_dir() and not any(source.rglob("*.xml")) and not any(source.rglob("*.json")):
        if looks_like_yolo(source):
            raise DataError("YOLO is not read, as it does not say the size of pictures; export COCO, VOC or CVAT")
        raise DataError("the archive holds no JSON or XML; export COCO, Pascal VOC, CVAT or Label Studio")
    read = Read(read_annotations(source, size_of))
    tree_file = _json_of(source)
    if tree_file is not None:
        _add_json(read, tree_file, size_of)
        return read
    states = _states_of_table(source)
    read.proposed |= {name for name, state in states.items() if state == "proposed"}
    read.empty_is_answer |= {name for name, state in states.items() if state == "confirmed"}
    cvat = _cvat_of(source)
    if cvat is not None:
        _add_states_of_cvat(read, cvat)
    else:
        _add_scored(read)
    return read


def _add_scored(read: Read) -> None:
    """Take pictures with scores for proposals, in formats that do not say otherwise who drew a box."""
    read.proposed |= {one.name for one in read.annotations.pictures if any(box.score is not None for box in one.boxes)}


def _json_of(source: Path) -> Path | None:
    if source.is_dir():
        files = [*source.glob("*.json"), *source.glob("annotations/*.json")]
        return files[0] if len(files) == 1 and not list(source.glob("*.xml")) else None
    return source if source.read_bytes()[:1] != b"<" and not root_tag(source) else None


def _cvat_of(source: Path) -> Path | None:
    files = [*source.glob("*.xml"), *source.glob("annotations/*.xml")] if source.is_dir() else [source]
    return files[0] if len(files) == 1 and root_tag(files[0]) == "annotations" else None


def _add_json(read: Read, file: Path, size_of: SizeOf) -> None:
    tree = read_json(file)
    if isinstance(tree, dict) and isinstance(tree.get("images"), list):
        states = [
            (one.get("file_name"), one.get("state"))
            for one in tree["images"]
            if isinstance(one, dict) and isinstance(one.get("file_name"), str)
        ]
        read.proposed |= {str(name) for name, state in states if state == "proposed"}
        read.empty_is_answer |= {str(name) for name, state in states if state == "human"}
        _add_scored(read)
    elif is_label_studio(tree):
        read.empty_is_answer |= {one.name for one in read.annotations.pictures}
        _add_predictions(read, tree, file, size_of)


def _add_predictions(read: Read, tree: Any, file: Path, size_of: SizeOf) -> None:
    """Read the predictions of tasks that nobody has answered, as proposals."""
    known = {one.name for one in read.annotations.pictures}
    tasks = []
    for task, entry in zip(tasks_in(tree), tree if isinstance(tree, list) else [tree], strict=False):
        if isinstance(task, str) or any(is_finished(one) for one in task.annotations) or not task.proposed:
            continue
        if isinstance(entry, dict) and entry.get("data") is task.data:
            result = _last_prediction(entry)
            if result is not None and _name_of(task) not in known:
                tasks.append({"id": entry.get("id"), "data": task.data, "annotations": [{"result": result}]})
    if not tasks:
        return
    other = file.with_name("predictions.json")
    other.write_text(json.dumps(tasks))
    found: list[Annotation] = parse_label_studio(other, size_of).pictures
    read.annotations.pictures += found
    read.proposed |= {one.name for one in found}
    read.annotations.left_out[:] = [one for one in read.annotations.left_out if "only predictions" not in one]


def _last_prediction(entry: dict[str, Any]) -> list[Any] | None:
    predictions = entry.get("predictions")
    last = predictions[-1] if isinstance(predictions, list) and predictions else None
    result = last.get("result") if isinstance(last, dict) else None
    if not isinstance(last, dict) or not isinstance(result, list):
        return None
    of_all = {} if last.get("score") is None else {"score": last["score"]}  # Label Studio knows one for all boxes
    return [of_all | one if isinstance(one, dict) else one for one in result]


def _name_of(task: Task) -> str:
    try:
        return picture_of(task)
    except ValueError:
        return ""  # reading it says what is wrong


def _add_states_of_cvat(read: Read, file: Path) -> None:
    """Read who drew the boxes of each picture: `state`, as our own files say it, or the sources of all boxes."""
    for node in read_children(file, "annotations"):
        if node.tag != "image":
            continue
        name, state = node.get("name", ""), node.get("state")
        sources = [shape.get("source", "manual") for shape in node]
        if state == "proposed" or (sources and all(one == "auto" for one in sources)):
            read.proposed.add(name)
        elif state == "human":
            read.empty_is_answer.add(name)


def _states_of_table(source: Path) -> dict[str, str]:
    """Return the states of pictures by name, from the table of our own archives; nothing from other files."""
    file = source / STATES_FILE
    if not file.is_file():
        return {}
    rows = csv.reader(read_text(file).splitlines())
    return {row[0].strip(): row[1] for row in rows if len(row) == 2}  # an XML says names without blanks around them
