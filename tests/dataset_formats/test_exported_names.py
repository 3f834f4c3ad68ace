"""Names that labelling tools wrote mean the picture that people annotated, or none."""

from __future__ import annotations

import base64

import pytest

from dataset_formats.exported_names import ExportedNames, path_in_url
from dataset_formats.picture_names import match_names

KNOWN = ["../p/can/a.jpg", "../p/jar/a.jpg", "../p/my photo (1).jpg", "../p/100%25.png", "../p/q.v2.png"]


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("/data/upload/3/1a2b3c4d-q.v2.png", "../p/q.v2.png"),
        ("images/1a2b3c4d-my_photo_1.jpg", "../p/my photo (1).jpg"),  # as Django writes an uploaded name
        ("1a2b3c4d-q.v2", "../p/q.v2.png"),  # the file name in VOC files of Label Studio
        ("q.v2", "../p/q.v2.png"),
        ("p/can/a.jpg?versionId=3", "../p/can/a.jpg"),
        ("can%5Ca.jpg", "../p/can/a.jpg"),
        ("D:\\shop\\jar\\a.jpg", "../p/jar/a.jpg"),
        ("100%25.png", "../p/100%25.png"),
        ("my%20photo%20%281%29.jpg", "../p/my photo (1).jpg"),
    ],
)
def test_name_means_one_picture(name, picture):
    assert ExportedNames(KNOWN).match(name) == [picture]


@pytest.mark.parametrize(
    "name", ["1a2b3c4-q.v2.png", "1A2B3C4D-q.v2.png", "x1a2b3c4d-q.v2.png", "q", "q?.png", "", "."]
)
def test_part_of_a_name_means_nothing(name):
    assert ExportedNames(KNOWN).match(name) == []


def test_picture_of_the_whole_name_comes_before_that_without_a_prefix():
    known = ["1a2b3c4d-a.jpg", "a.jpg"]
    assert ExportedNames(known).match("1a2b3c4d-a.jpg") == ["1a2b3c4d-a.jpg"]


def test_ambiguous_names_and_pictures_are_problems():
    names = ["1a2b3c4d-a.jpg", "1a2b3c4d-q.v2.png", "5e6f7a8b-q.v2.png", "z.jpg"]
    matches = match_names(names, ExportedNames(KNOWN))
    assert matches.found == {}
    assert [matches.problems[name].split(":")[0].split(" (")[0] for name in names] == [
        "2 pictures have this name",
        "2 names mean ../p/q.v2.png",
        "2 names mean ../p/q.v2.png",
        "no picture has this name",
    ]


def test_exact_path_keeps_a_picture_that_an_upload_means_too():
    matches = match_names(["../p/q.v2.png", "1a2b3c4d-q.v2.png"], ExportedNames(KNOWN))
    assert matches.found == {"../p/q.v2.png": "../p/q.v2.png"}


def test_addresses_of_storages_are_resolved_once():
    inner = base64.urlsafe_b64encode(b"s3://bucket/can/a.jpg").decode().rstrip("=")
    assert path_in_url(f"/tasks/7/resolve/?fileuri={inner}") == "can/a.jpg"
    assert path_in_url("/tasks/7/resolve/?fileuri=%00") == "/tasks/7/resolve/?fileuri=%00"
    assert path_in_url("s3://bucket/100%25.png") == "100%25.png"
    assert path_in_url("https://host/100%25.png") == "100%.png"


def test_name_that_is_no_utf8_is_matched():
    assert ExportedNames(["p/caf\udce9.jpg"]).match("https://host/caf%E9.jpg") == ["p/caf\udce9.jpg"]
