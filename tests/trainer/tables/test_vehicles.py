"""Rendered vehicles, and the tables of re-identification and of protocols, each filled by its command."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from dataset_formats.layouts import read_listing
from edge.errors import TrainError
from tests.trainer.toy import write_crops
from trainer.cli import main
from trainer.synthetic.write_vehicles import write_vehicles
from trainer.tables.retrieval_protocol import METHODS
from trainer.tables.table import Request
from trainer.tables.veri import VERI

SMALL = ["--weights", "none", "--backbone", "mobilenetv4_conv_small_050", "--seeds", "0", "--epochs", "1"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Four vehicles, two of them for training, two pictures by each of two cameras."""
    return write_vehicles(tmp_path_factory.mktemp("vehicles"), 1, 4, 2, 2, progress=False)


def test_rendered_vehicles_are_an_index_and_a_veri_set(rendered):
    index, veri = read_listing(rendered), read_listing(rendered, layout="veri", published=True)
    assert Counter(s.split for s in index.samples) == {"train": 8, "gallery": 8, "query": 4}
    assert {(s.path.name, s.item, s.camera) for s in index.samples} == {
        (s.path.name, s.item, s.camera) for s in veri.samples
    }
    assert {s.camera for s in index.samples} == {"c001", "c002"}
    by_name = {s.path.name: dict(s.attributes) for s in index.samples}
    for sample in veri.samples:
        assert dict(sample.attributes).items() <= by_name[sample.path.name].items()
    assert all(set(of) == {"colour", "make", "model", "type"} for of in by_name.values())
    assert veri.left_out == veri.noticed == []


def test_rendering_again_gives_the_same_files(rendered, tmp_path):
    again = write_vehicles(tmp_path, 1, 4, 2, 2, progress=False)
    name = "image_test/0003_c002_00000001_0.jpg"
    assert (again / name).read_bytes() == (rendered / name).read_bytes()


@pytest.mark.usefixtures("one_thread")
def test_veri_table_finds_vehicles_by_another_camera(rendered, tmp_path, capsys):
    command = ["table", "veri", "--data", str(rendered), "-o", str(tmp_path), *SMALL, "--pixels", "64"]
    assert main([*command, "--methods", "untuned,softmax"]) == 0
    report = json.loads(capsys.readouterr().out)
    measured = {row["method"]: row["measures"] for row in report["rows"]}
    assert list(measured) == ["untuned", "softmax"]
    for measures in measured.values():
        assert set(VERI.columns) == set(measures)
        assert measures["CMC@5"]["mean"] == 1.0  # of six pictures that are searched, two are right
        assert 0 < measures["mAP trapezoid"]["mean"] <= measures["mAP"]["mean"] <= 1


@pytest.mark.usefixtures("one_thread")
def test_veri_table_without_cameras_searches_one_picture_of_each(rendered, tmp_path):
    lines = (rendered / "index.csv").read_text().splitlines()
    head, rows = lines[0].split(","), [line.split(",") for line in lines[1:]]
    kept = [place for place, name in enumerate(head) if name != "camera"]
    text = "\n".join(",".join(row[place] for place in kept) for row in [head, *rows])
    (tmp_path / "index.csv").write_text(text + "\n")
    request = Request(tmp_path / "index.csv", tmp_path, rendered, None, "none", "mobilenetv4_conv_small_050", 64)
    assert VERI.measure(request, "untuned", 0, tmp_path / "run")["CMC@5"] == 1.0


def test_veri_table_needs_queries(tmp_path):
    request = Request(write_crops(tmp_path / "crops"), tmp_path)
    with pytest.raises(TrainError, match="has no pictures of query; give the splits train, query and gallery"):
        VERI.measure(request, "untuned", 0, tmp_path / "run")


@pytest.mark.usefixtures("one_thread")
def test_protocol_table_has_a_row_for_each_protocol(tmp_path, capsys):
    index = write_crops(tmp_path / "crops")
    command = ["table", "retrieval-protocol", "--data", str(index), "-o", str(tmp_path / "out"), *SMALL]
    assert main([*command, "--pixels", "32"]) == 0
    report = json.loads(capsys.readouterr().out)
    measured = {row["method"]: row["measures"] for row in report["rows"]}
    assert list(measured) == list(METHODS)
    assert len(list(tmp_path.glob("out/runs/*/run"))) == 2  # rows of the same classes share a training
    for measures in measured.values():
        assert list(measures) == report["columns"]
        assert measures["R@1"]["mean"] == measures["P@1"]["mean"] == measures["mAP@1 per hits"]["mean"]
