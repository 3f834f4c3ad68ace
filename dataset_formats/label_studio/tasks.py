"""The tasks of a Label Studio export in one form, whether it is JSON, JSON-MIN, one task, or a file of its storage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from dataset_formats.exported_names import path_in_url
from dataset_formats.label_studio.regions import is_shape, type_in_value
from dataset_formats.picture_names import is_picture_name
from dataset_formats.text_files import BAD_DATA

_TASK_KEYS = ("annotations", "completions", "predictions", "drafts")  # completions: before 2021
_MIN_KEYS = ("annotation_id", "annotator")
_ABOUT = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"}


@dataclass(slots=True)
class Task:
    """One task: what is to be annotated, and what people answered."""

    where: str  # which one, for messages
    data: dict[str, Any]
    annotations: list[Any] = field(default_factory=list)
    proposed: bool = False  # has predictions or drafts


def is_label_studio(tree: Any) -> bool:
    """Return whether the contents of a JSON file are tasks of Label Studio."""
    if isinstance(tree, dict):
        return _is_stored(tree) or isinstance(tree.get("data"), dict)
    return isinstance(tree, list) and any(
        isinstance(one, dict) and (isinstance(one.get("data"), dict) or _is_min(one)) for one in tree
    )


def tasks_in(tree: Any) -> Iterator[Task | str]:
    """Yield the tasks of an export; for an entry that is none, say what it is."""
    several: dict[str, Task] = {}  # JSON-MIN has an entry for each annotation
    for number, entry in enumerate(tree if isinstance(tree, list) else [tree], 1):
        if not isinstance(entry, dict):
            yield f"task {number}: is a {type(entry).__name__}, not a task"
            continue
        if _is_stored(entry):
            entry = entry["task"] | {"annotations": [entry]}  # noqa: PLW2901 the same entry in the common form
        given = entry.get("id")
        name = f"{given}" if isinstance(given, int | str) else f"number {number}"
        where = f"task {name[:40]}"
        if isinstance(entry.get("data"), dict):
            answers = entry.get("annotations", entry.get("completions"))
            proposed = any(entry.get(key) for key in ("predictions", "drafts"))
            yield Task(where, entry["data"], answers if isinstance(answers, list) else [], proposed)
        elif _is_task(entry):
            yield f"{where}: has no data; export JSON from Label Studio again"
        elif name in several:
            several[name].annotations.append(_answer(entry))
        else:
            several[name] = Task(where, _data(entry), [_answer(entry)])
    yield from several.values()


def picture_of(task: Task) -> str:
    """Return the name of a task's picture.

    Raises:
        ValueError: it has none, or several.
    """
    texts = {key: path_in_url(value) for key, value in task.data.items() if isinstance(value, str)}
    if any(value.startswith("data:") for value in texts.values()):
        raise ValueError("holds its picture itself, without a name; import pictures by file or URL")
    named = {key: text for key, text in texts.items() if is_picture_name(text)}
    named = named or {key: text for key, text in texts.items() if key == "image" or len(texts) == 1}
    lists = ((key, value) for key, value in task.data.items() if isinstance(value, list))
    listed = next((key for key, values in lists if any(map(_is_of_picture, values))), None)
    files = {text.replace("\\", "/").rpartition("/")[2] for text in named.values()}
    if len(files) > 1 or listed is not None:
        raise ValueError(f"has several pictures ({', '.join(sorted(named)) or listed}); make a task for each")
    if not named:
        raise ValueError("names no picture; its data needs the path or URL of one")
    return max(named.values(), key=len)  # the one with folders


def in_order(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return annotations, the best first: ground truth, then the newest; of the same time, the last one."""
    numbered = sorted(
        enumerate(annotations), key=lambda one: (one[1].get("ground_truth") is not True, -_time(one[1]), -one[0])
    )
    return [annotation for _, annotation in numbered]


def is_finished(annotation: Any) -> bool:
    """Return whether somebody submitted an annotation, and did not skip the task."""
    return (
        isinstance(annotation, dict)
        and not annotation.get("was_cancelled")
        and not annotation.get("skipped")
        and isinstance(annotation.get("result"), list)
    )


def is_answer(annotation: dict[str, Any]) -> bool:
    """Return whether a finished annotation says where the objects are: it has regions, or no result at all."""
    results = annotation["result"]
    return not results or any(is_shape(one) or not isinstance(one, dict) for one in results)


def _is_task(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("data"), dict) or any(isinstance(entry.get(key), list) for key in _TASK_KEYS)


def _is_stored(entry: dict[str, Any]) -> bool:
    """Return whether an entry is an annotation as Label Studio writes it to a storage, with its task inside."""
    return isinstance(entry.get("result"), list) and isinstance(entry.get("task"), dict)


def _is_min(entry: dict[str, Any]) -> bool:
    return any(key in entry for key in _MIN_KEYS) or bool(_regions(entry))


def _regions(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the regions of an entry of JSON-MIN, of all its outputs."""
    lists = (value for key, value in entry.items() if key not in _ABOUT and isinstance(value, list))
    return [one for value in lists for one in value if isinstance(one, dict) and type_in_value(one) != "unknown"]


def _data(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in _ABOUT}


def _answer(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the annotation of an entry of JSON-MIN; regions of the same place are one, as they have no id."""
    results: list[dict[str, Any]] = []
    for value in _regions(entry):
        place = [value.get(key) for key in ("x", "y", "width", "height", "rotation")]
        size = {key: value.get(key) for key in ("original_width", "original_height")}
        known = {} if place[0] is None else {"id": f"at {place[0]}, {place[1]} of {place[2]} x {place[3]}, {place[4]}"}
        results.append({"value": value, "type": type_in_value(value)} | size | known)
    others = {
        key: value for key, value in _data(entry).items() if not _is_of_picture(value) and not _regions({key: value})
    }
    unread = [{"type": key, "value": {}} for key in others] if not results else []
    return {key: entry.get(key) for key in ("created_at", "updated_at")} | {"result": results + unread}


def _is_of_picture(value: Any) -> bool:
    return isinstance(value, str) and is_picture_name(path_in_url(value))


def _time(annotation: dict[str, Any]) -> float:
    """Return when an annotation was changed last, in seconds; minus infinity if it does not say."""
    for key in ("updated_at", "created_at"):
        value = annotation.get(key)
        try:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value) if math.isfinite(value) else -math.inf
            if isinstance(value, str):
                read = datetime.fromisoformat(value.replace("Z", "+00:00"))
                return (read if read.tzinfo else read.replace(tzinfo=timezone.utc)).timestamp()
        except BAD_DATA:
            continue
    return -math.inf
