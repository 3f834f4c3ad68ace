"""Boxes from other tools."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import FinesightError, TrainError
from tests.dataset_formats import samples as layouts
from tests.trainer.damaged import damaged_json, damaged_text, few_examples, write
from trainer.labelling.imports import match_names, read_annotations

VOC = """<annotation><filename>a.jpg</filename><object><name>card</name><bndbox>
<xmin>10</xmin><ymin>20</ymin><xmax>30</xmax><ymax>60</ymax></bndbox></object></annotation>"""
COCO = {
    "images": [{"id": 4, "file_name": "in/a.jpg"}, {"id": 5, "file_name": "b.jpg"}],
    "annotations": [{"image_id": 4, "category_id": 9, "bbox": [10, 20, 20, 40]}],
    "categories": [{"id": 9, "name": "card"}],
}
STUDIO = [
    {
        "data": {"image": "/data/local-files/?d=in/a%20b.jpg"},
        "annotations": [
            {"result": [], "was_cancelled": True},
            {
                "result": [
                    {
                        "type": "rectanglelabels",
                        "original_width": 200,
                        "original_height": 400,
                        "value": {"x": 5, "y": 5, "width": 10, "height": 10, "rectanglelabels": ["card"]},
                    },
                    {"type": "choices", "value": {"choices": ["good"]}},
                ]
            },
        ],
    }
]


@pytest.mark.parametrize(
    ("name", "text", "picture"),
    [
        ("a.xml", VOC, "a.jpg"),
        ("coco.json", json.dumps(COCO), "in/a.jpg"),
        ("studio.json", json.dumps(STUDIO), "in/a b.jpg"),
    ],
)
def test_same_box_is_read_from_every_format(tmp_path, name, text, picture):
    (tmp_path / name).write_text(text)
    (box,) = read_annotations(tmp_path / name)[picture]
    assert (box.box_px, box.category, box.source) == ((10, 20, 30, 60), "card", "human")


def test_voc_folder_is_read_with_pictures_without_boxes(tmp_path):
    (tmp_path / "a.xml").write_text(VOC)
    (tmp_path / "b.xml").write_text("<annotation><filename>b.jpg</filename></annotation>")
    assert {name: len(boxes) for name, boxes in read_annotations(tmp_path).items()} == {"a.jpg": 1, "b.jpg": 0}


@pytest.mark.parametrize("text", ["", "7", '{"images": []}', '[{"data": {}}]', '{"images": [], "annotations": []}'])
def test_unknown_annotation_format_is_rejected(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(TrainError, match=r"x\.json: neither COCO nor VOC nor Label Studio"):
        read_annotations(tmp_path / "x.json")


def test_empty_folder_and_missing_file_are_rejected(tmp_path):
    with pytest.raises(TrainError, match="holds no picture"):
        read_annotations(tmp_path)
    with pytest.raises(TrainError, match="cannot read"):
        read_annotations(tmp_path / "absent.json")


def test_pictures_match_by_path_or_unique_file_name():
    known = ["../p/x/a.jpg", "../p/y/a.jpg", "../p/x/b.jpg"]
    assert match_names(["../p/x/a.jpg", "C:\\shot\\b.jpg"], known, "f") == {
        "../p/x/a.jpg": "../p/x/a.jpg",
        "C:\\shot\\b.jpg": "../p/x/b.jpg",
    }
    for name, count in (("a.jpg", 2), ("c.jpg", 0)):
        with pytest.raises(TrainError, match=f"{name}: found {count} pictures"):
            match_names([name], known, "f")


TASK = {
    "data": {"image": "/d/?d=a.png"},
    "annotations": [
        {
            "was_cancelled": False,
            "result": [
                {
                    "type": "rectanglelabels",
                    "original_width": 48,
                    "original_height": 32,
                    "value": {"x": 1.0, "y": 2.0, "width": 3.0, "height": 4.0, "rectanglelabels": ["cola"]},
                }
            ],
        }
    ],
}


@few_examples
@given(text=st.one_of(damaged_json(COCO), damaged_json([TASK]), st.just("[" * 9999)))
def test_any_json_is_imported_or_rejected(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with contextlib.suppress(FinesightError):
        drawn = read_annotations(tmp_path / "a.json")
        match_names(drawn, drawn, "a.json")


@few_examples
@given(text=damaged_text(layouts.VOC.format(name="a", objects=layouts.OBJECT.format("ace", 4, 2, 24, 12))))
def test_any_voc_xml_is_imported_or_rejected(tmp_path, text):
    write(tmp_path / "a.xml", text)
    with contextlib.suppress(FinesightError):
        read_annotations(tmp_path / "a.xml")
