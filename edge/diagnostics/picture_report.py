"""Recognises pictures of files and folders, and says in a line what each shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge.capture.folder_source import list_pictures
from edge.errors import CaptureError, one_line
from edge.recogniser import Framing, RecognisedObject, Recogniser, Recognition


def recognise_pictures(
    recogniser: Recogniser, paths: Iterable[Path], framing: Framing
) -> Iterator[tuple[Path, Recognition | CaptureError]]:
    """Recognise each picture, and each picture of each folder; a file that cannot be read gives its error.

    Raises:
        BundleError: `detect` with a bundle that has no detector.
        EngineError: a model failed.
    """
    for path in paths:
        try:
            pictures = list_pictures(str(path)) if path.is_dir() else [path]
        except CaptureError as error:
            yield path, error
            continue
        for picture in pictures:
            try:
                yield picture, recogniser.recognise(picture, framing)
            except CaptureError as error:
                yield picture, error


def describe_recognition(picture: Path, recognition: Recognition) -> dict[str, Any]:
    """Return the JSON of `edge recognise --json` for one picture."""
    objects = [asdict(found) | {"probability": found.probability} for found in recognition.objects]
    return {"picture": str(picture), **asdict(recognition), "objects": objects}


def format_recognition(picture: Path, recognition: Recognition) -> Iterator[str]:
    """Return the lines of one picture: one for each object, whatever the names in it hold."""
    shown = one_line(str(picture))
    if not recognition.objects:
        yield f"{shown}: no object detected"
    for found in recognition.objects:
        box = (
            ""
            if found.detected_as is None
            else f" {found.detected_as} at {','.join(f'{x:.0f}' for x in found.box_px)}:"
        )
        yield f"{shown}:{one_line(f'{box} {_name_of(found)}{_attributes_of(found)}')}"


def _name_of(found: RecognisedObject) -> str:
    category = f" ({found.category.name})" if found.category else ""
    if found.match is not None:
        return f"{_confidence_of(found.probability)} {found.match.label}{category}"
    nearest = f"; nearest: {', '.join(f'{hit.label} {hit.score:.2f}' for hit in found.top[:3])}" if found.top else ""
    return f"{found.reason}{category}{nearest}"


def _attributes_of(found: RecognisedObject) -> str:
    """Return what near items say: `; colour red (92 %)`."""
    return "".join(f"; {one.name} {one.value} ({100 * one.confidence:.0f} %)" for one in found.attributes)


def _confidence_of(probability: float | None) -> str:
    if probability is None:
        return "looks like"
    return f"{100 * probability:.0f} % sure:" if probability < 0.995 else "over 99 % sure:"  # nothing is sure
