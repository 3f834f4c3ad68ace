"""`edge recognise`: what it prints of pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from edge.cli import main
from edge.diagnostics.picture_report import format_recognition, recognise_pictures
from edge.imaging.image import encode_image
from edge.recogniser import RecognisedObject, Recogniser, Recognition
from edge.types import Attribute, Category, Hit, Match
from tests.edge.kiosk.kiosk_samples import scripted_models

CAN = Category("can", 0.98)
COLA = Match("can-1", "Pop cola", 0.91, 0.2, 0.993)
NEAREST = (Hit("can-1", "Pop cola", 0.41), Hit("can-2", "Pop lime", 0.4))


def lines_of(*objects, path="photo.jpg"):
    return list(format_recognition(path, Recognition(objects, 640, 480, "one", "two")))


def found(match=None, reason=None, category=CAN, detected_as=None, top=NEAREST):
    return RecognisedObject((1.6, 2.0, 30.2, 40.0), detected_as, category, match, reason, top)


def test_match_is_printed_with_its_probability_if_there_is_one():
    assert lines_of(found(COLA)) == ["photo.jpg: 99 % sure: Pop cola (can)"]
    assert lines_of(found(replace(COLA, probability=0.9996))) == ["photo.jpg: over 99 % sure: Pop cola (can)"]
    unsure = replace(COLA, probability=None)
    assert lines_of(found(unsure)) == ["photo.jpg: looks like Pop cola (can)"]


def test_unknown_object_is_printed_with_the_nearest_items():
    assert lines_of(found(reason="unknown_item")) == [
        "photo.jpg: unknown_item (can); nearest: Pop cola 0.41, Pop lime 0.40"
    ]
    assert lines_of(found(reason="unknown_category", category=None, top=())) == ["photo.jpg: unknown_category"]


def test_attributes_follow_the_name():
    attributes = (Attribute("colour", "red", 0.914), Attribute("make", "Merle", 1.0))
    assert lines_of(replace(found(COLA), attributes=attributes)) == [
        "photo.jpg: 99 % sure: Pop cola (can); colour red (91 %); make Merle (100 %)"
    ]


def test_names_never_break_the_line():
    odd = replace(COLA, label="Pop\ncola\x1b[31m 🍎")
    assert lines_of(found(odd), path="a\nb.jpg") == ["a\\nb.jpg: 99 % sure: Pop\\ncola\\x1b[31m 🍎 (can)"]


def test_detected_objects_are_printed_one_a_line():
    assert lines_of(found(COLA, detected_as="bottle"), found(COLA, detected_as="cup")) == [
        "photo.jpg: bottle at 2,2,30,40: 99 % sure: Pop cola (can)",
        "photo.jpg: cup at 2,2,30,40: 99 % sure: Pop cola (can)",
    ]
    assert lines_of() == ["photo.jpg: no object detected"]


def test_folder_is_read_and_a_bad_picture_does_not_stop_the_others(tmp_path):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(encode_image(np.full((48, 48, 3), 90, np.uint8), ".png"))
    (tmp_path / "1.png").write_bytes(b"no picture")
    pictures = recognise_pictures(Recogniser(scripted_models()), [tmp_path, tmp_path / "missing.png"], "whole")
    (first, problem), (second, recognition), (_, missing) = pictures
    assert (first.name, second.name, recognition.objects[0].label) == ("1.png", "2.png", "Oat flakes")
    assert str(problem).startswith(f"{tmp_path}/1.png: the 10 bytes are no picture")
    assert str(missing) == f"{tmp_path}/missing.png: cannot read: No such file or directory"


def test_command_prints_json_lines_and_exits_with_1_after_a_bad_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Recogniser, "load", lambda *_: Recogniser(scripted_models()))
    (tmp_path / "1.png").write_bytes(encode_image(np.full((48, 48, 3), 90, np.uint8), ".png"))
    (tmp_path / "2.png").write_bytes(b"")
    assert main(["recognise", str(tmp_path), "--bundle", "bundle", "--json"]) == 1
    out, err = capsys.readouterr()
    (line,) = map(json.loads, out.splitlines())
    assert (line["picture"], line["bundle"], line["objects"][0]["match"]["item_id"]) == (
        f"{tmp_path}/1.png",
        "bundle-1",
        "c1",
    )
    assert line["objects"][0]["probability"] == line["objects"][0]["match"]["probability"]
    assert err.startswith(f"edge: {tmp_path}/2.png: empty")


def test_gallery_alone_is_an_error(capsys):
    assert main(["recognise", "photo.jpg", "--gallery", "gallery"]) == 1
    assert "--gallery needs --bundle" in capsys.readouterr().err
