"""Import of boxes that people drew in other tools: COCO, Pascal VOC and Label Studio."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

from dataset_formats.text_files import BAD_DATA, as_text
from edge.errors import TrainError
from trainer.labelling.proposals import Proposal

Annotations = dict[str, list[Proposal]]  # by the picture's name in the file


def read_annotations(source: Path) -> Annotations:
    """Read the boxes of each picture; a picture without boxes counts as checked, too.

    Args:
        source: COCO JSON; Label Studio JSON with box labels; a VOC XML, or a folder of them.

    Raises:
        TrainError: the file is missing, broken or of another format, or holds no picture.
    """
    try:
        if source.is_dir() or source.suffix.lower() == ".xml":
            files = sorted(source.glob("*.xml")) if source.is_dir() else [source]
            drawn = dict(_voc(ET.parse(file).getroot()) for file in files)  # noqa: S314 expat refuses entity bombs
        else:
            tree = json.loads(source.read_text())
            drawn = dict(map(_task, tree)) if isinstance(tree, list) else _coco(tree)
    except OSError as error:
        raise TrainError(f"{source}: cannot read: {error.strerror}") from error
    except (*BAD_DATA, ET.ParseError) as error:
        raise TrainError(f"{source}: neither COCO nor VOC nor Label Studio: {type(error).__name__} {error}") from error
    if not drawn:
        raise TrainError(f"{source}: holds no picture")
    return drawn


def match_names(names: Iterable[str], known: Iterable[str], where: str) -> dict[str, str]:
    """Match each name to a known picture: of the same path, or else the only one with the same file name.

    Raises:
        TrainError: a name matches no known picture, or several.
    """
    known = list(known)
    exact = set(known)
    by_file: dict[str, list[str]] = {}
    for name in known:
        by_file.setdefault(PurePosixPath(name).name, []).append(name)
    matched = {}
    for name in names:
        candidates = [name] if name in exact else by_file.get(PurePosixPath(name.replace("\\", "/")).name, [])
        if len(candidates) != 1:
            raise TrainError(f"{where}: {name}: found {len(candidates)} pictures of that name, expected 1")
        matched[name] = candidates[0]
    return matched


def _coco(tree: dict[str, Any]) -> Annotations:
    names = {entry["id"]: str(entry["name"]) for entry in tree["categories"]}
    pictures = {image["id"]: as_text(image["file_name"]) for image in tree["images"]}
    drawn: Annotations = {name: [] for name in pictures.values()}
    for entry in tree["annotations"]:
        x, y, width, height = (float(v) for v in entry["bbox"])
        drawn[pictures[entry["image_id"]]].append(
            _human_box((x, y, x + width, y + height), names[entry["category_id"]])
        )
    return drawn


def _voc(root: ET.Element) -> tuple[str, list[Proposal]]:
    boxes = []
    for node in root.findall("object"):
        x0, y0, x1, y1 = (float(node.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append(_human_box((x0, y0, x1, y1), node.findtext("name") or "object"))
    name = root.findtext("filename")
    if not name:
        raise ValueError("no filename")
    return name, boxes


def _task(task: dict[str, Any]) -> tuple[str, list[Proposal]]:
    """Read one Label Studio task: boxes in per cent, from the newest annotation that was not cancelled."""
    kept = [one for one in task["annotations"] if not one.get("was_cancelled")]
    boxes = []
    for result in kept[-1]["result"] if kept else []:
        if result["type"] != "rectanglelabels":
            continue
        value, width, height = result["value"], result["original_width"] / 100, result["original_height"] / 100
        x0, y0 = value["x"] * width, value["y"] * height
        box = (x0, y0, x0 + value["width"] * width, y0 + value["height"] * height)
        boxes.append(_human_box(box, as_text(value["rectanglelabels"][0])))
    return unquote(task["data"]["image"]).split("?d=")[-1], boxes


def _human_box(box_px: tuple[float, float, float, float], category: str) -> Proposal:
    return Proposal(box_px, 1.0, "human", {}, category)
